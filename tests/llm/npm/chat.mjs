// Cases of OpenAI's client at `chat.completions`, and at `models`.

import assert from "node:assert/strict";

import {
  all, CALLED, counted, failure, long, noted, PLAN, PLAN_SCHEMA, planOf, TASK, told, TOOLS, UNICODE, URL_OF_DOT,
} from "./shared.mjs";

const tools = TOOLS.map(([name, description, parameters]) => ({
  type: "function",
  function: { name, description, parameters },
}));
const OSLO = 'call weather {"city": "Oslo"}';
const BOTH = `${OSLO}\ncall sum {"numbers": [1, 2]}`;
const calls = (message) =>
  (message.tool_calls ?? []).map((call) => [call.function.name, JSON.parse(call.function.arguments)]);

const api = (w, token, options) => w.openai(token, options).chat.completions;
const create = (w, words, more, options) => api(w).create({ model: w.model, messages: w.ask(words), ...more }, options);
const stream = (w, words, more, options) => api(w).stream({ model: w.model, messages: w.ask(words), ...more }, options);
const sent = async (w, words, more) => (await create(w, words, more)).choices[0];

/** A task carried out by the library's own runner, whole or in streams. */
function ran(streamed) {
  return async (w) => {
    const { called, use } = noted();
    const runnable = TOOLS.map(([name, description, parameters]) => ({
      type: "function",
      function: { name, description, parameters, parse: JSON.parse, function: use(name) },
    }));
    const runner = api(w).runTools({ model: w.model, messages: w.ask(TASK), tools: runnable, stream: streamed });
    const results = [];
    runner.on("functionToolCallResult", (result) => results.push(result));
    assert.equal(await runner.finalContent(), "Cold, and 6.");
    assert.deepEqual(called, CALLED);
    assert.deepEqual(results, ["cold in Oslo", "cold in Zürich", "6", "0"]);
    assert.equal(runner.allChatCompletions().length, 4);
  };
}

/** A stop text that the model does not know of. */
async function stopped(w) {
  const choice = await sent(w, "say: one two END three", { stop: ["END"] });
  assert.equal(choice.message.content, "one two ");
  assert.equal(choice.finish_reason, "stop");
}

async function fails(w, streamed) {
  const error = await failure(
    async () => all(await create(w, "fail: out of order", { stream: streamed })),
    w.OpenAI.InternalServerError,
  );
  told(error, 502, "source_error");
  assert.match(error.message, /out of order/);
  assert.equal(error.headers.get("x-should-retry"), "false");
}

async function lacks(w, token, kind, status, code) {
  const error = await failure(() => api(w, token).create({ model: w.model, messages: w.ask("say: never") }), kind);
  told(error, status, code);
  return error;
}

