// The client of the TypeScript SDK 1.x (@modelcontextprotocol/sdk). See walk.mjs.

import { answers, end, load, STEP, told, walk } from "./walk.mjs";

const { Client } = load("@modelcontextprotocol/sdk/client/index.js");
const { SSEClientTransport } = load("@modelcontextprotocol/sdk/client/sse.js");
const { StdioClientTransport } = load("@modelcontextprotocol/sdk/client/stdio.js");
const { StreamableHTTPClientTransport } = load("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { CallToolResultSchema, CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema } = load(
  "@modelcontextprotocol/sdk/types.js",
);

function transport({ url, stdio, transport, headers }) {
  if (stdio) return new StdioClientTransport({ command: stdio[0], args: stdio.slice(1), env: process.env });
  const kind = transport === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
  return new kind(new URL(url), { requestInit: { headers } });
}

const args = told();
const { asked, elicitation, sampling, roots } = answers(args.plan);
const client = new Client(
  { name: "typescript-sdk-1", version: "1" },
  { capabilities: { elicitation: {}, sampling: {}, roots: {} } },
);
client.setRequestHandler(ElicitRequestSchema, elicitation);
client.setRequestHandler(CreateMessageRequestSchema, sampling);
client.setRequestHandler(ListRootsRequestSchema, roots);

const over = transport(args);
let version; // the client tells it to its transport only
const setVersion = over.setProtocolVersion?.bind(over);
over.setProtocolVersion = (negotiated) => {
  version = negotiated;
  setVersion?.(negotiated);
};
await client.connect(over, { timeout: STEP });
const report = await walk(client, {
  plan: args.plan,
  asked,
  about: async () => [version, client.getServerVersion().name],
  call: (params, onprogress) => client.callTool(params, CallToolResultSchema, { onprogress, timeout: STEP }),
});
await client.close();
end(report);
