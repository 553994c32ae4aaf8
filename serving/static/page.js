// The form: what is entered is predicted as it is typed, the newest answer wins, the samples follow.
// Names and texts of the model reach the page as text nodes and attributes alone, never as markup.
import { drawCurves } from "./curves.js";
import { startBatch } from "./batch.js";
import { figure, percent, reasonOf } from "./text.js";

const WAIT_MS = 120;
const MAX_LABELS = 12;
const byId = (id) => document.getElementById(id);
const model = await (await fetch("metadata")).json();
const address = new URL("invocations", document.baseURI).href;
let newest = new AbortController();
let timer = 0;

const fields = model.features.map((feature, index) => {
  const [input, missing, hint, error] = ["", "-missing", "-hint", "-error"].map((part) => byId(`f${index}${part}`));
  return { feature, input, missing, hint, error, seen: model.ranges[feature.name] ?? {} };
});

/** Return what a field holds: a number, a choice, or null. */
function valueOf({ feature, input, missing }) {
  if (missing?.checked || input.value === "") return null;
  return feature.kind === "category" ? input.value : Number(input.value);
}

/** Put a value into a field. */
function fill({ input, missing }, value) {
  if (missing) input.disabled = missing.checked = value === null;
  if (value !== null || !missing) input.value = value ?? "";
}

/** Return what to say of a value that training has not seen, or an empty text. */
function hintOf({ feature, seen }, value) {
  if (value === null) return feature.nullable && seen.missing === 0 ? "Training saw no missing value here." : "";
  if (feature.kind === "category") return seen.counts?.[value] === 0 ? "Training saw no row of this choice." : "";
  if (typeof seen.minimum !== "number" || (value >= seen.minimum && value <= seen.maximum)) return "";
  return `Outside what training saw, ${figure(seen.minimum)} to ${figure(seen.maximum)}: take the answer with care.`;
}

/** Send rows to the server and return its predictions, with intervals or without; an error of the server is thrown as its JSON. */
async function predict(rows, signal, intervals = false) {
  const headers = { "Content-Type": "application/json", Accept: `application/json; intervals=${intervals}` };
  const reply = await fetch(address, { method: "POST", headers, body: JSON.stringify({ instances: rows }), signal });
  const answer = await reply.json();
  if (!reply.ok) throw answer;
  return answer.predictions;
}

/** Predict what is entered, show it, then how it moves; a newer call ends this one. */
async function update() {
  newest.abort();
  newest = new AbortController();
  const { signal } = newest;
  const row = fields.map(valueOf);
  const send = (rows) => predict(rows, signal);
  try {
    const [answer] = await predict([row], signal, Boolean(model.intervals));
    const prediction = model.intervals ? answer.prediction : answer;
    showErrors();
    showAnswer(prediction);
    if (model.intervals) byId("interval").textContent = `${figure(100 * model.intervals.level)} % interval: ${figure(answer.low)} to ${figure(answer.high)}`;
    await drawCurves(byId("curves"), { model, row, prediction, predict: send }).catch((error) => {
      if (!signal.aborted) byId("curves-error").textContent = reasonOf(error);
    });
  } catch (error) {
    if (!signal.aborted) showErrors(error);
  }
}

function showAnswer(prediction) {
  const byLabel = prediction?.probabilities;
  byId("answer").textContent = byLabel ? prediction.label : figure(prediction);
  if (!byLabel) return;
  byId("answer-unit").textContent = percent(byLabel[prediction.label]);
  let labels = model.labels.map((label) => [label, byLabel[label]]);
  if (labels.length > MAX_LABELS) labels = labels.sort((one, other) => other[1] - one[1]).slice(0, MAX_LABELS);
  byId("probabilities").replaceChildren(...labels.map(([label, value]) => barRow(label, value)));
}

function barRow(label, value) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = label;
  const bar = document.createElement("progress");
  bar.value = value;
  bar.setAttribute("aria-hidden", "true");
  row.append(head);
  row.insertCell().append(bar);
  const cell = row.insertCell();
  cell.className = "figure";
  cell.textContent = percent(value);
  return row;
}

/** Show the server's message beside the field it names, else beside the answer; without an error, clear all. */
function showErrors(error) {
  const reason = error ? reasonOf(error) : "";
  const named = fields.find(({ feature }) => feature.name === error?.column);
  for (const field of fields) {
    field.error.textContent = field === named ? reason : "";
    field.input.setAttribute("aria-invalid", String(field === named));
  }
  byId("answer-error").textContent = named ? `No prediction: look at ${named.feature.name}. The one above is of the row before.` : reason;
  byId("curves-error").textContent = "";
  document.querySelector(".answer").classList.toggle("stale", Boolean(error));
}

function showHints() {
  for (const field of fields) field.hint.textContent = hintOf(field, valueOf(field));
}

/** Fill the samples with what is entered: the same texts that the server filled with a stored row. */
function showSamples() {
  const cells = fields.map((field) => [JSON.stringify(field.feature.name), JSON.stringify(valueOf(field))]);
  const literal = (missing) => `{${cells.map(([name, value]) => `${name}: ${value === "null" ? missing : value}`).join(", ")}}`;
  const values = { json: literal("null").replaceAll("'", "\\u0027"), python: literal("None"), url: address };
  for (const code of document.querySelectorAll("code[data-template]"))
    code.textContent = code.dataset.template.replace(/@(json|python|url)@/g, (_, name) => values[name]);
}

function changed() {
  showHints();
  showSamples();
  clearTimeout(timer);
  timer = setTimeout(update, WAIT_MS);
}

/** Put a sample on the clipboard; where the page is not served securely, by the old way of a selection. */
async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    getSelection().selectAllChildren(code);
    document.execCommand("copy");
  }
  const said = byId("copied");
  said.textContent = `${button.parentElement.querySelector("h3").textContent} sample copied.`;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; said.textContent = ""; }, 2000);
}

for (const part of document.querySelectorAll(".live")) part.hidden = false;
byId("fields").disabled = false;
byId("form").addEventListener("submit", (event) => event.preventDefault());
byId("form").addEventListener("input", ({ target }) => {
  const field = fields.find(({ missing }) => missing === target);
  if (field) field.input.disabled = field.missing.checked;
  changed();
});
for (const button of document.querySelectorAll("button[data-sample]"))
  button.addEventListener("click", () => {
    const { row } = model.samples[button.dataset.sample];
    for (const field of fields) fill(field, row[field.feature.name]);
    changed();
  });
for (const button of document.querySelectorAll("button.copy")) button.addEventListener("click", () => copy(button));
startBatch(model, address);
showHints();
showSamples();
update();
