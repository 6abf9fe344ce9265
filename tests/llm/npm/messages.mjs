// Cases of Anthropic's client: messages, counts of tokens, models.

import assert from "node:assert/strict";

import {
  all, CALLED, counted, DOT, failure, long, noted, PLAN, PLAN_SCHEMA, planOf, TASK, told, TOOLS, UNICODE,
} from "./shared.mjs";

const tools = TOOLS.map(([name, description, input_schema]) => ({ name, description, input_schema }));
const OSLO = 'call weather {"city": "Oslo"}';
const BOTH = `${OSLO}\ncall sum {"numbers": [1, 2]}`;
const PICTURE = { type: "image", source: { type: "base64", media_type: "image/png", data: DOT } };
const textOf = ({ content }) => content.map((block) => (block.type === "text" ? block.text : "")).join("");
const calls = ({ content }) => content.filter(({ type }) => type === "tool_use").map(({ name, input }) => [name, input]);

const api = (w, token, options) => w.anthropic(token, options).messages;
const asked = (w, words, more) => ({ model: w.model, max_tokens: 1000, messages: w.ask(words), ...more });
const create = (w, words, more, options) => api(w).create(asked(w, words, more), options);
const stream = (w, words, more, options) => api(w).stream(asked(w, words, more), options);

async function lacks(w, token, kind, status, type) {
  const error = await failure(() => api(w, token).create(asked(w, "say: never")), kind);
  told(error, status, type);
  return error;
}

async function fails(w, streamed) {
  const doing = async () => all(await create(w, "fail: out of order", { stream: streamed }));
  const error = await failure(doing, w.Anthropic.InternalServerError);
  told(error, 502, "api_error");
  assert.match(error.message, /out of order/);
  assert.equal(error.headers.get("x-should-retry"), "false");
}

/** Tools for the library's own runner: one of a schema of zod's, one of a JSON schema. */
function runnable(w, use) {
  const { z } = w.zod;
  const [[, about, schema], [, other]] = TOOLS;
  return [
    w.anthropicTool.betaTool({ name: "weather", description: about, inputSchema: schema, run: use("weather") }),
    w.anthropicBetaZod.betaZodTool({
      name: "sum",
      description: other,
      inputSchema: z.object({ numbers: z.array(z.number()) }),
      run: use("sum"),
    }),
  ];
}

