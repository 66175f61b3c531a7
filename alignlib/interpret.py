"""Looking inside: what the heads attend to, what the states hold, and what happens if either is
changed (lessons 02 and 04); and where its weights are pulled (lesson 06).

For models whose decoder is a list of `layers` with a `norm` behind it, as most are. Layers count
from 0; of states, 0 is the embeddings and layer l's output is l + 1.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .aligner import Aligner
from .batching import by_tokens, pad_left, positions
from .data import QAC
from .likelihood import row_nll
from .models import autocast
from .tokens import encode, example

STATES_AT_ONCE = 64  # rows in a batch


@torch.inference_mode()
def attention(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Attention weights for token ids of shape (b, T): shape (layers, b, heads, T, T), rows sum
    to 1.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the fast kernels do not hand their weights out
    try:
        return torch.stack(model(input_ids=ids, output_attentions=True).attentions)
    finally:
        model.set_attn_implementation(before)


def induction_score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, n: int = 16, words: int = 20
) -> float:
    """How much the best head attends, at a word that stood before, to what came after it then; from
    0 to 1.

    On n lists of random words said twice, mean over positions (Olsson et al. 2022, arXiv
    2209.11895, "prefix matching").
    """
    rng, special = random.Random(0), set(tokenizer.all_special_ids)
    vocabulary = [i for i in range(len(tokenizer)) if i not in special]
    lists = [rng.sample(vocabulary, words) for _ in range(n)]
    weights = attention(model, torch.tensor([once + once for once in lists], device=model.device))
    again = torch.arange(words, 2 * words - 1)
    return weights[..., again, again - words + 1].mean((1, 3)).max().item()


def attention_to(
    model: PreTrainedModel, rows: Sequence[list[int]], pairs: Sequence[Sequence[tuple[int, int]]]
) -> torch.Tensor:
    """How much each head attends from one position to another: the mean over each row's `pairs`
    (from, to) and over rows, shape (layers, heads).
    """
    if not rows:
        raise ValueError("no rows to look into; does the right word stand in any question?")
    means = []
    for ids, wanted in zip(rows, pairs, strict=True):
        at, to = (torch.tensor(side) for side in zip(*wanted))
        means.append(
            attention(model, torch.tensor([ids], device=model.device))[:, 0][:, :, at, to]
            .mean(-1)
            .cpu()
        )
    return torch.stack(means).mean(0)


@dataclass(frozen=True)
class Contrast:
    """A faulty and a sound answer behind the same question, and the correction said up to the
    word at which they part: all that differs between the two is read, not said.
    """

    faulty: list[int]  # token ids: question, faulty answer, the correction so far
    sound: list[int]  # the same with the correction in the answer's place
    at: int  # where, in both, the word stands at which the answers part
    start: int  # where, in the faulty one, the correction begins
    wrong: int  # the token there in the faulty answer
    right: int  # the one in the sound answer, which the Aligner should say next
    source: int | None  # where the right one stands in the question, if it does so once


def contrast(aligner: Aligner, row: QAC) -> Contrast | None:
    """None if answer and correction never part, or one ends where they do."""
    said, due = (
        aligner.tokenizer(t, add_special_tokens=False)["input_ids"]
        for t in (row.answer, row.correction)
    )
    faulty, sound = (
        encode(aligner.tokenizer, aligner.prompt(row.question, t))
        for t in (row.answer, row.correction)
    )
    k, at = (
        next((i for i, (x, y) in enumerate(zip(*two)) if x != y), None)
        for two in ((said, due), (faulty, sound))
    )
    if k is None or at is None:
        return None
    places = [i for i, token in enumerate(faulty[: at - k]) if token == due[k]]
    return Contrast(
        faulty + due[:k],
        sound + due[:k],
        at,
        len(faulty),
        said[k],
        due[k],
        places[0] if len(places) == 1 else None,
    )


def contrasts(aligner: Aligner, rows: Sequence[QAC]) -> list[Contrast]:
    """Those of the rows that have one."""
    return [c for r in rows if (c := contrast(aligner, r))]


@torch.inference_mode()
def states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[list[int]],
    at: Sequence[int],
) -> torch.Tensor:
    """The residual stream at one position of each row of token ids (negative: from its end): the
    embedding, and what each layer hands on, before any final norm; shape (n, layers + 1, width).
    Raises ValueError if there are no rows.
    """
    if not rows:
        raise ValueError("no rows to look into; has any row an answer that its correction changes?")
    found = []
    for start in range(0, len(rows), STATES_AT_ONCE):
        some = rows[start : start + STATES_AT_ONCE]
        ids, mask = pad_left(some, tokenizer.pad_token_id, model.device)
        with _stream(model) as kept, autocast(model.device):
            model(input_ids=ids, attention_mask=mask, position_ids=positions(mask))
        places = [
            p if p < 0 else p - len(r) for p, r in zip(at[start : start + STATES_AT_ONCE], some)
        ]
        found.append(torch.stack(kept, 1).float().cpu()[torch.arange(len(some)), :, places])
    return torch.cat(found)


@contextmanager
def _stream(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Within, every forward pass leaves here what goes into the first layer and what each layer
    hands on, each (b, T, width).
    """
    kept: list[torch.Tensor] = []
    layers = model.get_decoder().layers
    handles = [layers[0].register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))]
    handles += [
        layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
        for layer in layers
    ]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def head_attention(
    aligner: Aligner, pairs: Sequence[Contrast], place: str, side: str = "faulty"
) -> torch.Tensor:
    """How much each head, when the word is about to be said and that answer was read, looks at
    one place: `at`, the answer's word, or `source`, the right one in the question; (layers,
    heads). Pairs without that place are left out.
    """
    runs = [(getattr(p, side), to) for p in pairs if (to := getattr(p, place)) is not None]
    return attention_to(
        aligner.model, [ids for ids, _ in runs], [[(len(ids) - 1, to)] for ids, to in runs]
    )


