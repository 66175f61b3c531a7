"""Looking inside: what heads attend to, what states contain, and what happens if either is changed.

For models whose decoder is a list of `layers` followed by a `norm`, as most are. Layers count from
0. Of states, number 0 is the embedding and number l + 1 the output of layer l.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .aligner import Aligner
from .batching import by_tokens, pad_left, positions
from .data import QAC
from .devices import autocast
from .likelihood import logits_at, row_nll
from .tokens import example, text_ids

Inputs = dict[str, torch.Tensor]  # what a model is called with


@torch.inference_mode()
def attention(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Attention weights of token ids (batch, time), shape (layers, batch, heads, time, time)."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the fast kernels do not return their weights
    try:
        return torch.stack(model(input_ids=ids, output_attentions=True).attentions)
    finally:
        model.set_attn_implementation(before)


def induction_score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, n: int = 16, words: int = 20
) -> float:
    """How much the best head attends, at a repeated word, to what followed it before; from 0 to 1.

    The mean over `n` random lists, each given twice (2209.11895, "prefix matching").
    """
    rng = random.Random(0)
    vocabulary = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    lists = [rng.sample(vocabulary, words) for _ in range(n)]
    ids = torch.tensor([once + once for once in lists], device=model.device)
    weights = attention(model, ids)  # (layers, n, heads, 2 * words, 2 * words)
    repeated = torch.arange(words, 2 * words - 1)
    after_first = repeated - words + 1
    return weights[..., repeated, after_first].mean((1, 3)).max().item()  # over (layers, heads)


@dataclass(frozen=True)
class Contrast:
    """Two runs that differ in the answer that is read, and not in what has been generated.

    The generated part is the correction up to the token at which it differs from the faulty answer.
    """

    faulty: list[int]  # token ids: question, faulty answer, the correction so far
    sound: list[int]  # the same with the correction in place of the answer
    at: int  # position, in both, of the token at which the answers differ
    start: int  # position in `faulty` at which the correction begins
    wrong: int  # the token at that point of the faulty answer
    right: int  # the token there of the sound answer, which should be generated next
    source: int | None  # position of the right token in the question, if it occurs there once


def contrast(aligner: Aligner, row: QAC) -> Contrast | None:
    """The contrast of a row; None if answer and correction are equal as far as both go."""
    tokenizer = aligner.tokenizer
    answer = text_ids(tokenizer, row.answer)
    correction = text_ids(tokenizer, row.correction)
    faulty = aligner.prompt_ids(row.question, row.answer)
    sound = aligner.prompt_ids(row.question, row.correction)
    in_answer = _first_difference(answer, correction)
    in_prompt = _first_difference(faulty, sound)
    if in_answer is None or in_prompt is None:
        return None
    right = correction[in_answer]
    sources = [i for i, token in enumerate(faulty[: in_prompt - in_answer]) if token == right]
    return Contrast(
        faulty=faulty + correction[:in_answer],
        sound=sound + correction[:in_answer],
        at=in_prompt,
        start=len(faulty),
        wrong=answer[in_answer],
        right=right,
        source=sources[0] if len(sources) == 1 else None,
    )


def _first_difference(a: list[int], b: list[int]) -> int | None:
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None)


def contrasts(aligner: Aligner, rows: Sequence[QAC]) -> list[Contrast]:
    """The contrasts of all rows that have one."""
    found = [contrast(aligner, row) for row in rows]
    return [pair for pair in found if pair is not None]


def head_attention(
    aligner: Aligner, pairs: Sequence[Contrast], place: str, side: str = "faulty"
) -> torch.Tensor:
    """How much each head attends to `place` where the right word is due, (layers, heads).

    `place`: the word in the answer ("at") or the right word in the question ("source"). `side`:
    the answer read. Pairs without the place are left out; raises ValueError if none is left.
    """
    means = []
    for pair in pairs:
        ids, key = getattr(pair, side), getattr(pair, place)
        if key is not None:
            weights = attention(aligner.model, torch.tensor([ids], device=aligner.model.device))
            means.append(weights[:, 0, :, -1, key].cpu())  # (layers, heads)
    if not means:
        raise ValueError("no rows to look into: does any question contain the right word?")
    return torch.stack(means).mean(0)


@torch.inference_mode()
def states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[list[int]],
    at: Sequence[int],
) -> torch.Tensor:
    """The residual stream at one position of each row of token ids, (n, layers + 1, width).

    The embedding and each layer's output, before any final norm. Negative positions count from the
    row's end. Raises ValueError if there are no rows.
    """

    def read(inputs: Inputs, where: torch.Tensor) -> torch.Tensor:
        with _residual_stream(model) as stream:
            model.get_decoder()(**inputs, use_cache=False)  # without the head: no logits are needed
        return torch.stack([state[where] for state in stream], 1)

    return _by_batch(model, tokenizer, rows, at, read)


def _by_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[list[int]],
    at: Sequence[int],
    read: Callable[[Inputs, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """`read(inputs, where)` of all rows in batches, in order; `where` (batch, time) marks `at`."""
    if not rows:
        raise ValueError("no rows to look into: does any correction change its answer?")
    found: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    for picked in by_tokens([len(row) for row in rows]):
        ids, mask = pad_left([rows[i] for i in picked], tokenizer.pad_token_id, model.device)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask)}
        # padding is on the left, so the rows of a batch share their end and not their start
        from_end = [at[i] if at[i] < 0 else at[i] - len(rows[i]) for i in picked]
        where = torch.zeros_like(mask, dtype=torch.bool)
        where[range(len(picked)), from_end] = True
        with autocast(model.device):
            values = read(inputs, where).float().cpu()
        for i, value in zip(picked, values, strict=True):
            found[i] = value
    return torch.stack(found)


@contextmanager
def _residual_stream(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Within, a forward pass fills the list: the first layer's input, then every layer's output."""
    stream: list[torch.Tensor] = []  # each (batch, time, width)
    layers = model.get_decoder().layers
    with ExitStack() as hooks:
        hooks.enter_context(
            layers[0].register_forward_pre_hook(lambda module, inputs: stream.append(inputs[0]))
        )
        for layer in layers:
            hooks.enter_context(
                layer.register_forward_hook(lambda module, inputs, output: stream.append(output))
            )
        yield stream


