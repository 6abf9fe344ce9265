"""The meta tools (``mcp.router.*``): finding one's way among many servers, and managing them, by calling tools."""
