"""The official conformance suite (@modelcontextprotocol/conformance, pinned in `npm`) against the proxy's MCP door.

By hand: ``python -m tests.conformance --help``. `suite` runs it, `verdict` compares, `upstreams` and `fixture_server`
are what stands behind the proxy, `drive` is the client in front of it when the suite plays the server.
"""
