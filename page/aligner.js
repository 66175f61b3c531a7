"use strict";
// Tinytown's Aligner in the page: words to tokens, the prompt, and the correction word by word.
// It does what `alignlib/aligner.py` does, for a tokenizer that has a token for every word.

if (typeof require !== "undefined") Object.assign(globalThis, require("./model.js"));

class TownAligner {
  /** `about`: config, vocabulary (words by id) and template, as `build.py` writes them. */
  constructor(about, tensors) {
    this.model = new Llama(about.config, tensors);
    this.words = about.vocabulary;
    this.ids = new Map(this.words.map((word, id) => [word, id]));
    this.template = about.template;
    this.special = new Set(about.special);
  }

  /** The ids of a text; `<unk>` for a word that the town does not have, or a special token's halves. */
  encode(text) {
    const marks = [...this.special].filter((mark) => mark !== "<unk>");
    let words = split(text);
    if (words.some((word) => marks.includes(word))) {
      for (const mark of marks) text = text.replaceAll(mark, ` ${mark[0]} ${mark.slice(1)} `);
      words = split(text);
    }
    return words.map((word) => this.ids.get(word) ?? this.ids.get("<unk>"));
  }

  prompt(question, answer) {
    const { start, middle, end } = this.template;
    const [q, a] = [question, answer].map((text) => escaped(escaped(text, middle), end));
    return start + q + separator(middle) + a + separator(end);
  }

  promptIds(question, answer) {
    return [this.ids.get("<bos>"), ...this.encode(this.prompt(question, answer))];
  }

  /** Half as much again as the answer and 64 tokens, but at most half the context. */
  limit(answer) {
    const most = Math.floor(this.model.config.max_position_embeddings / 2);
    return Math.min(Math.floor((this.encode(answer).length * 3) / 2) + 64, most);
  }

  /**
   * The words of a correction, one after another: yields {word, attention}, where
   * attention[layer][head] holds a weight for each token read so far. Returns why the answer stays
   * as it is, "" if the correction came to its end.
   */
  *correct(question, answer) {
    const ids = this.promptIds(question, answer);
    const most = this.limit(answer);
    if (ids.length + most > this.model.config.max_position_embeddings) {
      return "it is too long for the model to read";
    }
    const state = this.model.start();
    let logits;
    for (const id of ids) logits = this.model.read(id, state);
    for (let n = 0; n < most; n++) {
      const next = logits.indexOf(Math.max(...logits));
      if (this.words[next] === "<eos>") return n ? "" : "the correction was empty";
      const attention = state.layers.map((layer) => layer.attention);
      yield { word: this.words[next], attention };
      logits = this.model.read(next, state);
    }
    return "the correction reached its limit";
  }
}

function split(text) {
  return text.split(/\s+/).filter((word) => word);
}

function separator({ lead, core, trail }) {
  return lead + core + trail;
}

/** A text in which nothing can pass for the separator: a backslash stands before what looks so. */
function escaped(text, { lead, core, trail }) {
  const literal = (part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const before = literal(lead).replaceAll(" ", "\\s");
  const after = literal(trail).replaceAll(" ", "\\s");
  const inside = literal(core).replaceAll(" ", "\\s+");
  const pattern = `(?:^|(?<=${before}))(\\\\*)(${inside})(?=${after}|$)`;
  return text.replace(new RegExp(pattern, "g"), "$1\\$2");
}

if (typeof module !== "undefined") module.exports = { TownAligner };
