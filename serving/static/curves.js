// How the prediction moves along each feature around the entered row: one request, one small chart a feature.
import { figure, percent } from "./text.js";

const POINTS = 41;
const MAX_CHARTS = 24;
const MAX_CELLS = 100_000; // of the one request, however wide the model is
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [320, 160, 44, 312, 10, 136];
const NEAR = 66; // closer to an end than this, the entered value stands in for the end's own label
const SVG = "http://www.w3.org/2000/svg";

/** Ask for all curves at once and draw them into `place`. */
export async function drawCurves(place, { model, row, prediction, predict }) {
  const shown = model.features.slice(0, MAX_CHARTS);
  const room = Math.floor(MAX_CELLS / (shown.length * row.length));
  const curves = shown.map((feature, index) => curveOf(feature, model.ranges[feature.name] ?? {}, row[index], Math.max(5, Math.min(POINTS, room))));
  const rows = curves.flatMap(({ xs }, index) => xs.map((x) => row.with(index, x)));
  const answers = rows.length ? await predict(rows) : [];
  const height = (answer) => (answer?.probabilities ? answer.probabilities[prediction.label] : answer);
  const scale = { ...scaleOf([...answers, prediction].map(height), model.labels.length > 0), now: height(prediction) };
  let start = 0;
  for (const curve of curves) curve.ys = answers.slice(start, (start += curve.xs.length)).map(height);
  const what = model.labels.length ? `probability of ${prediction.label}` : model.target.name;
  place.replaceChildren(...curves.map((curve) => chart(curve, scale, what)));
  const rest = model.features.length - shown.length;
  if (rest) place.append(`The first ${shown.length} features; ${rest} more are not drawn.`);
}

/** Return a feature's values to ask for: its choices, or points over what training saw and what is entered. */
function curveOf(feature, seen, x, points) {
  if (feature.kind === "category") return { feature, x, xs: [...feature.choices, ...(feature.nullable ? [null] : [])] };
  let [low, high] = [seen.minimum, seen.maximum];
  if (typeof low !== "number") [low, high] = feature.range ?? [x ?? 0, x ?? 0];
  const inside = [low, high];
  if (x !== null) [low, high] = [Math.min(low, x), Math.max(high, x)];
  if (low === high) [low, high] = [low - Math.max(1, Math.abs(low) / 10), high + Math.max(1, Math.abs(high) / 10)];
  const xs = Array.from({ length: points }, (_, index) => low + ((high - low) * index) / (points - 1));
  if (x !== null) xs.push(x);
  return { feature, x, inside, xs: xs.sort((one, other) => one - other) };
}

/** Return the vertical scale that all charts share: whole steps around the heights; probabilities have 0 to 1. */
function scaleOf(heights, isShare) {
  if (isShare) return { low: 0, high: 1, ticks: [0, 0.5, 1], write: (y) => `${Math.round(100 * y)} %`, say: percent };
  const [least, most] = [heights.reduce((one, other) => Math.min(one, other)), heights.reduce((one, other) => Math.max(one, other))];
  const spread = most - least || Math.abs(most) || 1;
  const power = 10 ** Math.floor(Math.log10(spread / 3));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= spread / 3);
  const [first, last] = [Math.floor(least / step), Math.ceil(most / step)];
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
  return { low: first * step, high: last * step || step, ticks, write: (y) => figure(Number(y.toPrecision(6))), say: (y) => figure(y, 4) };
}

