// The page of GET /docs: shows /openapi.json and tries its operations. Plain text goes into the page as text, never as
// HTML: names and descriptions come from servers that nobody here wrote.
"use strict";

const base = new URL(document.currentScript.src).pathname.replace(/\/docs\/app\.js$/, "");
const MOST_SHOWN = 200000;
const METHODS = ["get", "post", "put", "patch", "delete"];
const place = (id) => document.getElementById(id);
let description = { paths: {} };
let latest = 0;

// An element with attributes and children; strings become text.
function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function say(text, bad = false) {
  place("state").textContent = text;
  place("state").className = bad ? "bad" : "";
}

function authorization() {
  const token = place("token").value.trim();
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function load() {
  const turn = ++latest;
  say("Loading…");
  try {
    const answer = await fetch(`${base}/openapi.json`, { headers: authorization(), cache: "no-store" });
    const body = await answer.json();
    if (turn !== latest) return;
    if (!answer.ok) return say(`${answer.status}: ${body.error ? body.error.message : "no document"}`, true);
    description = body;
    show();
  } catch (error) {
    if (turn === latest) say(`The document could not be read: ${error.message}`, true);
  }
}

function operations() {
  const found = [];
  for (const [path, item] of Object.entries(description.paths)) {
    for (const method of METHODS) if (item[method]) found.push({ method, path, operation: item[method] });
  }
  return found;
}

// What the filter is compared with.
function words({ method, path, operation }) {
  return [method, path, operation.operationId, operation.summary, operation.description].join(" ").toLowerCase();
}

// Tools first, by server; then the service's own routes.
function show() {
  const wanted = place("filter").value.trim().toLowerCase();
  const all = operations();
  const sections = new Map();
  for (const one of all.filter((one) => words(one).includes(wanted))) {
    const tool = Boolean(one.operation.operationId);
    const title = (tool ? "Tools of " : "Routes: ") + one.operation.tags[0];
    if (!sections.has(title)) sections.set(title, { tool, rows: [] });
    sections.get(title).rows.push(row(one));
  }
  const ordered = [...sections].sort(([, one], [, other]) => Number(other.tool) - Number(one.tool));
  place("operations").replaceChildren(
    ...ordered.map(([title, { rows }]) => make("section", {}, make("h2", {}, title), ...rows))
  );
  const tools = all.filter((one) => one.operation.operationId).length;
  say(`${tools} tools, ${all.length - tools} routes; version ${description.info.version}.`);
}

// What an operation holds is made when it is first opened: there may be thousands.
function row(one) {
  const { method, path, operation } = one;
  const made = make(
    "details",
    { class: "operation" },
    make("summary", {}, make("span", { class: "method" }, method.toUpperCase()), make("code", {}, path), ` ${operation.summary || ""}`)
  );
  made.addEventListener("toggle", () => {
    if (made.open && made.children.length === 1) made.append(...details(one));
  });
  return made;
}

function details({ method, path, operation }) {
  const parts = [];
  if (operation.description) parts.push(make("p", { class: "text" }, operation.description));
  const scopes = (operation.security || []).flatMap((one) => Object.values(one).flat());
  parts.push(make("p", { class: "note" }, scopes.length ? `Needs a token with ${scopes.join(", ")}.` : "Needs no token."));
  const given = bodyOf(operation);
  if (given) parts.push(make("h3", {}, "Body"), code(resolved(given)));
  parts.push(make("h3", {}, "Answers"));
  for (const [status, answer] of Object.entries(operation.responses)) {
    const found = follow(answer);
    const schema = schemaOf(found);
    const error = schema && schema.$ref === "#/components/schemas/Error";
    parts.push(make("p", { class: "text" }, make("code", {}, status), ` ${found.description || ""}`));
    if (schema && !error) parts.push(code(resolved(schema)));
  }
  parts.push(make("h3", {}, "Try it"), trying(method, path, operation, given));
  return parts;
}

function code(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  const shown = text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)}\n… (${text.length} characters)` : text;
  return make("pre", { tabindex: "0", role: "region", "aria-label": "JSON" }, shown);
}

function schemaOf(holder) {
  const content = holder.content || {};
  return (content["application/json"] || Object.values(content)[0] || {}).schema;
}

function bodyOf(operation) {
  return operation.requestBody ? schemaOf(operation.requestBody) : undefined;
}

// Where a local reference leads; the value itself when it is none, or leads elsewhere.
function follow(value) {
  if (!value || typeof value.$ref !== "string" || !value.$ref.startsWith("#/")) return value || {};
  let found = description;
  for (const step of value.$ref.slice(2).split("/")) {
    const name = unescaped(step);
    if (!found || !Object.hasOwn(found, name)) return value;
    found = found[name];
  }
  return found;
}

function unescaped(step) {
  try {
    return decodeURIComponent(step).replaceAll("~1", "/").replaceAll("~0", "~");
  } catch {
    return step;
  }
}

// A schema for people: references that name a whole schema are opened at the top, the others stay.
function resolved(schema) {
  if (schema.$ref) return follow(schema);
  return schema.allOf ? { ...schema, allOf: schema.allOf.map(follow) } : schema;
}

// A beginning for whoever fills in the body: what is required, with defaults where there are some.
function sample(schema, depth = 0) {
  const found = follow(schema);
  if (depth > 6 || typeof found !== "object") return null;
  if (found.default !== undefined) return found.default;
  if (found.const !== undefined) return found.const;
  if (Array.isArray(found.enum)) return found.enum[0];
  if (Array.isArray(found.examples) && found.examples.length) return found.examples[0];
  if (found.allOf) return Object.assign({}, ...found.allOf.map((one) => sample(one, depth + 1)));
  const other = (found.anyOf || found.oneOf || [])[0];
  if (other) return sample(other, depth + 1);
  const type = Array.isArray(found.type) ? found.type[0] : found.type;
  if (type === "object" || found.properties) {
    const wanted = Array.isArray(found.required) ? found.required : [];
    return Object.fromEntries(wanted.map((name) => [name, sample((found.properties || {})[name], depth + 1)]));
  }
  return { string: "", integer: 0, number: 0, boolean: false, array: [] }[type] ?? null;
}

function trying(method, path, operation, given) {
  const fields = (operation.parameters || []).map((one) => ({ ...one, input: make("input", { autocomplete: "off" }) }));
  const form = make("form", { class: "try" });
  for (const one of fields) {
    if (one.required) one.input.required = true;
    form.append(make("label", {}, `${one.name} (${one.in})`, one.input));
  }
  const body = given && make("textarea", { rows: "6", spellcheck: "false" });
  if (body) {
    body.value = JSON.stringify(sample(given) ?? {}, null, 2);
    form.append(make("label", {}, "Body (JSON)", body));
  }
  const answer = make("div", { role: "status" });
  const button = make("button", { type: "submit" }, "Send");
  form.append(button, answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      answer.replaceChildren(...(await send(method, path, fields, body)));
    } catch (error) {
      answer.replaceChildren(make("p", { class: "bad" }, error.message));
    }
    button.disabled = false;
  });
  return form;
}

async function send(method, path, fields, body) {
  const headers = authorization();
  const query = new URLSearchParams();
  let url = path;
  for (const { name, in: where, input } of fields) {
    if (where === "path") url = url.replace(`{${name}}`, () => encodeURIComponent(input.value));
    else if (input.value && where === "query") query.set(name, input.value);
    else if (input.value) headers[name] = input.value;
  }
  if (body && body.value.trim()) {
    JSON.parse(body.value); // says what is wrong with it
    headers["Content-Type"] = "application/json";
  }
  const asked = `${base}${url}${query.size ? `?${query}` : ""}`;
  const began = performance.now();
  const answer = await fetch(asked, {
    method: method.toUpperCase(), headers, cache: "no-store", body: body && body.value.trim() ? body.value : undefined,
  });
  const text = await answer.text();
  const took = Math.round(performance.now() - began);
  const status = make("p", { class: answer.ok ? "good" : "bad" }, `${answer.status} ${answer.statusText}`.trim() + `, ${took} ms`);
  return [status, code(readable(text))];
}

function readable(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

place("access").addEventListener("submit", (event) => {
  event.preventDefault();
  load();
});
place("filter").addEventListener("input", show);
load();
