// The client of the TypeScript SDK 2.x (@modelcontextprotocol/client). See walk.mjs.

import { answers, end, load, noteProgress, STEP, told, walk } from "./walk.mjs";

const { Client, SSEClientTransport, StreamableHTTPClientTransport } = load("@modelcontextprotocol/client");
const { StdioClientTransport } = load("@modelcontextprotocol/client/stdio");

const MODES = { legacy: "legacy", auto: "auto", modern: { pin: "2026-07-28" } };

function transport({ url, stdio, transport, headers }) {
  if (stdio) return new StdioClientTransport({ command: stdio[0], args: stdio.slice(1), env: process.env });
  const kind = transport === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
  return new kind(new URL(url), { requestInit: { headers } });
}

const args = told();
const { asked, elicitation, sampling, roots } = answers(args.plan);
const client = new Client(
  { name: "typescript-sdk-2", version: "1" },
  { capabilities: { elicitation: {}, sampling: {}, roots: {} }, versionNegotiation: { mode: MODES[args.era] } },
);
client.setRequestHandler("elicitation/create", elicitation);
client.setRequestHandler("sampling/createMessage", sampling);
client.setRequestHandler("roots/list", roots);

const wire = transport(args);
await client.connect(wire, { timeout: STEP });
const arrived = noteProgress(wire);
const report = await walk(client, {
  plan: args.plan,
  asked,
  about: async () => [client.getNegotiatedProtocolVersion(), client.getServerVersion()?.name ?? ""],
  call: (params, onprogress) => client.callTool(params, { onprogress, timeout: STEP }),
});
await client.close();
end({ ...report, arrived });