function chart(curve, scale, what) {
  const { feature, ys, xs, x } = curve;
  const [least, most] = [Math.min(...ys), Math.max(...ys)];
  const up = (y) => BOTTOM - ((y - scale.low) / (scale.high - scale.low)) * (BOTTOM - TOP);
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  for (const tick of scale.ticks) {
    svg.append(draw("line", { class: "grid", x1: LEFT, x2: RIGHT, y1: up(tick), y2: up(tick) }));
    svg.append(draw("text", { x: LEFT - 6, y: up(tick) + 4, "text-anchor": "end" }, scale.write(tick)));
  }
  if (feature.kind === "category") drawBars(svg, curve, up, scale);
  else drawLine(svg, curve, up, scale);
  const caption = document.createElement("figcaption");
  const name = document.createElement("b");
  name.textContent = feature.name;
  const span = document.createElement("span");
  span.className = "unit";
  span.textContent = scale.say(least) === scale.say(most) ? scale.say(most) : `${scale.say(least)} to ${scale.say(most)}`;
  caption.append(name, span);
  const at = (y) => nameOf(xs[ys.indexOf(y)]);
  const says = `Lowest ${scale.say(least)} at ${at(least)}, highest ${scale.say(most)} at ${at(most)}; ${scale.say(scale.now)} at the entered ${nameOf(x)}.`;
  svg.setAttribute("aria-label", `${what} along ${feature.name}${feature.unit ? `, ${feature.unit}` : ""}. ${says}`);
  const holder = document.createElement("figure");
  holder.append(caption, svg);
  return holder;
}

function drawLine(svg, { xs, ys, x, inside }, up, scale) {
  const [low, high] = [xs[0], xs[xs.length - 1]];
  const along = (value) => LEFT + ((value - low) / (high - low)) * (RIGHT - LEFT);
  for (const [from, to] of [[low, inside[0]], [inside[1], high]])
    if (from < to && inside[0] < inside[1]) svg.append(draw("rect", { class: "outside", x: along(from), y: TOP, width: along(to) - along(from), height: BOTTOM - TOP }));
  svg.append(draw("polyline", { class: "line", points: xs.map((value, index) => `${round(along(value))},${round(up(ys[index]))}`).join(" ") }));
  const end = (value, anchor) => draw("text", { x: along(value), y: HEIGHT - 6, "text-anchor": anchor }, figure(value, 4));
  if (x === null || along(x) - LEFT > NEAR) svg.append(end(low, "start"));
  if (x === null || RIGHT - along(x) > NEAR) svg.append(end(high, "end"));
  if (x === null) {
    svg.append(draw("line", { class: "here", x1: LEFT, x2: RIGHT, y1: up(scale.now), y2: up(scale.now) }));
    svg.append(draw("text", { class: "now", x: (LEFT + RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "missing"));
    return;
  }
  svg.append(draw("line", { class: "here", x1: along(x), x2: along(x), y1: TOP, y2: BOTTOM }));
  svg.append(draw("circle", { class: "dot", cx: along(x), cy: up(scale.now), r: 5 }));
  const anchor = along(x) - LEFT < NEAR / 2 ? "start" : RIGHT - along(x) < NEAR / 2 ? "end" : "middle";
  svg.append(draw("text", { class: "now", x: along(x), y: HEIGHT - 6, "text-anchor": anchor }, figure(x)));
}

function drawBars(svg, { xs, ys, x }, up, scale) {
  const step = (RIGHT - LEFT) / xs.length;
  const base = up(Math.min(Math.max(0, scale.low), scale.high));
  xs.forEach((value, index) => {
    const now = value === x ? " now" : "";
    const [left, top] = [LEFT + step * index, Math.min(up(ys[index]), base)];
    const size = { x: left + step * 0.15, width: step * 0.7, y: top, height: Math.max(1, Math.abs(base - up(ys[index]))) };
    const bar = draw("rect", { class: `bar${now}`, ...size });
    bar.append(draw("title", {}, `${nameOf(value)}: ${scale.say(ys[index])}`));
    const fits = Math.max(1, Math.floor(step / 7));
    const name = [...nameOf(value)];
    const text = name.length > fits ? `${name.slice(0, fits - 1).join("")}…` : name.join("");
    svg.append(bar, draw("text", { class: now.trim(), x: left + step / 2, y: HEIGHT - 6, "text-anchor": "middle" }, step >= 18 || now ? text : ""));
  });
}

const nameOf = (value) => (value === null ? "missing" : figure(value));
const round = (value) => Math.round(value * 10) / 10;

function draw(kind, attributes, text = "") {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, typeof value === "number" ? round(value) : value);
  element.textContent = text;
  return element;
}
