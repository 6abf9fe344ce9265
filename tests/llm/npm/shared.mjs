// What the cases of every API have in common: the data they use, and checks of failures and streams.

import assert from "node:assert/strict";

export const DOT =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
export const URL_OF_DOT = `data:image/png;base64,${DOT}`;
export const UNICODE = 'Grüße, 世界! 👩‍👩‍👧‍👦 é "quoted" \\ \t tab\nשלום — end\u2028line';

const CITY = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const NUMBERS = { type: "object", properties: { numbers: { type: "array", items: { type: "number" } } } };
/** Tools as a name, what it is for, and the schema of what it takes. */
export const TOOLS = [
  ["weather", "what it is like in a city", CITY],
  ["sum", "adds numbers up", NUMBERS],
];
export const USES = {
  weather: ({ city }) => `cold in ${city}`,
  sum: ({ numbers }) => String(numbers.reduce((one, other) => one + other, 0)),
};

/** A task of four rounds, and the calls that it takes. */
export const TASK = [
  "say: Let me see.",
  'call weather {"city": "Oslo"}',
  'call weather {"city": "Zürich"}',
  'then call sum {"numbers": [1, 2, 3]}',
  'then call sum {"numbers": []}',
  "finally say: Cold, and 6.",
].join("\n");
export const CALLED = [
  ["weather", { city: "Oslo" }],
  ["weather", { city: "Zürich" }],
  ["sum", { numbers: [1, 2, 3] }],
  ["sum", { numbers: [] }],
];

/** Tools that note how they are called, and what they are called with. */
export function noted() {
  const called = [];
  const use = (name) => (given) => {
    called.push([name, given]);
    return USES[name](given);
  };
  return { called, use };
}

/** The plan that answers in a form are asked for, as a value and as a schema of zod's. */
export const PLAN = { name: "Grüße 🌍", mood: "good", steps: [{ says: 'a "b"\nc', weight: 1.5 }, { says: "", weight: null }] };
export const planOf = ({ z }) =>
  z.object({
    name: z.string(),
    mood: z.enum(["good", "bad"]),
    steps: z.array(z.object({ says: z.string(), weight: z.number().nullable() })),
  });
export const PLAN_SCHEMA = {
  type: "object",
  properties: {
    name: { type: "string" },
    mood: { enum: ["good", "bad"], type: "string" },
    steps: {
      type: "array",
      items: {
        type: "object",
        properties: { says: { type: "string" }, weight: { type: ["number", "null"] } },
        required: ["says", "weight"],
        additionalProperties: false,
      },
    },
  },
  required: ["name", "mood", "steps"],
  additionalProperties: false,
};

export const counted = (most) => Array.from({ length: most }, (_, index) => index + 1).join(" ");

/** What the model says at `long … characters`. */
export function long(length) {
  const words = [];
  for (let start = 0; start < length; start += 40) {
    words.push(`${String(start).padStart(9, "0")}${"abcdefghijklmnopqrstuvwxyz".repeat(2)}`.slice(0, 39), " ");
  }
  return words.join("").slice(0, length);
}

/** What an iteration brings. */
export async function all(stream) {
  const found = [];
  for await (const one of stream) found.push(one);
  return found;
}

/** The exception that `doing` ends with, which has to be of that class. */
export async function failure(doing, kind) {
  let answer;
  try {
    answer = await doing();
  } catch (error) {
    assert.ok(error instanceof kind, `${error?.constructor?.name} is no ${kind.name}: ${error?.stack}`);
    return error;
  }
  assert.fail(`no failure but ${JSON.stringify(answer)}`);
}

/** A failure that the service tells: its status, the word for it (code or type), and one request id everywhere. */
export function told(error, status, word) {
  const id = error.headers.get("x-request-id");
  assert.equal(error.status, status);
  assert.equal(error.headers.get("request-id"), id);
  assert.equal(error.requestID, id);
  assert.ok(id);
  assert.equal("code" in error ? error.code : error.type, word); // OpenAI's have a code, Anthropic's a type
  assert.ok(error.message.length > String(status).length + 1, error.message);
}
