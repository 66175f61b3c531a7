"use strict";
// The page: what is typed goes to the models, and their words come back one by one.

const element = (name) => document.getElementById(`town-${name}`);
const HERE = { question: element("question"), answer: element("answer") };
let aligner;
let meet; // "loading" once somebody opens it
const newest = { correction: 0, reply: 0 }; // an older one stops

function start() {
  aligner = new TownAligner(TOWN, tensorsOf(TOWN.weights));
  TOWN.examples.forEach(({ name }, i) => element("example").add(new Option(name, i)));
  element("example").addEventListener("change", show);
  for (const field of Object.values(HERE)) field.addEventListener("input", later(correct, 400));
  HERE.question.addEventListener("input", later(reply, 400));
  element("dial").addEventListener("input", later(reply, 150));
  element("tone").addEventListener("toggle", openTone);
  element("look").addEventListener("toggle", letWordsBeReached);
  const words = TOWN.vocabulary.filter((word) => !TOWN.special.includes(word));
  element("vocabulary").textContent = words.sort().join(" ");
  element("fields").hidden = false;
  show();
}

/** The chosen example. */
function show() {
  const { question, answer } = TOWN.examples[element("example").value];
  HERE.question.value = question;
  HERE.answer.value = answer;
  correct();
  reply();
}

/** The tensors of a safetensors file in base64. */
function tensorsOf(text) {
  return readSafetensors(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}

/** MEET's weights are a script of their own: most readers never need them. */
function openTone() {
  if (meet || !element("tone").open) return reply();
  meet = "loading";
  element("reply").textContent = "Loading ...";
  const script = document.createElement("script");
  script.src = "_static/tone.js";
  script.addEventListener("load", () => {
    const named = Object.entries(TONE.controls).map(([name, text]) => [name, tensorsOf(text)]);
    const controls = Object.fromEntries(named);
    meet = new TownMeet(TOWN, tensorsOf(TONE.weights), controls, TONE.scale);
    reply();
  });
  script.addEventListener("error", () => {
    meet = undefined;
    element("reply").textContent = "tone.js could not be loaded. Close and open this to try again.";
  });
  document.head.append(script);
}

/** The answer of MEET's model at the slider's place; read aloud once it is there. */
async function reply() {
  if (!meet || meet === "loading" || !element("tone").open) return;
  const friendly = element("dial").value / 100;
  const words = meet.answer(HERE.question.value, { friendly, plain: 1 - friendly });
  element("reply").ariaBusy = "true";
  const draw = (found) => (element("reply").textContent = textOf(found));
  const end = await follow(words, "reply", draw);
  if (!end) return;
  if (end.wrong) element("reply").textContent = `No answer: ${end.wrong}.`;
  element("reply").ariaBusy = "false";
}

/**
 * Draw the words as they come, a frame for each. Resolves to {found, wrong}, or to undefined once
 * something newer of that name has begun.
 */
async function follow(words, name, draw) {
  const mine = ++newest[name];
  const found = [];
  let next;
  while (!(next = words.next()).done) {
    found.push(next.value);
    draw(found);
    await new Promise(requestAnimationFrame);
    if (mine !== newest[name]) return undefined;
  }
  return { found, wrong: next.value };
}

function textOf(found) {
  return found.map(({ word }) => word).join(" ");
}

/** A function that is called once nothing has happened for so many milliseconds. */
function later(call, wait) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(call, wait);
  };
}

async function correct() {
  const [question, answer] = [HERE.question.value, HERE.answer.value];
  nameUnknown(question + " " + answer);
  drawPrompt(question, answer);
  element("status").textContent = "";
  const started = performance.now();
  const words = aligner.correct(question, answer);
  const end = await follow(words, "correction", (found) => drawDiff(answer, found, false));
  if (!end) return;
  if (end.wrong) {
    drawDiff(answer, [], false);
    element("status").textContent = `The answer stays as it is: ${end.wrong}.`;
    return;
  }
  drawDiff(answer, end.found, true);
  element("status").textContent = summary(answer, end.found, performance.now() - started);
}

function summary(answer, found, milliseconds) {
  const corrected = textOf(found);
  const time = `${(milliseconds / 1000).toFixed(1)} seconds`;
  if (corrected === split(answer).join(" ")) return `Left as it was, in ${time}.`;
  return `Corrected in ${time}: ${corrected}`;
}