export const cases = {
  async "messages: a plain question is answered"(w) {
    const message = await create(w, "say: hello");
    assert.deepEqual([message.type, message.role, message.model], ["message", "assistant", "brain-1"]);
    assert.match(message.id, /^msg_/);
    assert.deepEqual(message.content.map(({ type, text }) => [type, text]), [["text", "hello"]]);
    assert.deepEqual([message.stop_reason, message.stop_sequence], ["end_turn", null]);
    assert.ok(message._request_id);
  },

  async "messages: a system prompt in blocks arrives"(w) {
    const system = [
      { type: "text", text: "You are a sailor.", cache_control: { type: "ephemeral" } },
      { type: "text", text: "Be brief." },
    ];
    assert.equal(textOf(await create(w, "say: aye", { system })), "aye");
  },

  async "messages: a history arrives in its order"(w) {
    const messages = [{ role: "user", content: "one" }, { role: "assistant", content: "two" }, ...w.ask("say: three")];
    assert.equal(textOf(await create(w, "", { messages })), "three");
  },

  async "messages: a picture is seen"(w) {
    const content = [PICTURE, { type: "text", text: w.said("look") }];
    assert.match(textOf(await create(w, "", { messages: [{ role: "user", content }] })), /^I see image\/png of \d+$/);
  },

  async "messages: other scripts and signs come unchanged"(w) {
    assert.equal(textOf(await create(w, "unicode")), UNICODE);
    assert.equal(await stream(w, "unicode").finalText(), UNICODE);
  },

  async "messages: tokens that were counted are told"(w) {
    const { usage } = await create(w, "say: counted\nusage 1234 56");
    assert.deepEqual([usage.input_tokens, usage.output_tokens], [1234, 56]);
  },

  async "messages: an answer that was cut short says so"(w) {
    const message = await create(w, "say: and then\nlength", { max_tokens: 77 });
    assert.deepEqual([textOf(message), message.stop_reason], ["and then", "max_tokens"]);
  },

  async "messages: a model that declines is seen to"(w) {
    const message = await create(w, "say: I'd rather not\nrefuse");
    assert.deepEqual([textOf(message), message.stop_reason], ["I'd rather not", "refusal"]);
  },

  async "messages: an answer ends before a stop text"(w) {
    const message = await create(w, "say: one two END three", { stop_sequences: ["END"] });
    assert.deepEqual([textOf(message), message.stop_reason, message.stop_sequence], ["one two ", "stop_sequence", "END"]);
  },

  async "messages: the answer comes with its headers"(w) {
    const { data, response, request_id } = await create(w, "say: hello").withResponse();
    assert.equal(textOf(data), "hello");
    assert.equal(response.headers.get("request-id"), request_id);
    assert.equal(response.headers.get("x-mcp-model"), "brain-1");
  },

  // Streams

  async "messages: the events of a stream come in their order"(w) {
    const events = await all(await create(w, "count to 100", { stream: true }));
    const deltas = events.filter(({ type }) => type === "content_block_delta");
    assert.equal(deltas.map(({ delta }) => delta.text).join(""), counted(100));
    assert.deepEqual([...new Set(events.map(({ type }) => type))], [
      "message_start",
      "content_block_start",
      "content_block_delta",
      "content_block_stop",
      "message_delta",
      "message_stop",
    ]);
    assert.deepEqual([events[0].message.content, events[0].message.stop_reason], [[], null]);
    assert.equal(events.at(-2).delta.stop_reason, "end_turn");
    assert.ok(events.at(-2).usage.output_tokens > 0);
  },

  async "messages: a long stream comes whole"(w) {
    assert.equal(await stream(w, "long 200000 characters").finalText(), long(200_000));
  },

  async "messages: the helper tells of a stream as it grows"(w) {
    const seen = { text: "", blocks: [], connected: 0, ended: 0, events: 0 };
    const helper = stream(w, "count to 20\nusage 12 34");
    helper.on("connect", () => (seen.connected += 1));
    helper.on("streamEvent", () => (seen.events += 1));
    helper.on("text", (delta, snapshot) => assert.equal(snapshot, (seen.text += delta)));
    helper.on("contentBlock", (block) => seen.blocks.push(block.text));
    helper.on("end", () => (seen.ended += 1));
    const final = await helper.finalMessage();
    assert.deepEqual([seen.text, textOf(final), seen.blocks], [counted(20), counted(20), [counted(20)]]);
    assert.deepEqual([seen.connected, seen.ended], [1, 1]);
    assert.ok(seen.events > 10);
    assert.equal(final.usage.output_tokens, 34);
    assert.ok(helper.request_id);
  },

  async "messages: a stream can be handed on to another program"(w) {
    const { MessageStream } = w.anthropicStream;
    const passed = MessageStream.fromReadableStream(stream(w, "count to 20").toReadableStream());
    assert.equal(await passed.finalText(), counted(20));
  },

  // Tools

  async "messages: a tool is called after some words"(w) {
    const message = await create(w, `say: Let me see.\n${OSLO}`, { tools });
    assert.deepEqual([message.stop_reason, textOf(message)], ["tool_use", "Let me see."]);
    assert.deepEqual(calls(message), [["weather", { city: "Oslo" }]]);
    assert.ok(message.content.at(-1).id);
  },

  async "messages: tools are called in parallel"(w) {
    const message = await create(w, BOTH, { tools });
    assert.deepEqual(calls(message), [["weather", { city: "Oslo" }], ["sum", { numbers: [1, 2] }]]);
    assert.equal(new Set(message.content.map(({ id }) => id)).size, 2);
  },

  async "messages: only one tool is called where only one may be"(w) {
    const tool_choice = { type: "auto", disable_parallel_tool_use: true };
    assert.deepEqual(calls(await create(w, BOTH, { tools, tool_choice })), [["weather", { city: "Oslo" }]]);
  },

  async "messages: a tool has to be called"(w) {
    const message = await create(w, "say: I would rather talk", { tools, tool_choice: { type: "any" } });
    assert.deepEqual([message.stop_reason, calls(message)], ["tool_use", [["weather", {}]]]);
  },

  async "messages: a certain tool has to be called"(w) {
    const tool_choice = { type: "tool", name: "sum" };
    assert.deepEqual(calls(await create(w, "say: talk", { tools, tool_choice })), [["sum", {}]]);
  },

  async "messages: no tool may be called"(w) {
    const message = await create(w, OSLO, { tools, tool_choice: { type: "none" } });
    assert.deepEqual([message.stop_reason, textOf(message)], ["end_turn", "I may not use tools."]);
  },

  async "messages: the helper tells of input as it grows"(w) {
    const seen = [];
    const helper = stream(w, BOTH, { tools });
    helper.on("inputJson", (_, snapshot) => seen.push(structuredClone(snapshot)));
    const final = await helper.finalMessage();
    assert.deepEqual(seen.at(-1), { numbers: [1, 2] });
    assert.ok(seen.some((snapshot) => snapshot.city === "Oslo"));
    assert.deepEqual(calls(final), [["weather", { city: "Oslo" }], ["sum", { numbers: [1, 2] }]]);
  },

  async "messages: a loop of tools by hand comes to its end"(w) {
    const { called, use } = noted();
    const messages = w.ask(TASK);
    let message;
    do {
      message = await create(w, "", { messages, tools });
      messages.push({ role: "assistant", content: message.content });
      const due = message.content.filter(({ type }) => type === "tool_use");
      const content = due.map(({ id, name, input }) => ({ type: "tool_result", tool_use_id: id, content: use(name)(input) }));
      if (content.length) messages.push({ role: "user", content });
    } while (message.stop_reason === "tool_use");
    assert.equal(textOf(message), "Cold, and 6.");
    assert.deepEqual(called, CALLED);
  },

  async "messages: the runner's loop of tools comes to its end"(w) {
    const { called, use } = noted();
    const runner = w.anthropic().beta.messages.toolRunner(asked(w, TASK, { tools: runnable(w, use) }));
    assert.equal((await all(runner)).length, 4);
    assert.equal(textOf(await runner.done()), "Cold, and 6.");
    assert.deepEqual(called, CALLED);
  },

  async "messages: the runner's loop of tools in streams comes to its end"(w) {
    const { called, use } = noted();
    const runner = w.anthropic().beta.messages.toolRunner(asked(w, TASK, { tools: runnable(w, use), stream: true }));
    const finals = [];
    for await (const one of runner) finals.push(textOf(await one.finalMessage()));
    assert.deepEqual([finals[0], finals.at(-1), finals.length], ["Let me see.", "Cold, and 6.", 4]);
    assert.deepEqual(called, CALLED);
  },

  async "messages: a tool that fails in the runner is told to the model"(w) {
    const [, sum] = runnable(w, noted().use);
    const run = () => {
      throw new Error("no such city");
    };
    const weather = w.anthropicTool.betaTool({ name: "weather", description: "", inputSchema: TOOLS[0][2], run });
    const body = asked(w, OSLO, { tools: [weather, sum] });
    assert.match(textOf(await w.anthropic().beta.messages.toolRunner(body)), /no such city/);
  },

  async "messages: a thread of the library goes on without the server's memory"(w) {
    const thread = w.anthropic().beta.messages.thread({
      model: w.model,
      max_tokens: 1000,
      system: "You are a sailor.",
      unsupportedRequestBehavior: "continue_unthreaded",
    });
    const first = await thread.send({ role: "user", content: w.said("say: one") });
    const second = await thread.send({ role: "user", content: w.said("say: two") });
    assert.deepEqual([textOf(first), textOf(second)], ["one", "two"]);
  },

  // Answers in a form

  async "messages: parse reads an answer in a form of zod's"(w) {
    const output_config = { format: w.anthropicZod.zodOutputFormat(planOf(w.zod)) };
    const message = await api(w).parse(asked(w, `json ${JSON.stringify(PLAN)}`, { output_config }));
    assert.deepEqual(message.parsed_output, PLAN);
  },

  async "messages: parse reads an answer of a JSON schema"(w) {
    const output_config = { format: w.anthropicSchema.jsonSchemaOutputFormat(PLAN_SCHEMA) };
    const message = await api(w).parse(asked(w, `json ${JSON.stringify(PLAN)}`, { output_config }));
    assert.deepEqual(message.parsed_output, PLAN);
  },

  async "messages: the helper reads a stream in a form of zod's"(w) {
    const output_config = { format: w.anthropicZod.zodOutputFormat(planOf(w.zod)) };
    const final = await stream(w, `json ${JSON.stringify(PLAN)}`, { output_config }).finalMessage();
    assert.deepEqual(final.parsed_output, PLAN);
  },

  async "messages: parse of the beta reads an answer in a form of zod's"(w) {
    const output_config = { format: w.anthropicBetaZod.betaZodOutputFormat(planOf(w.zod)) };
    const message = await w.anthropic().beta.messages.parse(asked(w, `json ${JSON.stringify(PLAN)}`, { output_config }));
    assert.deepEqual(message.parsed_output, PLAN);
  },

  // Failures

  "messages: a model that fails is asked once": (w) => fails(w, false),
  "messages: a model that fails in a stream is asked once": (w) => fails(w, true),

  async "messages: a person who says no is asked once"(w) {
    told(await failure(() => create(w, "reject"), w.Anthropic.PermissionDeniedError), 403, "permission_error");
  },

  async "messages: a model that does not answer in time is asked once"(w) {
    const error = await failure(() => create(w, "wait"), w.Anthropic.GatewayTimeoutError);
    told(error, 504, "timeout_error");
    assert.equal(error.headers.get("x-should-retry"), "false");
  },

  async "messages: a provider that has too much to do is tried again later"(w) {
    const error = await failure(() => create(w, "busy 7", {}, { maxRetries: 0 }), w.Anthropic.RateLimitError);
    told(error, 429, "rate_limit_error");
    assert.equal(error.headers.get("retry-after"), "7");
  },

  async "messages: a token's requests of a minute are counted"(w) {
    const one = api(w, "messagesOnce", { maxRetries: 0 });
    assert.equal(textOf(await one.create(asked(w, "say: the one"))), "the one");
    const error = await failure(() => one.create(asked(w, "say: never")), w.Anthropic.RateLimitError);
    told(error, 429, "rate_limit_error");
    assert.equal(error.headers.get("anthropic-ratelimit-requests-remaining"), "0");
  },

  "messages: a key that is no token is an authentication error": (w) =>
    lacks(w, "unknown", w.Anthropic.AuthenticationError, 401, "authentication_error"),
  "messages: a token that has expired is an authentication error": (w) =>
    lacks(w, "expired", w.Anthropic.AuthenticationError, 401, "authentication_error"),
  "messages: a model that the token may not use is not found": (w) =>
    lacks(w, "elsewhere", w.Anthropic.NotFoundError, 404, "not_found_error"),

  async "messages: a token without the right is told which it lacks"(w) {
    const error = await lacks(w, "without", w.Anthropic.PermissionDeniedError, 403, "permission_error");
    assert.match(error.message, /llm:call/);
  },

  async "messages: a number of tokens below one is a bad request"(w) {
    const error = await failure(() => create(w, "say: never", { max_tokens: 0 }), w.Anthropic.BadRequestError);
    told(error, 400, "invalid_request_error");
    assert.match(error.apiMessage, /^max_tokens: /);
  },

  async "messages: a picture that would have to be fetched is a bad request"(w) {
    const picture = { type: "image", source: { type: "url", url: "https://example.com/a.png" } };
    const messages = [{ role: "user", content: [picture, { type: "text", text: w.said("look") }] }];
    told(await failure(() => create(w, "", { messages }), w.Anthropic.BadRequestError), 400, "invalid_request_error");
  },

  // Leaving

  async "messages: a caller who aborts takes the question back"(w) {
    const controller = new AbortController();
    const question = create(w, "wait", {}, { signal: controller.signal });
    await w.modelIsAtWork();
    controller.abort();
    await failure(() => question, w.Anthropic.APIUserAbortError);
  },

  async "messages: a caller who aborts a stream before it begins takes the question back"(w) {
    const helper = stream(w, "wait");
    const aborted = [];
    helper.on("abort", (error) => aborted.push(error));
    await w.modelIsAtWork();
    helper.abort();
    await failure(() => helper.finalMessage(), w.Anthropic.APIUserAbortError);
    assert.equal(aborted.length, 1);
  },

  async "messages: a stream that is aborted midway ends"(w) {
    const helper = stream(w, "long 3000000 characters");
    let read = 0;
    helper.on("text", (text) => {
      read += text.length;
      helper.abort();
    });
    await failure(() => helper.finalMessage(), w.Anthropic.APIUserAbortError);
    assert.ok(read > 0 && read < 3_000_000, String(read));
  },

  // Counts and models

  async "messages: tokens are counted without asking the model"(w) {
    const count = async (more) => (await api(w).countTokens({ model: w.model, messages: w.ask("hello"), ...more })).input_tokens;
    const counts = [await count(), await count({ system: "You are a sailor." }), await count({ system: "You are a sailor.", tools })];
    assert.ok(counts[0] > 0 && counts[0] < counts[1] && counts[1] < counts[2], String(counts));
  },

  async "models: Anthropic's client lists them and looks at one"(w) {
    const client = w.anthropic();
    const models = await all(client.models.list());
    assert.ok(models.some(({ id }) => id === w.model));
    assert.ok(models.every(({ type, display_name, created_at }) => type === "model" && display_name && Date.parse(created_at)));
    assert.equal((await client.models.retrieve(w.model)).id, w.model);
  },

  async "models: Anthropic's client does not find one that there is not"(w) {
    told(await failure(() => w.anthropic().models.retrieve("gone"), w.Anthropic.NotFoundError), 404, "not_found_error");
  },
};