def contrast_states(
    aligner: Aligner, pairs: Sequence[Contrast], place: str
) -> tuple[np.ndarray, np.ndarray]:
    """States of the faulty and of the sound runs, each (n, layers + 1, width).

    `place`: where the word is "read" in the answer, the "end" of the prompt, or where the right
    word is to be generated next ("said").
    """
    at = {
        "read": [pair.at for pair in pairs],
        "end": [pair.start - 1 - len(pair.faulty) for pair in pairs],  # from the end of either run
        "said": [-1] * len(pairs),
    }[place]
    faulty = states(aligner.model, aligner.tokenizer, [pair.faulty for pair in pairs], at)
    sound = states(aligner.model, aligner.tokenizer, [pair.sound for pair in pairs], at)
    return faulty.numpy(), sound.numpy()


@torch.inference_mode()
def next_word(
    aligner: Aligner, pairs: Sequence[Contrast], side: str = "faulty", *, reading: bool = False
) -> dict[str, np.ndarray]:
    """The probability of the `right`, the `wrong` and the likeliest (`top`) next word, each (n,).

    `says right` and `says wrong`: whether that word is the likeliest. The prediction is the one at
    the run's end, or, when `reading`, the one before the word in the answer.
    """
    model = aligner.model
    rows = [getattr(pair, side) for pair in pairs]
    at = [pair.at - 1 if reading else -1 for pair in pairs]
    logits = _by_batch(model, aligner.tokenizer, rows, at, partial(logits_at, model))
    probabilities = logits.softmax(-1)  # (n, vocabulary)
    top, likeliest = probabilities.max(-1)
    predictions = {"top": top.numpy()}
    for kind in ("right", "wrong"):
        tokens = torch.tensor([getattr(pair, kind) for pair in pairs])
        predictions[kind] = probabilities.gather(1, tokens[:, None])[:, 0].numpy()
        predictions[f"says {kind}"] = (likeliest == tokens).numpy()
    return predictions