export const cases = {
  async "chat: a plain question is answered"(w) {
    const completion = await create(w, "say: hello");
    const [choice] = completion.choices;
    assert.equal(completion.object, "chat.completion");
    assert.match(completion.id, /^chatcmpl-/);
    assert.equal(completion.model, "brain-1");
    assert.deepEqual([choice.message.role, choice.message.content], ["assistant", "hello"]);
    assert.equal(choice.finish_reason, "stop");
    assert.ok(completion._request_id);
  },

  async "chat: a system prompt arrives"(w) {
    const messages = [{ role: "system", content: "You are a sailor." }, ...w.ask("say: aye")];
    assert.equal((await sent(w, "", { messages })).message.content, "aye");
  },

  async "chat: a history arrives in its order"(w) {
    const messages = [
      { role: "user", content: "one" },
      { role: "assistant", content: "two" },
      ...w.ask("say: three"),
    ];
    assert.equal((await sent(w, "", { messages })).message.content, "three");
  },

  async "chat: a picture is seen"(w) {
    const content = [
      { type: "text", text: w.said("look") },
      { type: "image_url", image_url: { url: URL_OF_DOT } },
    ];
    const choice = await sent(w, "", { messages: [{ role: "user", content }] });
    assert.match(choice.message.content, /^I see image\/png of \d+$/);
  },

  async "chat: other scripts and signs come unchanged"(w) {
    assert.equal((await sent(w, "unicode")).message.content, UNICODE);
    assert.equal(await stream(w, "unicode").finalContent(), UNICODE);
  },

  async "chat: tokens that were counted are told"(w) {
    const { usage } = await create(w, "say: counted\nusage 1234 56");
    assert.deepEqual([usage.prompt_tokens, usage.completion_tokens, usage.total_tokens], [1234, 56, 1290]);
  },

  async "chat: an answer that was cut short says so"(w) {
    const choice = await sent(w, "say: and then\nlength", { max_completion_tokens: 77 });
    assert.deepEqual([choice.message.content, choice.finish_reason], ["and then", "length"]);
  },

  async "chat: a model that declines is seen to"(w) {
    const choice = await sent(w, "say: I'd rather not\nrefuse");
    assert.deepEqual([choice.message.content, choice.finish_reason], ["I'd rather not", "content_filter"]);
  },

  "chat: an answer ends before a stop text": stopped,

  async "chat: the answer comes with its headers"(w) {
    const { data, response, request_id } = await create(w, "say: hello").withResponse();
    assert.equal(data.choices[0].message.content, "hello");
    assert.equal(response.headers.get("x-request-id"), request_id);
    assert.equal(response.headers.get("x-mcp-model"), "brain-1");
    assert.equal((await (await create(w, "say: hello").asResponse()).json()).choices[0].message.content, "hello");
  },

  // Streams

  async "chat: a stream comes in many pieces of one answer"(w) {
    const chunks = await all(await create(w, "count to 100", { stream: true }));
    const said = chunks.map((chunk) => chunk.choices[0].delta.content ?? "");
    assert.equal(said.join(""), counted(100));
    assert.ok(said.filter(Boolean).length >= 50);
    assert.equal(new Set(chunks.map(({ id, created, model }) => `${id} ${created} ${model}`)).size, 1);
    assert.equal(chunks[0].choices[0].delta.role, "assistant");
    const finishes = chunks.map((chunk) => chunk.choices[0].finish_reason);
    assert.deepEqual([finishes.pop(), finishes.filter(Boolean)], ["stop", []]);
    assert.ok(chunks.every((chunk) => !chunk.usage));
  },

  async "chat: a stream tells its tokens when asked"(w) {
    const stream_options = { include_usage: true };
    const chunks = await all(await create(w, "say: counted\nusage 1234 56", { stream: true, stream_options }));
    const last = chunks.pop();
    assert.deepEqual([last.choices, last.usage.total_tokens], [[], 1290]);
    assert.ok(chunks.every((chunk) => chunk.usage === null || chunk.usage === undefined));
  },

  async "chat: a long stream comes whole"(w) {
    const chunks = await all(await create(w, "long 200000 characters", { stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), long(200_000));
  },

  async "chat: the helper tells of a stream as it grows"(w) {
    const told = { content: "", chunks: 0, done: [], connected: 0, ended: 0 };
    const helper = stream(w, "count to 20\nusage 12 34", { stream_options: { include_usage: true } });
    helper.on("connect", () => (told.connected += 1));
    helper.on("chunk", () => (told.chunks += 1));
    helper.on("content", (delta, snapshot) => assert.equal(snapshot, (told.content += delta)));
    helper.on("content.done", ({ content }) => told.done.push(content));
    helper.on("end", () => (told.ended += 1));
    const final = await helper.finalChatCompletion();
    assert.equal(final.choices[0].message.content, counted(20));
    assert.equal(told.content, counted(20));
    assert.deepEqual(told.done, [counted(20)]);
    assert.ok(told.chunks > 10);
    assert.deepEqual([told.connected, told.ended], [1, 1]);
    assert.equal((await helper.totalUsage()).total_tokens, 46);
  },

  async "chat: a stream can be handed on to another program"(w) {
    const passed = w.openaiStream.ChatCompletionStream.fromReadableStream(stream(w, "count to 20").toReadableStream());
    assert.equal(await passed.finalContent(), counted(20));
  },

  // Tools

  async "chat: a tool is called"(w) {
    const choice = await sent(w, OSLO, { tools });
    assert.equal(choice.finish_reason, "tool_calls");
    assert.deepEqual(calls(choice.message), [["weather", { city: "Oslo" }]]);
    assert.ok(choice.message.tool_calls[0].id);
    assert.equal(choice.message.content, null);
  },

  async "chat: tools are called in parallel"(w) {
    const choice = await sent(w, BOTH, { tools });
    assert.deepEqual(calls(choice.message), [["weather", { city: "Oslo" }], ["sum", { numbers: [1, 2] }]]);
    assert.equal(new Set(choice.message.tool_calls.map(({ id }) => id)).size, 2);
  },

  async "chat: only one tool is called where only one may be"(w) {
    const choice = await sent(w, BOTH, { tools, parallel_tool_calls: false });
    assert.deepEqual(calls(choice.message), [["weather", { city: "Oslo" }]]);
  },

  async "chat: a tool has to be called"(w) {
    const choice = await sent(w, "say: I would rather talk", { tools, tool_choice: "required" });
    assert.deepEqual([choice.finish_reason, calls(choice.message)], ["tool_calls", [["weather", {}]]]);
  },

  async "chat: a certain tool has to be called"(w) {
    const tool_choice = { type: "function", function: { name: "sum" } };
    const choice = await sent(w, "say: talk", { tools, tool_choice });
    assert.deepEqual(calls(choice.message), [["sum", {}]]);
  },

  async "chat: no tool may be called"(w) {
    const choice = await sent(w, OSLO, { tools, tool_choice: "none" });
    assert.deepEqual([choice.finish_reason, choice.message.content], ["stop", "I may not use tools."]);
  },

  async "chat: tool calls in a stream come piece by piece"(w) {
    const chunks = await all(await create(w, BOTH, { tools, stream: true }));
    const found = [];
    for (const call of chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? [])) {
      if (call.index === found.length) {
        assert.ok(call.id && call.type === "function");
        found.push([call.function.name, call.function.arguments ?? ""]);
      } else {
        assert.deepEqual([call.id, call.function.name], [undefined, undefined]);
        found[call.index][1] += call.function.arguments;
      }
    }
    assert.deepEqual(
      found.map(([name, given]) => [name, JSON.parse(given)]),
      [["weather", { city: "Oslo" }], ["sum", { numbers: [1, 2] }]],
    );
    assert.equal(chunks.at(-1).choices[0].finish_reason, "tool_calls");
  },

  async "chat: the helper tells of each tool call once"(w) {
    const done = [];
    const helper = stream(w, BOTH, { tools });
    helper.on("tool_calls.function.arguments.done", (call) => done.push([call.index, call.name, JSON.parse(call.arguments)]));
    await helper.done();
    assert.deepEqual(done, [[0, "weather", { city: "Oslo" }], [1, "sum", { numbers: [1, 2] }]]);
  },

  "chat: the runner's loop of tools comes to its end": ran(false),
  "chat: the runner's loop of tools in streams comes to its end": ran(true),

  async "chat: a loop of tools by hand comes to its end"(w) {
    const { called, use } = noted();
    const messages = w.ask(TASK);
    let message;
    do {
      ({ message } = await sent(w, "", { messages, tools }));
      messages.push(message);
      for (const call of message.tool_calls ?? []) {
        const content = use(call.function.name)(JSON.parse(call.function.arguments));
        messages.push({ role: "tool", tool_call_id: call.id, content });
      }
    } while (message.tool_calls);
    assert.equal(message.content, "Cold, and 6.");
    assert.deepEqual(called, CALLED);
  },

  // Answers in a form

  async "chat: parse reads an answer in a form of zod's"(w) {
    const response_format = w.openaiZod.zodResponseFormat(planOf(w.zod), "plan");
    const asked = { model: w.model, messages: w.ask(`json ${JSON.stringify(PLAN)}`), response_format };
    const { message } = (await api(w).parse(asked)).choices[0];
    assert.deepEqual(message.parsed, PLAN);
  },

  async "chat: parse reads an answer of a JSON schema"(w) {
    const response_format = { type: "json_schema", json_schema: { name: "plan", strict: true, schema: PLAN_SCHEMA } };
    const asked = { model: w.model, messages: w.ask(`json ${JSON.stringify(PLAN)}`), response_format };
    assert.deepEqual((await api(w).parse(asked)).choices[0].message.parsed, PLAN);
  },

  async "chat: the helper reads a stream in a form of zod's"(w) {
    const response_format = w.openaiZod.zodResponseFormat(planOf(w.zod), "plan");
    const done = [];
    const helper = stream(w, `json ${JSON.stringify(PLAN)}`, { response_format });
    helper.on("content.done", ({ parsed }) => done.push(parsed));
    assert.deepEqual((await helper.finalChatCompletion()).choices[0].message.parsed, PLAN);
    assert.deepEqual(done, [PLAN]);
  },

  async "chat: parse reads the arguments of a tool of zod's"(w) {
    const { z } = w.zod;
    const tool = w.openaiZod.zodFunction({ name: "weather", parameters: z.object({ city: z.string() }) });
    const asked = { model: w.model, messages: w.ask(OSLO), tools: [tool] };
    const { message } = (await api(w).parse(asked)).choices[0];
    assert.deepEqual(message.tool_calls[0].function.parsed_arguments, { city: "Oslo" });
  },

  async "chat: parse does not read an answer that was cut short"(w) {
    const response_format = w.openaiZod.zodResponseFormat(planOf(w.zod), "plan");
    const asked = { model: w.model, messages: w.ask('json {"name": "cut\nlength'), response_format };
    await failure(() => api(w).parse(asked), w.openaiErrors.LengthFinishReasonError);
  },

  // Failures

  "chat: a model that fails is asked once": (w) => fails(w, false),
  "chat: a model that fails in a stream is asked once": (w) => fails(w, true),

  async "chat: a person who says no is asked once"(w) {
    told(await failure(() => create(w, "reject"), w.OpenAI.PermissionDeniedError), 403, "sampling_rejected");
  },

  async "chat: a model that does not answer in time is asked once"(w) {
    const error = await failure(() => create(w, "wait"), w.OpenAI.InternalServerError);
    told(error, 504, "no_answer");
    assert.equal(error.headers.get("x-should-retry"), "false");
  },

  async "chat: a model that does not answer in time for a stream is asked once"(w) {
    const doing = async () => all(await create(w, "wait", { stream: true }));
    told(await failure(doing, w.OpenAI.InternalServerError), 504, "no_answer");
  },

  async "chat: a provider that has too much to do is tried again later"(w) {
    const error = await failure(() => create(w, "busy 7", {}, { maxRetries: 0 }), w.OpenAI.RateLimitError);
    told(error, 429, "rate_limit_exceeded");
    assert.equal(error.headers.get("retry-after"), "7");
  },

  async "chat: a token's requests of a minute are counted"(w) {
    const one = api(w, "chatOnce", { maxRetries: 0 });
    const asked = { model: w.model, messages: w.ask("say: the one") };
    assert.equal((await one.create(asked)).choices[0].message.content, "the one");
    const error = await failure(() => one.create(asked), w.OpenAI.RateLimitError);
    told(error, 429, "rate_limit_exceeded");
    assert.equal(error.headers.get("x-ratelimit-remaining-requests"), "0");
  },

  "chat: a key that is no token is an authentication error": (w) =>
    lacks(w, "unknown", w.OpenAI.AuthenticationError, 401, "invalid_api_key"),

  "chat: a token that has expired is an authentication error": (w) =>
    lacks(w, "expired", w.OpenAI.AuthenticationError, 401, "invalid_api_key"),

  async "chat: a token without the right is told which it lacks"(w) {
    const error = await lacks(w, "without", w.OpenAI.PermissionDeniedError, 403, "permission_denied");
    assert.match(error.message, /llm:call/);
  },

  async "chat: a model that the token may not use is not found"(w) {
    const error = await lacks(w, "elsewhere", w.OpenAI.NotFoundError, 404, "model_not_found");
    assert.equal(error.param, "model");
  },

  async "chat: a number of tokens below one is a bad request"(w) {
    const error = await failure(() => create(w, "say: never", { max_completion_tokens: 0 }), w.OpenAI.BadRequestError);
    told(error, 400, "invalid_request");
    assert.equal(error.param, "max_completion_tokens");
  },

  async "chat: several answers are a bad request"(w) {
    const error = await failure(() => create(w, "say: never", { n: 2 }), w.OpenAI.BadRequestError);
    told(error, 400, "unsupported_parameter");
    assert.equal(error.param, "n");
  },

  // Leaving

  async "chat: a caller who aborts takes the question back"(w) {
    const controller = new AbortController();
    const asked = create(w, "wait", {}, { signal: controller.signal });
    await w.modelIsAtWork();
    controller.abort();
    await failure(() => asked, w.OpenAI.APIUserAbortError);
  },

  async "chat: a caller who aborts a stream before it begins takes the question back"(w) {
    const helper = stream(w, "wait");
    const aborted = [];
    helper.on("abort", (error) => aborted.push(error));
    await w.modelIsAtWork();
    helper.abort();
    await failure(() => helper.finalChatCompletion(), w.OpenAI.APIUserAbortError);
    assert.equal(aborted.length, 1);
  },

  async "chat: a caller who has no more patience takes the question back"(w) {
    const options = { timeout: 300, maxRetries: 0 };
    await failure(() => create(w, "wait", {}, options), w.OpenAI.APIConnectionTimeoutError);
  },

  async "chat: a stream that is aborted midway ends"(w) {
    const chunks = await create(w, "long 3000000 characters", { stream: true });
    let read = 0;
    for await (const chunk of chunks) {
      read += chunk.choices[0].delta.content?.length ?? 0;
      if (read) chunks.controller.abort();
    }
    assert.ok(read > 0 && read < 3_000_000, String(read));
  },

  // Models

  async "models: OpenAI's client lists them and looks at one"(w) {
    const client = w.openai();
    const models = await all(client.models.list());
    assert.ok(models.some(({ id }) => id === w.model));
    assert.ok(models.every(({ object, owned_by }) => object === "model" && owned_by));
    assert.deepEqual({ ...(await client.models.retrieve(w.model)) }, { ...models.find(({ id }) => id === w.model) });
  },

  async "models: OpenAI's client does not find one that there is not"(w) {
    const error = await failure(() => w.openai().models.retrieve("gone"), w.OpenAI.NotFoundError);
    told(error, 404, "model_not_found");
  },
};
