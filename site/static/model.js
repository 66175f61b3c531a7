"use strict";
// A small Llama in plain JavaScript, one token at a time: the model of Tinytown's Aligner.
//
// What a step computes, for the vector x of one position:
//   for each layer   x += attention(norm(x));  x += mlp(norm(x))
//   at the end       logits = embedding . norm(x), since input and output share the embedding

/** The tensors of a safetensors file, by name; each {shape, data: Float32Array}. */
function readSafetensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  for (const [name, about] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (about.dtype !== "F32") throw new Error(`${name}: ${about.dtype}, where F32 is expected`);
    const [start, end] = about.data_offsets.map((offset) => offset + 8 + length);
    tensors[name] = { shape: about.shape, data: new Float32Array(buffer.slice(start, end)) };
  }
  return tensors;
}

/** matrix (rows x columns) times vector. */
function times({ shape: [rows, columns], data }, vector) {
  const result = new Float32Array(rows);
  for (let i = 0, at = 0; i < rows; i++) {
    let sum = 0;
    for (let j = 0; j < columns; j++) sum += data[at++] * vector[j];
    result[i] = sum;
  }
  return result;
}

/** RMSNorm: the vector at length one per number, times a weight. */
function normed(vector, { data: weight }, epsilon) {
  let squares = 0;
  for (const value of vector) squares += value * value;
  const scale = 1 / Math.sqrt(squares / vector.length + epsilon);
  return vector.map((value, i) => value * scale * weight[i]);
}

function addTo(vector, other) {
  for (let i = 0; i < vector.length; i++) vector[i] += other[i];
}

function softmax(scores) {
  const most = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - most));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

class Llama {
  constructor(config, tensors) {
    this.config = config;
    this.embedding = tensors["model.embed_tokens.weight"];
    this.finalNorm = tensors["model.norm.weight"];
    this.layers = [];
    for (let i = 0; i < config.num_hidden_layers; i++) {
      const part = (name) => tensors[`model.layers.${i}.${name}.weight`];
      this.layers.push({
        attentionNorm: part("input_layernorm"),
        query: part("self_attn.q_proj"),
        key: part("self_attn.k_proj"),
        value: part("self_attn.v_proj"),
        output: part("self_attn.o_proj"),
        mlpNorm: part("post_attention_layernorm"),
        gate: part("mlp.gate_proj"),
        up: part("mlp.up_proj"),
        down: part("mlp.down_proj"),
      });
    }
  }

  /** What has been read: keys and values of each layer, and the attention of the last step. */
  start() {
    const layers = this.layers.map(() => ({ keys: [], values: [], attention: [] }));
    return { length: 0, layers };
  }

  /** Read a token; the logits of the next one. */
  read(id, state) {
    const { hidden_size: width, rms_norm_eps: epsilon } = this.config;
    const x = this.embedding.data.slice(id * width, (id + 1) * width);
    this.layers.forEach((layer, i) => {
      addTo(x, this.attend(layer, normed(x, layer.attentionNorm, epsilon), state, i));
      const inner = normed(x, layer.mlpNorm, epsilon);
      const up = times(layer.up, inner);
      const gated = times(layer.gate, inner).map((g, k) => (g / (1 + Math.exp(-g))) * up[k]);
      addTo(x, times(layer.down, gated));
    });
    state.length += 1;
    return times(this.embedding, normed(x, this.finalNorm, epsilon));
  }

  /** Attention of one layer, from the newest position to all that were read. */
  attend(layer, x, state, i) {
    const { num_attention_heads: heads, head_dim: size } = this.config;
    const known = state.layers[i];
    const query = this.rotated(times(layer.query, x), state.length);
    known.keys.push(this.rotated(times(layer.key, x), state.length));
    known.values.push(times(layer.value, x));
    const mixed = new Float32Array(heads * size);
    known.attention = [];
    for (let head = 0; head < heads; head++) {
      const from = head * size;
      const scores = known.keys.map((key) => {
        let sum = 0;
        for (let k = from; k < from + size; k++) sum += query[k] * key[k];
        return sum / Math.sqrt(size);
      });
      const weights = softmax(scores);
      known.attention.push(weights);
      weights.forEach((weight, place) => {
        const value = known.values[place];
        for (let k = from; k < from + size; k++) mixed[k] += weight * value[k];
      });
    }
    return times(layer.output, mixed);
  }

  /** Rotary positions: in each head, number k is turned together with number k + size / 2. */
  rotated(vector, position) {
    const { num_attention_heads: heads, head_dim: size, rope_parameters: rope } = this.config;
    const half = size / 2;
    const result = new Float32Array(vector.length);
    for (let k = 0; k < half; k++) {
      const angle = position / rope.rope_theta ** ((2 * k) / size);
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      for (let head = 0; head < heads; head++) {
        const [a, b] = [head * size + k, head * size + k + half];
        result[a] = vector[a] * cos - vector[b] * sin;
        result[b] = vector[b] * cos + vector[a] * sin;
      }
    }
    return result;
  }
}

if (typeof module !== "undefined") module.exports = { Llama, readSafetensors };
