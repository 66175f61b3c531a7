"use strict";
// A class's `metrics.json` files, and the interval over their seeds. See `alignlib/stats.py`.

// By unit: the lowest and highest value, and how it is shown (factor, digits, sign)
const LIMITS = {
  rate: [0, 1],
  difference: [-1, 1],
  points: [-100, 100],
  "difference of points": [-200, 200],
};
const FORMATS = {
  rate: [100, 1, " %"],
  difference: [100, 1, " points"],
  points: [1, 1, " points"],
  "difference of points": [1, 1, " points"],
};

/** The 97.5 % quantile of Student's t: exact for 1 and 2 degrees of freedom, else a series. */
function tQuantile(df) {
  const p = 0.95;
  if (df === 1) return Math.tan((Math.PI * p) / 2);
  if (df === 2) return p * Math.sqrt(2 / (1 - p * p));
  const z = 1.959963984540054;
  const terms = [
    z,
    (z ** 3 + z) / 4,
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
    (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92160,
  ];
  return terms.reduce((sum, term, n) => sum + term / df ** n, 0);
}

/** The mean of at least two values and its 95 % interval, within what the unit allows. */
function overSeeds(values, unit) {
  const mean = values.reduce((a, b) => a + b) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const deviation = Math.sqrt(squares / (values.length - 1));
  const half = (tQuantile(values.length - 1) * deviation) / Math.sqrt(values.length);
  const [least, most] = LIMITS[unit] ?? [-Infinity, Infinity];
  return { value: mean, low: Math.max(least, mean - half), high: Math.min(most, mean + half) };
}

/**
 * The students' reports by seed, of one lesson, and what is wrong with the files.
 * `files`: {name, text} each.
 */
function collect(files) {
  const reports = new Map();
  const wrong = [];
  let lesson;
  for (const { name, text } of files) {
    const report = parsed(text);
    lesson ??= report?.lesson;
    if (!report) wrong.push(`${name} is no metrics.json, which a lesson writes into runs/`);
    else if (report.lesson !== lesson) {
      wrong.push(`${name} is of lesson ${report.lesson}, the first file of ${lesson}: left out`);
    } else if (reports.has(report.seed)) {
      wrong.push(`${name} has seed ${report.seed}, which another file has too: left out`);
    } else reports.set(report.seed, report);
  }
  return { lesson, reports: new Map([...reports].sort(([a], [b]) => a - b)), wrong };
}

function parsed(text) {
  try {
    const report = JSON.parse(text);
    return report.metrics && report.lesson && Number.isInteger(report.seed) ? report : null;
  } catch {
    return null;
  }
}

/** The numbers that every report has and that were measured live. */
function numbersOf(reports) {
  const [first, ...others] = reports.values();
  return Object.keys(first?.metrics ?? {}).filter((name) =>
    [first, ...others].every(({ metrics }) => metrics[name]?.source === "live"),
  );
}

/** An estimate as the library prints it. */
function shown({ value, low, high }, unit) {
  const [factor, digits, sign] = FORMATS[unit] ?? [1, 3, ` ${unit}`];
  const [v, l, h] = [value, low, high].map((x) => (x * factor).toFixed(digits));
  return `${v}${sign} [${l}, ${h}]`;
}

// ---- the page

const part = (name) => document.getElementById(`class-${name}`);
let collected;

async function read() {
  const chosen = [...part("files").files];
  const files = chosen.map(async (file) => ({ name: file.name, text: await file.text() }));
  collected = collect(await Promise.all(files));
  part("wrong").textContent = collected.wrong.join(". ");
  const names = numbersOf(collected.reports);
  part("metric").replaceChildren(
    ...names.map((name) => new Option(name.replaceAll("_", " "), name)),
  );
  part("metric").disabled = names.length === 0;
  const usual = names.find((name) => name.includes("net_win_fault_free"));
  if (usual) part("metric").value = usual;
  draw();
}

function draw() {
  const name = part("metric").value;
  part("figure").replaceChildren();
  if (!name) {
    part("said").textContent = "No file holds a number yet.";
    return;
  }
  const rows = [...collected.reports].map(([seed, { metrics }]) => ({ seed, ...metrics[name] }));
  const { unit } = rows[0];
  const asked = new Set(rows.map(({ n }) => n));
  const warning = asked.size > 1 ? " They count different numbers of rows: was SCALE changed?" : "";
  if (rows.length < 2) {
    part("said").textContent =
      "One seed makes no interval: choose the files of two students or more.";
    return;
  }
  const mean = overSeeds(
    rows.map(({ value }) => value),
    unit,
  );
  part("said").textContent =
    `Lesson ${collected.lesson}, ${rows.length} seeds: ${shown(mean, unit)}.${warning}`;
  part("figure").append(picture(rows, mean, unit), tableOf(rows, unit));
}

/** A row for each seed, and the mean's interval as a band. */
function picture(rows, mean, unit) {
  const [width, left, height] = [Math.min(640, part("figure").clientWidth), 60, 24];
  const ends = [mean, ...rows].flatMap(({ low, high }) => [low, high]);
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const span = most - least || 1;
  const x = (value) => left + ((value - least) / span) * (width - left - 30) + 10;
  const svg = node("svg", { viewBox: `0 0 ${width} ${(rows.length + 3) * height}`, role: "img" });
  svg.ariaLabel = `${rows.length} seeds with their intervals, and their mean: ${shown(mean, unit)}`;
  rows.forEach(({ seed, value, low, high }, i) => {
    const y = (i + 1) * height;
    svg.append(
      node("text", { x: 0, y: y + 4 }, `seed ${seed}`),
      node("line", { x1: x(low), x2: x(high), y1: y, y2: y, class: "interval" }),
      node("circle", { cx: x(value), cy: y, r: 4.5 }),
    );
  });
  const y = (rows.length + 1) * height;
  const length = Math.max(1, x(mean.high) - x(mean.low));
  const band = { x: x(mean.low), y: y - 7, width: length, height: 14 };
  svg.append(
    node("text", { x: 0, y: y + 4 }, "mean"),
    node("rect", { ...band, class: "band" }),
    node("line", {
      x1: x(mean.value),
      x2: x(mean.value),
      y1: y - 11,
      y2: y + 11,
      class: "interval",
    }),
  );
  for (const [value, anchor] of [
    [least, "start"],
    [most, "end"],
  ]) {
    const [text] = shown({ value, low: value, high: value }, unit).split(" [");
    svg.append(node("text", { x: x(value), y: y + 34, "text-anchor": anchor }, text));
  }
  return svg;
}

function node(kind, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function tableOf(rows, unit) {
  const table = document.createElement("table");
  const addLine = (cells, kind) => {
    const line = table.insertRow();
    for (const text of cells) {
      const cell = document.createElement(kind);
      cell.textContent = text;
      line.append(cell);
    }
  };
  addLine(["seed", "value", "rows"], "th");
  for (const row of rows) addLine([row.seed, shown(row, unit), row.n], "td");
  return table;
}

if (typeof module !== "undefined")
  module.exports = { tQuantile, overSeeds, collect, numbersOf, shown };
else {
  part("files").addEventListener("change", read);
  part("metric").addEventListener("change", draw);
}
