"""The built-in demo server: a real MCP server over stdio, started when nothing else is configured. Stands alone."""
