// One walk through a server, the same for the clients written in JavaScript: list, call, get, read, and answer.
// `walk.py` is its twin, and says what a plan and a report hold.

import { createRequire } from "node:module";
import { setTimeout } from "node:timers/promises";
import { parseArgs } from "node:util";

/** Loads a package that scripts/test installed. */
export const load = createRequire(new URL("../../.cache/test-servers/clients/package.json", import.meta.url));

/** Milliseconds that one request may take. */
export const STEP = 30_000;

/** How the progress begins that the SDK 2.x reports itself, for each round of questions in a call. */
const ROUND = "Fulfilling input required";

/** The command line: url, stdio (argv, or undefined), transport, era, headers, plan. */
export function told() {
  const argv = process.argv.slice(2);
  const at = argv.indexOf("--stdio");
  const text = { type: "string" };
  const { values } = parseArgs({
    args: at < 0 ? argv : argv.slice(0, at),
    options: {
      plan: text,
      url: text,
      token: text,
      transport: { ...text, default: "http" },
      era: { ...text, default: "legacy" },
    },
  });
  const stdio = at < 0 ? undefined : argv.slice(at + 1);
  if (!values.plan || !(values.url || stdio)) throw new Error("--plan, and --url or --stdio, are needed");
  const headers = values.token ? { Authorization: `Bearer ${values.token}` } : {};
  return { ...values, stdio, headers, plan: JSON.parse(values.plan) };
}

/** What the server asked its client for, in order, and the answers that the plan gives (results of the protocol). */
export function answers(plan) {
  const asked = [];
  return {
    asked,
    elicitation({ params }) {
      asked.push(["elicitation", params.message]);
      return { action: "accept", content: plan.elicitation };
    },
    sampling({ params }) {
      asked.push(["sampling", textOf(params.messages.map((message) => message.content))]);
      return { role: "assistant", content: { type: "text", text: plan.sampling }, model: "test-model" };
    },
    async roots() {
      asked.push(["roots", ""]);
      await setTimeout(1000 * (plan.thinking ?? 0));
      return { roots: [{ uri: plan.root }] };
    },
  };
}

/**
 * The progress that a connected transport brings, in order. The SDK's own callback misses what is read together with the
 * answer: it forgets the call at the answer, and hands progress out a turn later ("unknown token").
 */
export function noteProgress(transport) {
  const arrived = [];
  const deliver = transport.onmessage;
  transport.onmessage = (message, extra) => {
    const { method, params } = message;
    if (method === "notifications/progress" && !params.message?.startsWith(ROUND)) arrived.push(params.progress);
    deliver(message, extra);
  };
  return arrived;
}

/** All pages of a list, as `field` of each. */
async function all(field, ask) {
  const found = [];
  let cursor;
  do {
    const page = await ask(cursor ? { cursor } : undefined);
    found.push(...page[field]);
    cursor = page.nextCursor;
  } while (cursor);
  return found;
}

/**
 * Carries out the plan; a step that fails is noted, and the next one tried. `call(params, onprogress)` is the client's
 * callTool, `about()` gives the protocol version and the server's name.
 */
export async function walk(client, { plan, asked, about, call }) {
  const report = { failed: {}, called: {}, got: {}, read: {}, progress: {}, asked };
  const step = async (into, key, doing) => {
    try {
      into[key] = await doing();
    } catch (error) {
      report.failed[key] = String(error);
    }
  };
  await step(report, "about", about);
  const names = (field, key, ask) => step(report, key, async () => (await all(field, ask)).map((item) => item.name));
  await names("tools", "tools", (page) => client.listTools(page));
  await names("prompts", "prompts", (page) => client.listPrompts(page));
  await step(report, "resources", async () =>
    (await all("resources", (page) => client.listResources(page))).map((item) => item.uri),
  );
  await step(report, "templates", async () =>
    (await all("resourceTemplates", (page) => client.listResourceTemplates(page))).map((item) => item.uriTemplate),
  );
  for (const [name, args] of plan.calls) {
    const seen = (report.progress[name] = []);
    await step(report.called, name, async () => {
      const result = await call({ name, arguments: args }, ({ progress, message }) => {
        if (!message?.startsWith(ROUND)) seen.push(progress);
      });
      return [result.isError ?? false, textOf(result.content)];
    });
  }
  for (const [name, args] of plan.prompts) {
    await step(report.got, name, async () => {
      const { messages } = await client.getPrompt({ name, arguments: args });
      return textOf(messages.map((message) => message.content));
    });
  }
  for (const uri of plan.resources) {
    await step(report.read, uri, async () => textOf((await client.readResource({ uri })).contents));
  }
  return report;
}

/** The texts among the contents of a result, one line each. */
function textOf(parts) {
  return parts.flatMap((part) => part.text ?? []).join("\n");
}

/** Prints the report and ends the process; whatever is still open ends with it. */
export function end(report) {
  const code = Object.keys(report.failed).length ? 1 : 0;
  process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(code));
}
