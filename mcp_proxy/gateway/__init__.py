"""The MCP door: what MCP clients speak to, whatever their revision. Calls go through `core`, as those of every door."""
