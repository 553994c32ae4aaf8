// The batch box: a CSV file goes to the server, a table and a file with the predictions come back.
import { figure, reasonOf } from "./text.js";

const MAX_SHOWN = 200;
const byId = (id) => document.getElementById(id);
let newest = 0;

/** Make the box take files that are chosen or dropped. */
export function startBatch(model, address) {
  const [drop, input] = [byId("drop"), byId("file")];
  const take = (file) => file && predictFile(file, model, address);
  input.addEventListener("change", () => take(input.files[0]));
  input.addEventListener("click", () => { input.value = ""; }); // the same file, edited, counts as a change
  const over = (event, is) => { event.preventDefault(); drop.classList.toggle("over", is); };
  drop.addEventListener("dragover", (event) => over(event, true));
  drop.addEventListener("dragleave", (event) => over(event, false));
  drop.addEventListener("drop", (event) => { over(event, false); take(event.dataTransfer.files[0]); });
}

async function predictFile(file, model, address) {
  const turn = ++newest;
  show(`Predicting ${file.name}, ${figure(file.size)} bytes.`);
  let sheet;
  try {
    const bytes = await file.arrayBuffer();
    sheet = readSheet(bytes, model.features.map(({ name }) => name));
    const headers = { "Content-Type": "text/csv", Accept: "application/json; intervals=false" };
    const reply = await fetch(address, { method: "POST", headers, body: sheet.body });
    const answer = await reply.json();
    if (turn !== newest) return;
    if (!reply.ok) throw answer;
    showAnswers(file, sheet, answer.predictions, model);
  } catch (error) {
    if (turn === newest) showFault(file, sheet, error, model);
  }
}

/** Return a file's rows and the body to send: its own bytes, or the model's columns where a header names others too. */
function readSheet(bytes, names) {
  const rows = parseCsv(new TextDecoder().decode(bytes));
  const head = (rows[0] ?? []).map((cell) => cell.trim());
  const positions = names.map((name) => head.indexOf(name));
  if (positions.includes(-1) || head.length === names.length) return { rows, body: bytes };
  const chosen = rows.map((row) => (row.length === head.length ? positions.map((index) => row[index]) : row));
  return { rows, body: writeCsv(chosen) };
}

function showAnswers(file, { rows, body }, predictions, model) {
  const hasHeader = rows.length === predictions.length + 1;
  const data = hasHeader ? rows.slice(1) : rows;
  const head = hasHeader ? rows[0] : model.features.map(({ name }) => name);
  const extra = model.labels.length ? ["prediction", ...model.labels.map((label) => `probability ${label}`)] : ["prediction"];
  const cells = predictions.map((one) => (one?.probabilities ? [one.label, ...model.labels.map((label) => one.probabilities[label])] : [one]));
  const some = data.length > MAX_SHOWN ? `; the first ${MAX_SHOWN} are shown` : "";
  show(`${file.name}: ${figure(data.length)} ${data.length === 1 ? "row" : "rows"} predicted${some}.`);
  byId("batch-table").replaceChildren(table(`Rows of ${file.name}`, [...head, ...extra], data.slice(0, MAX_SHOWN).map((row, index) => ({ number: index + 1, row, answer: cells[index] }))));
  byId("batch-table").hidden = false;
  const link = byId("download");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([writeCsv([[...head, ...extra], ...data.map((row, index) => [...row, ...cells[index]])])], { type: "text/csv" }));
  link.download = `${file.name.replace(/\.[^.]*$/, "")}-predictions.csv`;
  link.hidden = false;
}

/** Show the server's message, and the row it names with the cell it names. */
function showFault(file, sheet, error, model) {
  show(`${file.name}: nothing was predicted.`, reasonOf(error));
  if (!sheet || !Number.isInteger(error.row)) return;
  const names = model.features.map(({ name }) => name);
  const first = sheet.rows[0].map((cell) => cell.trim());
  const hasHeader = names.every((name) => first.includes(name));
  const row = sheet.rows[error.row - (hasHeader ? 0 : 1)];
  if (!row) return;
  const head = hasHeader ? first : names;
  byId("batch-table").replaceChildren(table(`Row ${error.row} of ${file.name}`, head, [{ number: error.row, row, wrong: head.indexOf(error.column) }]));
  byId("batch-table").hidden = false;
}

function show(status, error = "") {
  byId("batch-status").textContent = status;
  byId("batch-error").textContent = error;
  byId("batch-table").hidden = byId("download").hidden = true;
}

function table(title, head, lines) {
  const made = document.createElement("table");
  made.createCaption().textContent = title;
  const top = made.createTHead().insertRow();
  for (const name of ["row", ...head]) top.append(headCell(name, "col"));
  const body = made.createTBody();
  for (const { number, row, answer = [], wrong = -1 } of lines) {
    const line = body.insertRow();
    line.append(headCell(number, "row"));
    row.forEach((cell, index) => { put(line, cell, index === wrong ? "wrong" : ""); });
    for (const cell of answer) put(line, figure(cell), "answered");
  }
  return made;
}

function headCell(text, scope) {
  const cell = document.createElement("th");
  cell.scope = scope;
  cell.textContent = text;
  return cell;
}

function put(line, text, kind) {
  const cell = line.insertCell();
  cell.textContent = text;
  cell.className = kind;
}

/** Return the cells of a CSV text, quotes and line ends of all kinds read; blank lines at the end are none. */
export function parseCsv(text) {
  const rows = [[]];
  const cell = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n|\r|\n|$)/y;
  const data = text.replace(/^\ufeff/, "").replace(/[\r\n ]+$/, "");
  while (cell.lastIndex < data.length || rows.at(-1).length === 0) {
    const found = cell.exec(data);
    if (!found) return []; // the server says what is wrong with it
    rows.at(-1).push(found[1]?.replaceAll('""', '"') ?? found[2]);
    if (found[3] !== ",") {
      if (found[3] === "") return rows;
      rows.push([]);
    } else if (cell.lastIndex === data.length) rows.at(-1).push("");
  }
  return rows;
}

function writeCsv(rows) {
  const quoted = (value) => (/[",\r\n]|^ | $/.test(value ?? "") ? `"${String(value).replaceAll('"', '""')}"` : String(value ?? ""));
  return `${rows.map((row) => row.map(quoted).join(",")).join("\n")}\n`;
}
