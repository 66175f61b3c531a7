"use strict";
// For test_page.py: corrections and logits of the page's Aligner, for the rows on standard input.

const fs = require("fs");
const path = require("path");
const [folder] = process.argv.slice(2);
const { TownAligner } = require(path.join(folder, "aligner.js"));
const { readSafetensors } = require(path.join(folder, "model.js"));

const TOWN = new Function(`${fs.readFileSync(path.join(folder, "town.js"))}; return TOWN;`)();
const bytes = Uint8Array.from(atob(TOWN.weights), (c) => c.charCodeAt(0));
const aligner = new TownAligner(TOWN, readSafetensors(bytes.buffer));

const rows = JSON.parse(fs.readFileSync(0));
const found = rows.map(({ question, answer }) => {
  const state = aligner.model.start();
  let logits;
  for (const id of aligner.promptIds(question, answer)) logits = aligner.model.read(id, state);
  const words = aligner.correct(question, answer);
  const written = [];
  let next;
  while (!(next = words.next()).done) written.push(next.value.word);
  return { correction: written.join(" "), kept: next.value, logits: Array.from(logits) };
});
process.stdout.write(JSON.stringify(found));