def layer_of(model: PreTrainedModel, layer: int) -> nn.Module:
    """A decoder layer by its number. Raises ValueError if there is none of that number."""
    layers = model.get_decoder().layers
    if not 0 <= layer < len(layers):
        raise ValueError(f"no layer {layer}: this model has layers 0 to {len(layers) - 1}")
    return layers[layer]


@contextmanager
def without_heads(model: PreTrainedModel, heads: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Within, these heads (layer, head) give out zeros. Raises ValueError for unknown ones."""
    config = model.config.get_text_config()
    count = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // count
    if unknown := [head for _, head in heads if not 0 <= head < count]:
        raise ValueError(f"no head {unknown[0]}: each layer has heads 0 to {count - 1}")

    def silence(head: int) -> Callable:
        def zero(module: nn.Module, inputs: tuple) -> tuple:
            outputs = inputs[0].clone()  # (batch, time, heads * width): the heads side by side
            outputs[..., head * width : (head + 1) * width] = 0
            return (outputs,)

        return zero

    matrices = [(layer_of(model, layer).self_attn.o_proj, head) for layer, head in heads]
    with ExitStack() as hooks:
        for matrix, head in matrices:
            hooks.enter_context(matrix.register_forward_pre_hook(silence(head)))
        yield


@torch.no_grad()
def next_token(
    model: PreTrainedModel,
    tokens: list[int],
    layer: int,
    hook: Callable[[torch.Tensor], torch.Tensor | None],
) -> int:
    """The likeliest next token; what `hook` returns, if anything, replaces the layer's output.

    The hook is called with that output, (1, time, width).
    """
    ids = torch.tensor([tokens], device=model.device)
    with layer_of(model, layer).register_forward_hook(lambda module, inputs, output: hook(output)):
        return model(input_ids=ids).logits[0, -1].argmax().item()


def patched_word(aligner: Aligner, pair: Contrast, layer: int, place: int) -> int:
    """The faulty run's next token if a layer's output at `place` is taken from the sound run."""
    kept: list[torch.Tensor] = []

    def patch(output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, place] = kept[0]
        return output

    next_token(aligner.model, pair.sound, layer, lambda out: kept.append(out[:, place].clone()))
    return next_token(aligner.model, pair.faulty, layer, patch)


def mean_gradient(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    texts: Sequence[str],
) -> dict[str, torch.Tensor]:
    """By parameter name: the gradient of the mean over rows of log p(text | prompt).

    That of DPO's loss at its start is, up to a factor, the rejected texts' minus the chosen ones'.
    """
    rows = [example(tokenizer, prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for picked in by_tokens([len(row["input_ids"]) for row in rows]):
        nll = row_nll(model, [rows[i] for i in picked], tokenizer.pad_token_id)  # (batch,)
        gradients = torch.autograd.grad(-nll.sum() / len(rows), list(parameters.values()))
        for name, gradient in zip(parameters, gradients):
            total[name] += gradient
    return total


def cosine(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], part: str = "") -> float:
    """The cosine of the angle between two gradients, over tensors whose name contains `part`."""
    names = [name for name in a if part in name]
    flat_a, flat_b = (
        torch.cat([gradient[name].flatten() for name in names]) for gradient in (a, b)
    )
    return torch.nn.functional.cosine_similarity(flat_a, flat_b, dim=0).item()
