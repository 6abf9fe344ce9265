// Cases of OpenAI's client at `responses`.

import assert from "node:assert/strict";

import {
  all, CALLED, counted, failure, long, noted, PLAN, PLAN_SCHEMA, planOf, TASK, told, TOOLS, UNICODE, URL_OF_DOT,
} from "./shared.mjs";

const tools = TOOLS.map(([name, description, parameters]) => ({
  type: "function", name, description, parameters, strict: false,
}));
const OSLO = 'call weather {"city": "Oslo"}';
const BOTH = `${OSLO}\ncall sum {"numbers": [1, 2]}`;
const calls = (response) =>
  response.output.filter(({ type }) => type === "function_call").map((item) => [item.name, JSON.parse(item.arguments)]);

const api = (w, token, options) => w.openai(token, options).responses;
const create = (w, words, more, options) => api(w).create({ model: w.model, input: w.said(words), ...more }, options);
const stream = (w, words, more, options) => api(w).stream({ model: w.model, input: w.said(words), ...more }, options);

async function lacks(w, token, kind, status, code) {
  told(await failure(() => api(w, token).create({ model: w.model, input: w.said("say: never") }), kind), status, code);
}

/** A task carried out by the library's own runner, whole or in streams. */
function ran(streamed) {
  return async (w) => {
    const { called, use } = noted();
    const functions = tools.map((tool) => ({ tool, execute: use(tool.name) }));
    const runner = new w.openaiRunner.ResponsesToolRunner({ functions });
    const response = await runner.run(w.openai(), { model: w.model, input: w.said(TASK) }, { stream: streamed });
    assert.equal(response.output_text, "Cold, and 6.");
    assert.deepEqual(called, CALLED);
  };
}

