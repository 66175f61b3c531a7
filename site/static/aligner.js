"use strict";
// Tinytown's models in the page: words to tokens, the prompt, and what follows it word by word.
// They do what `alignlib/aligner.py` and `alignlib/controls.py` do, for a tokenizer with a token
// for every word.

if (typeof require !== "undefined") Object.assign(globalThis, require("./model.js"));

const LONGEST_ANSWER = 90; // tokens, as in lesson 05

class TownModel {
  /** `about`: config, vocabulary (words by id), special tokens and template, by `town.py`. */
  constructor(about, tensors) {
    this.about = about;
    this.model = new Llama(about.config, tensors);
    this.words = about.vocabulary;
    this.ids = new Map(this.words.map((word, id) => [word, id]));
    this.special = new Set(about.special);
  }

  /** The ids of a text; `<unk>` for an unknown word. A special token typed in it stays text. */
  encode(text) {
    const marks = [...this.special].filter((mark) => mark !== "<unk>");
    let words = split(text);
    if (words.some((word) => marks.includes(word))) {
      for (const mark of marks) text = text.replaceAll(mark, ` ${mark[0]} ${mark.slice(1)} `);
      words = split(text);
    }
    return words.map((word) => this.ids.get(word) ?? this.ids.get("<unk>"));
  }

  /**
   * The likeliest words after these ids, at most so many: yields {word, attention}, where
   * attention[layer][head] holds a weight for each token read so far. Returns what went wrong, ""
   * if the text came to its end.
   */
  *write(ids, most) {
    if (ids.length + most > this.about.config.max_position_embeddings) {
      return "it is too long for the model to read";
    }
    const state = this.model.start();
    let logits;
    for (const id of ids) logits = this.model.read(id, state);
    for (let n = 0; n < most; n++) {
      const next = logits.indexOf(Math.max(...logits));
      if (this.words[next] === "<eos>") return n ? "" : "nothing was written";
      const attention = state.layers.map((layer) => layer.attention);
      yield { word: this.words[next], attention };
      logits = this.model.read(next, state);
    }
    return "it reached its limit";
  }
}

class TownAligner extends TownModel {
  prompt(question, answer) {
    const { start, middle, end } = this.about.template;
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

  /** The words of a correction, as `write`; if something goes wrong, the answer stays as it is. */
  *correct(question, answer) {
    return yield* this.write(this.promptIds(question, answer), this.limit(answer));
  }
}

class TownMeet extends TownModel {
  /** `controls`: LoRA matrices by the name of the control, each a file's tensors. */
  constructor(about, tensors, controls, scale) {
    super(about, tensors);
    [this.tensors, this.controls, this.scale] = [tensors, controls, scale];
  }

  /** The words of an answer, as `write`, under a mix of controls: {friendly: 0.7, plain: 0.3}. */
  *answer(question, mix) {
    const ids = [this.ids.get("<bos>"), ...this.encode(`${question} answer :`)];
    this.model = new Llama(this.about.config, this.mixed(mix));
    return yield* this.write(ids, LONGEST_ANSWER);
  }

  /** The model's tensors with the controls added: W + the sum of weight x scale x B A. */
  mixed(mix) {
    const tensors = { ...this.tensors };
    for (const [name, weight] of Object.entries(mix)) {
      for (const [key, a] of Object.entries(this.controls[name])) {
        if (!key.endsWith("lora_A.weight")) continue;
        const b = this.controls[name][key.replace("lora_A", "lora_B")];
        const target = key.replace("base_model.model.", "").replace("lora_A.", "");
        tensors[target] = withLora(tensors[target], a, b, weight * this.scale);
      }
    }
    return tensors;
  }
}

/** matrix + factor x B A, where B is rows x rank and A rank x columns. */
function withLora({ shape, data }, a, b, factor) {
  const [rows, columns] = shape;
  const rank = a.shape[0];
  const sum = data.slice();
  for (let i = 0; i < rows; i++) {
    for (let r = 0; r < rank; r++) {
      const left = factor * b.data[i * rank + r];
      for (let j = 0; j < columns; j++) sum[i * columns + j] += left * a.data[r * columns + j];
    }
  }
  return { shape, data: sum };
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

if (typeof module !== "undefined") module.exports = { TownAligner, TownMeet };
