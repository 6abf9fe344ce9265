"""The built-in demo server: a real MCP server, started over stdio when nothing else is configured. Stands alone."""
