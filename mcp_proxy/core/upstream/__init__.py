"""Live connections to servers: wires (stdio, SSE, streamable HTTP), era negotiation, the actor that owns each one."""