def contrast_states(
    aligner: Aligner, pairs: Sequence[Contrast], place: str
) -> tuple[np.ndarray, np.ndarray]:
    """States of the faulty and of the sound runs, each (n, layers + 1, width): where the word is
    `read` in the answer, at the `end` of the prompt, or where it is about to be `said`.
    """
    at = [
        {"read": p.at, "end": p.start - 1 - len(p.faulty), "said": -1}[place] for p in pairs
    ]  # the ends of both runs are alike
    faulty, sound = (
        states(aligner.model, aligner.tokenizer, [getattr(p, side) for p in pairs], at).numpy()
        for side in ("faulty", "sound")
    )
    return faulty, sound


@torch.inference_mode()
def next_word(
    aligner: Aligner, pairs: Sequence[Contrast], side: str = "faulty", *, reading: bool = False
) -> dict[str, np.ndarray]:
    """What each run would say next: the probability of the `right` and of the `wrong` word and
    of the likeliest, `top`; and whether it `says right` or `says wrong`; each (n,). When
    `reading`, not behind the run but before that word of the answer.
    """
    places = [p.at - 1 if reading else -1 for p in pairs]
    last = states(aligner.model, aligner.tokenizer, [getattr(p, side) for p in pairs], places)[
        :, -1
    ]
    normed = aligner.model.get_decoder().norm(last.to(aligner.model.device))
    chances = aligner.model.get_output_embeddings()(normed).float().softmax(-1).cpu()
    best, each = chances.max(-1), torch.arange(len(pairs))
    words = {
        "right": torch.tensor([p.right for p in pairs]),
        "wrong": torch.tensor([p.wrong for p in pairs]),
    }
    told = {kind: chances[each, word].numpy() for kind, word in words.items()} | {
        "top": best.values.numpy()
    }
    return told | {f"says {kind}": (best.indices == word).numpy() for kind, word in words.items()}


def layer_of(model: PreTrainedModel, layer: int) -> nn.Module:
    """A decoder layer. Raises ValueError if there is none of that number."""
    layers = model.get_decoder().layers
    if not 0 <= layer < len(layers):
        raise ValueError(f"no layer {layer}: this model has layers 0 to {len(layers) - 1}")
    return layers[layer]


@contextmanager
def without_heads(model: PreTrainedModel, heads: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Within, these heads (layer, head) hand on nothing. Raises ValueError for one that does not
    exist.
    """
    count = model.config.num_attention_heads
    width = getattr(model.config, "head_dim", None) or model.config.hidden_size // count

    def silence(head: int) -> Callable:
        def mute(module: nn.Module, inputs: tuple) -> tuple:
            mixed = inputs[0].clone()
            mixed[..., head * width : (head + 1) * width] = 0
            return (mixed,)

        return mute

    if wrong := [h for _, h in heads if not 0 <= h < count]:
        raise ValueError(f"no head {wrong[0]}: each layer of this model has heads 0 to {count - 1}")
    outputs = [(layer_of(model, layer).self_attn.o_proj, head) for layer, head in heads]
    handles = [module.register_forward_pre_hook(silence(head)) for module, head in outputs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def next_token(
    model: PreTrainedModel,
    tokens: list[int],
    layer: int,
    hook: Callable[[torch.Tensor], torch.Tensor | None],
) -> int:
    """The likeliest next token, with a hook on what the layer hands on, (1, T, width): what it
    returns, if anything, takes its place.
    """
    handle = layer_of(model, layer).register_forward_hook(
        lambda module, inputs, output: hook(output)
    )
    try:
        return (
            model(input_ids=torch.tensor([tokens], device=model.device))
            .logits[0, -1]
            .argmax()
            .item()
        )
    finally:
        handle.remove()


def patched_word(aligner: Aligner, pair: Contrast, layer: int, place: int) -> int:
    """What the faulty run says next if, behind the layer, its state at a place is the sound
    run's.
    """
    kept: list[torch.Tensor] = []
    next_token(
        aligner.model, pair.sound, layer, lambda output: kept.append(output[:, place].clone())
    )

    def put(output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, place] = kept[0]
        return output

    return next_token(aligner.model, pair.faulty, layer, put)


def mean_gradient(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    texts: Sequence[str],
) -> dict[str, torch.Tensor]:
    """By a parameter's name: the gradient of the mean over rows of log p(text | prompt), where the
    model would go to say these texts.

    The gradient of DPO's loss at its start is that of the rejected texts less that of the chosen
    ones, up to a factor.
    """
    rows = [example(tokenizer, prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for picked in by_tokens([len(r["input_ids"]) for r in rows]):
        log_p = -row_nll(model, [rows[i] for i in picked], tokenizer.pad_token_id).sum() / len(rows)
        for name, gradient in zip(
            parameters, torch.autograd.grad(log_p, list(parameters.values()))
        ):
            total[name] += gradient
    return total


def cosine(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], part: str = "") -> float:
    """The cosine of the angle between two pulls, over the tensors whose name holds `part`."""
    one, other = (torch.cat([of[name].flatten() for name in a if part in name]) for of in (a, b))
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))
