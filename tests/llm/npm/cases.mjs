// What the official npm clients do at one service, case by case: prints a line {"name", "ok", "error"} for each.
//
//   node cases.mjs --packages DIRECTORY --base URL --tokens JSON NAME…
//
// The cases are in chat.mjs, responses.mjs and messages.mjs. One that has to know that the model is at work prints
// {"waits": NAME}, and goes on when that name comes in as a line. `test_npm_clients.py` runs this, and knows what the
// model must have been asked.

import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

import * as chat from "./chat.mjs";
import * as messages from "./messages.mjs";
import * as responses from "./responses.mjs";

const PATIENCE = 20_000; // milliseconds that a case may take
const AT_ONCE = 4;
const MODEL = "fast";

const text = { type: "string" };
const { values, positionals: names } = parseArgs({
  allowPositionals: true,
  options: { packages: text, base: text, tokens: text },
});
const load = createRequire(resolve(join(values.packages, "package.json")));
const tokens = JSON.parse(values.tokens);

const libraries = {
  OpenAI: load("openai"),
  Anthropic: load("@anthropic-ai/sdk"),
  zod: load("zod"),
  openaiErrors: load("openai/error"),
  openaiZod: load("openai/helpers/zod"),
  openaiRunner: load("openai/helpers/responses-tool-runner"),
  openaiStream: load("openai/lib/ChatCompletionStream"),
  anthropicStream: load("@anthropic-ai/sdk/lib/MessageStream"),
  anthropicZod: load("@anthropic-ai/sdk/helpers/zod"),
  anthropicBetaZod: load("@anthropic-ai/sdk/helpers/beta/zod"),
  anthropicSchema: load("@anthropic-ai/sdk/helpers/json-schema"),
  anthropicTool: load("@anthropic-ai/sdk/helpers/beta/json-schema"),
};

const going = new Map();
const lines = createInterface({ input: process.stdin });
lines.on("line", (name) => going.get(name)?.());

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

/** What one case has: the libraries, clients with the token of that name, and its own mark in what it says. */
function worldOf(name) {
  return {
    ...libraries,
    model: MODEL,
    said: (words) => `${words}\n(case: ${name})`,
    ask: (words) => [{ role: "user", content: `${words}\n(case: ${name})` }],
    openai: (token = "ordinary", options = {}) =>
      new libraries.OpenAI({ apiKey: tokens[token], baseURL: `${values.base}/v1`, timeout: PATIENCE, ...options }),
    anthropic: (token = "ordinary", options = {}) =>
      new libraries.Anthropic({ apiKey: tokens[token], baseURL: values.base, timeout: PATIENCE, ...options }),
    /** Until the model has this case's question in its hands. */
    modelIsAtWork: () =>
      new Promise((go) => {
        going.set(name, go);
        print({ waits: name });
      }),
  };
}

const table = { ...chat.cases, ...responses.cases, ...messages.cases };

async function run(name) {
  let late;
  try {
    const patience = new Promise((_, reject) => {
      late = setTimeout(() => reject(new Error(`not within ${PATIENCE} ms`)), PATIENCE);
    });
    await Promise.race([table[name](worldOf(name)), patience]);
    print({ name, ok: true, error: null });
  } catch (error) {
    print({ name, ok: false, error: String(error?.stack ?? error).slice(0, 3000) });
  } finally {
    clearTimeout(late);
  }
}

const unknown = names.filter((name) => !Object.hasOwn(table, name));
if (unknown.length) throw new Error(`no such case: ${unknown.join("; ")}`);
print({ cases: Object.keys(table) });
const left = [...names];
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    while (left.length) await run(left.shift());
  }),
);
lines.close();
process.exit(); // a connection that is kept alive holds nobody up
