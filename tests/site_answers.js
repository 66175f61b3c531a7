"use strict";
// For test_site.py: what the page's models answer to the request on standard input.

const fs = require("fs");
const path = require("path");

module.exports = (folder) => {
  const { TownAligner, TownMeet } = require(path.join(folder, "aligner.js"));
  const { readSafetensors } = require(path.join(folder, "model.js"));
  const content = (name) =>
    new Function(
      `${fs.readFileSync(path.join(folder, `${name.toLowerCase()}.js`))}; return ${name};`,
    )();
  const tensors = (text) =>
    readSafetensors(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const TOWN = content("TOWN");

  const correct =
    (aligner) =>
    ({ question, answer }) => {
      const state = aligner.model.start();
      let logits;
      for (const id of aligner.promptIds(question, answer)) logits = aligner.model.read(id, state);
      return { ...written(aligner.correct(question, answer)), logits: Array.from(logits) };
    };

  const asked = JSON.parse(fs.readFileSync(0));
  let found;
  if (asked.corrections) {
    found = asked.corrections.map(correct(new TownAligner(TOWN, tensors(TOWN.weights))));
  } else {
    const { weights, controls, scale } = content("TONE");
    const named = Object.entries(controls).map(([name, text]) => [name, tensors(text)]);
    const meet = new TownMeet(TOWN, tensors(weights), Object.fromEntries(named), scale);
    const answered = asked.questions.map((question) => written(meet.answer(question, asked.mix)));
    found = answered.map(({ text, kept }) => kept || text);
  }
  process.stdout.write(JSON.stringify(found));
};

function written(words) {
  const found = [];
  let next;
  while (!(next = words.next()).done) found.push(next.value.word);
  return { text: found.join(" "), kept: next.value };
}