export const cases = {
  async "responses: a plain question is answered"(w) {
    const response = await create(w, "say: hello");
    assert.equal(response.object, "response");
    assert.match(response.id, /^resp_/);
    assert.deepEqual([response.model, response.status], ["brain-1", "completed"]);
    assert.equal(response.output_text, "hello");
    assert.ok(response._request_id);
  },

  async "responses: instructions and a history arrive"(w) {
    const input = [
      { role: "user", content: "one" },
      { role: "assistant", content: "two" },
      { role: "user", content: w.said("say: aye") },
    ];
    assert.equal((await create(w, "", { input, instructions: "You are a sailor." })).output_text, "aye");
  },

  async "responses: a picture is seen"(w) {
    const content = [
      { type: "input_text", text: w.said("look") },
      { type: "input_image", image_url: URL_OF_DOT, detail: "auto" },
    ];
    assert.match((await create(w, "", { input: [{ role: "user", content }] })).output_text, /^I see image\/png of \d+$/);
  },

  async "responses: other scripts and signs come unchanged"(w) {
    assert.equal((await create(w, "unicode")).output_text, UNICODE);
    assert.equal((await stream(w, "unicode").finalResponse()).output_text, UNICODE);
  },

  async "responses: tokens that were counted are told"(w) {
    const { usage } = await create(w, "say: counted\nusage 1234 56");
    assert.deepEqual([usage.input_tokens, usage.output_tokens, usage.total_tokens], [1234, 56, 1290]);
  },

  async "responses: an answer that was cut short says so"(w) {
    const response = await create(w, "say: and then\nlength", { max_output_tokens: 77 });
    assert.deepEqual([response.status, response.incomplete_details.reason], ["incomplete", "max_output_tokens"]);
    assert.equal(response.output_text, "and then");
  },

  // Streams

  async "responses: the events of a stream come in their order"(w) {
    const events = await all(await create(w, "count to 100", { stream: true }));
    assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
    const deltas = events.filter(({ type }) => type === "response.output_text.delta");
    assert.equal(deltas.map(({ delta }) => delta).join(""), counted(100));
    assert.deepEqual([...new Set(events.map(({ type }) => type))], [
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
      "response.output_text.delta",
      "response.output_text.done",
      "response.content_part.done",
      "response.output_item.done",
      "response.completed",
    ]);
    assert.equal(events.at(-1).response.output[0].content[0].text, counted(100));
  },

  async "responses: a long stream comes whole"(w) {
    const events = await all(await create(w, "long 200000 characters", { stream: true }));
    const deltas = events.filter(({ type }) => type === "response.output_text.delta");
    assert.equal(deltas.map(({ delta }) => delta).join(""), long(200_000));
  },

  async "responses: the helper tells of a stream as it grows"(w) {
    let text = "";
    const helper = stream(w, "count to 20");
    helper.on("response.output_text.delta", ({ delta, snapshot }) => assert.equal(snapshot, (text += delta)));
    const final = await helper.finalResponse();
    assert.deepEqual([text, final.output_text, final.status], [counted(20), counted(20), "completed"]);
  },

  // Tools

  async "responses: tools are called in parallel"(w) {
    const response = await create(w, BOTH, { tools });
    assert.deepEqual(calls(response), [["weather", { city: "Oslo" }], ["sum", { numbers: [1, 2] }]]);
    assert.equal(new Set(response.output.map((item) => item.call_id)).size, 2);
  },

  async "responses: only one tool is called where only one may be"(w) {
    assert.deepEqual(calls(await create(w, BOTH, { tools, parallel_tool_calls: false })), [["weather", { city: "Oslo" }]]);
  },

  async "responses: a certain tool has to be called"(w) {
    const tool_choice = { type: "function", name: "sum" };
    assert.deepEqual(calls(await create(w, "say: talk", { tools, tool_choice })), [["sum", {}]]);
  },

  async "responses: the helper tells of arguments as they grow"(w) {
    const helper = stream(w, BOTH, { tools });
    const snapshots = {};
    helper.on("response.function_call_arguments.delta", (event) => (snapshots[event.output_index] = event.snapshot));
    const final = await helper.finalResponse();
    assert.deepEqual(Object.values(snapshots).map((given) => JSON.parse(given)), [{ city: "Oslo" }, { numbers: [1, 2] }]);
    assert.deepEqual(calls(final), [["weather", { city: "Oslo" }], ["sum", { numbers: [1, 2] }]]);
  },

  async "responses: a loop of tools by hand comes to its end"(w) {
    const { called, use } = noted();
    const input = [{ role: "user", content: w.said(TASK) }];
    let response;
    let due;
    do {
      response = await create(w, "", { input, tools });
      input.push(...response.output);
      due = response.output.filter(({ type }) => type === "function_call");
      for (const { call_id, name, arguments: given } of due) {
        input.push({ type: "function_call_output", call_id, output: use(name)(JSON.parse(given)) });
      }
    } while (due.length);
    assert.equal(response.output_text, "Cold, and 6.");
    assert.deepEqual(called, CALLED);
  },

  "responses: the runner's loop of tools comes to its end": ran(false),
  "responses: the runner's loop of tools in streams comes to its end": ran(true),

  // Answers in a form

  async "responses: parse reads an answer in a form of zod's"(w) {
    const text = { format: w.openaiZod.zodTextFormat(planOf(w.zod), "plan") };
    const asked = { model: w.model, input: w.said(`json ${JSON.stringify(PLAN)}`), text };
    assert.deepEqual((await api(w).parse(asked)).output_parsed, PLAN);
  },

  async "responses: parse reads an answer of a JSON schema"(w) {
    const text = { format: { type: "json_schema", name: "plan", strict: true, schema: PLAN_SCHEMA } };
    const asked = { model: w.model, input: w.said(`json ${JSON.stringify(PLAN)}`), text };
    assert.deepEqual((await api(w).parse(asked)).output_parsed, PLAN);
  },

  async "responses: the helper reads a stream in a form of zod's"(w) {
    const text = { format: w.openaiZod.zodTextFormat(planOf(w.zod), "plan") };
    const final = await stream(w, `json ${JSON.stringify(PLAN)}`, { text }).finalResponse();
    assert.deepEqual(final.output_parsed, PLAN);
  },

  // Failures

  async "responses: a model that fails is asked once"(w) {
    told(await failure(() => create(w, "fail"), w.OpenAI.InternalServerError), 502, "source_error");
  },

  async "responses: a model that does not answer in time is asked once"(w) {
    told(await failure(() => create(w, "wait"), w.OpenAI.InternalServerError), 504, "no_answer");
  },

  "responses: a key that is no token is an authentication error": (w) =>
    lacks(w, "unknown", w.OpenAI.AuthenticationError, 401, "invalid_api_key"),
  "responses: a token without the right is refused": (w) =>
    lacks(w, "without", w.OpenAI.PermissionDeniedError, 403, "permission_denied"),
  "responses: a model that the token may not use is not found": (w) =>
    lacks(w, "elsewhere", w.OpenAI.NotFoundError, 404, "model_not_found"),

  async "responses: to go on from an answer before is a bad request"(w) {
    const asked = () => create(w, "say: never", { previous_response_id: "resp_1" });
    const error = await failure(asked, w.OpenAI.BadRequestError);
    told(error, 400, "unsupported_parameter");
    assert.equal(error.param, "previous_response_id");
  },

  // Leaving

  async "responses: a caller who aborts takes the question back"(w) {
    const controller = new AbortController();
    const asked = create(w, "wait", {}, { signal: controller.signal });
    await w.modelIsAtWork();
    controller.abort();
    await failure(() => asked, w.OpenAI.APIUserAbortError);
  },

  async "responses: a stream that is aborted midway ends"(w) {
    const helper = stream(w, "long 3000000 characters");
    let read = 0;
    helper.on("response.output_text.delta", ({ delta }) => {
      read += delta.length;
      helper.abort();
    });
    await failure(() => helper.finalResponse(), w.OpenAI.APIUserAbortError);
    assert.ok(read > 0 && read < 3_000_000, String(read));
  },
};