function nameUnknown(text) {
  const unknown = new Set(split(text).filter((word) => !aligner.ids.has(word)));
  element("unknown").textContent = unknown.size
    ? `Tinytown has no word for: ${[...unknown].join(", ")}`
    : "";
}

/** The answer with what was struck out and put in; until it is done, the rest of it waits. */
function drawDiff(answer, found, done) {
  const [before, after] = [split(answer), found.map(({ word }) => word)];
  const reached = done ? before.length : nearest(before, after);
  let n = 0;
  const drawn = compare(before.slice(0, reached), after).map(({ kind, word }) => {
    const node = textNode(kind, word);
    if (kind !== "del") makeLook(node, found[n++]);
    return node;
  });
  for (const word of before.slice(reached)) {
    drawn.push(textNode("span", word));
    drawn.at(-1).className = "waits";
  }
  element("diff").replaceChildren(...drawn.flatMap((node) => [node, " "]));
}

function textNode(kind, word) {
  const node = document.createElement(kind);
  node.textContent = word;
  return node;
}

/** Point at a word, and see where the copier and the reader looked when it was due. */
function makeLook(node, { word, attention }) {
  node.dataset.word = "";
  node.tabIndex = element("look").open ? 0 : -1;
  for (const name of ["mouseenter", "focus"]) {
    node.addEventListener(name, () => {
      mark(weightsOf("copier", attention), weightsOf("reader", attention));
      say(word, attention);
    });
  }
  for (const name of ["mouseleave", "blur"]) node.addEventListener(name, () => mark([], []));
}

/** Words are stops of the Tab key only while what they show is open. */
function letWordsBeReached() {
  for (const node of document.querySelectorAll("[data-word]")) {
    node.tabIndex = element("look").open ? 0 : -1;
  }
}

/** A head's weights, one for each word of the prompt; the first token is BOS. */
function weightsOf(name, attention) {
  const [layer, head] = TOWN.heads[name];
  return attention[layer][head].slice(1);
}

function mark(copier, reader) {
  [...element("prompt").children].forEach((node, i) => {
    node.style.setProperty("--copier", (copier[i] ?? 0).toFixed(2));
    node.style.setProperty("--reader", (reader[i] ?? 0).toFixed(2));
  });
}

function say(word, attention) {
  const words = [...element("prompt").children].map((node) => node.textContent);
  const looks = ["copier", "reader"].map((name) => {
    const weights = weightsOf(name, attention).slice(0, words.length);
    const most = weights.indexOf(Math.max(...weights));
    return `the ${name} looks at "${words[most]}" (${Math.round(100 * weights[most])} %)`;
  });
  element("looks").textContent = `When "${word}" is due, ${looks.join(", ")}.`;
}

function drawPrompt(question, answer) {
  const read = split(aligner.prompt(question, answer)).map((word) => textNode("span", word));
  element("prompt").replaceChildren(...read);
  read.forEach((node) => node.after(" "));
  element("looks").textContent = "";
}

/** How many words of the answer the correction so far is about: those that it is nearest to. */
function nearest(before, after) {
  let [best, least] = [0, Infinity];
  for (let n = 0; n <= before.length; n++) {
    const changes = compare(before.slice(0, n), after).filter(({ kind }) => kind !== "span");
    if (changes.length <= least) [best, least] = [n, changes.length];
  }
  return best;
}

/** The words of both texts in order: kept ("span"), only in the first ("del"), or the second. */
function compare(before, after) {
  const longest = Array.from({ length: before.length + 1 }, () => Array(after.length + 1).fill(0));
  for (let i = before.length - 1; i >= 0; i--) {
    for (let j = after.length - 1; j >= 0; j--) {
      longest[i][j] =
        before[i] === after[j]
          ? longest[i + 1][j + 1] + 1
          : Math.max(longest[i + 1][j], longest[i][j + 1]);
    }
  }
  const parts = [];
  for (let i = 0, j = 0; i < before.length || j < after.length;) {
    if (i < before.length && j < after.length && before[i] === after[j]) {
      parts.push({ kind: "span", word: before[i++] });
      j++;
    } else if (j >= after.length || (i < before.length && longest[i + 1][j] >= longest[i][j + 1])) {
      parts.push({ kind: "del", word: before[i++] });
    } else {
      parts.push({ kind: "ins", word: after[j++] });
    }
  }
  return parts;
}

start();
