"""How likely a model finds a text.

Logits are computed at completion positions only. With a large vocabulary they are most of the
memory: 4,096 tokens of a vocabulary of 49,152 are 0.8 GB in fp32, and twice that in the softmax.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .batching import TOKENS, by_tokens, pad_left, positions
from .devices import autocast
from .tokens import IGNORED, example

LOGITS = 2**27  # logits held at once (512 MB in fp32)


@torch.inference_mode()
def completion_nll(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | list[int]],
    completions: Sequence[str],
    end: int | None = None,
) -> torch.Tensor:
    """Mean negative log-likelihood per token (nats) of each completion with its end, shape (n,).

    `end` is the token that ends it (None: EOS).
    """
    rows = [example(tokenizer, p, c, end) for p, c in zip(prompts, completions, strict=True)]
    labelled = [sum(label != IGNORED for label in row["labels"]) for row in rows]
    nll = torch.zeros(len(rows))
    for picked in by_tokens([len(r["input_ids"]) for r in rows]):
        with autocast(model.device):
            total = row_nll(model, [rows[i] for i in picked], tokenizer.pad_token_id)
        nll[picked] = total.cpu() / torch.tensor([labelled[i] for i in picked])
    return nll


@torch.inference_mode()
def mean_kl(
    model: PreTrainedModel,
    other: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | list[int]],
    completions: Sequence[str],
    end: int | None = None,
) -> float:
    """KL(model || other) in nats per token, averaged over the tokens of these completions.

    All next tokens are summed over at each of them. Both models have the same vocabulary. `end` is
    the token that ends a completion (None: EOS).
    """
    rows = [example(tokenizer, p, c, end) for p, c in zip(prompts, completions, strict=True)]
    total, tokens = 0.0, 0
    for picked in by_tokens([len(r["input_ids"]) for r in rows], TOKENS // 4):
        inputs, labels = _padded(model, [rows[i] for i in picked], tokenizer.pad_token_id)
        at = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED) != IGNORED
        with autocast(model.device):
            logits = [logits_at(m, inputs, at).float().log_softmax(-1) for m in (model, other)]
        total += float((logits[0].exp() * (logits[0] - logits[1])).sum())
        tokens += int(at.sum())
    return total / tokens


def row_nll(model: PreTrainedModel, rows: Sequence[dict[str, list[int]]], pad: int) -> torch.Tensor:
    """- log p(completion | prompt) of each row (from `tokens.example`) as one batch, in nats.

    Summed over tokens, shape (n,); gradients flow through it.
    """
    inputs, labels = _padded(model, rows, pad)
    total = torch.zeros(len(rows), device=model.device)
    for at, nll in token_nll(model, inputs, labels):
        total = total.index_add(0, at.nonzero()[:, 0], nll)
    return total


def _padded(
    model: PreTrainedModel, rows: Sequence[dict[str, list[int]]], pad: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Rows (from `tokens.example`) as a model reads them, and their labels, (batch, time)."""
    ids, mask = pad_left([r["input_ids"] for r in rows], pad, model.device)
    labels, _ = pad_left([r["labels"] for r in rows], IGNORED, model.device)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask)}, labels


def token_nll(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], labels: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """- log p of every labelled token, in parts of at most LOGITS logits.

    `labels` (batch, time) hold IGNORED where there is none. Yields for each part where its tokens
    are predicted, (batch, time), and their values, (tokens,). Mostly there is one part; a batch
    whose labels exceed the bound is read once for each.
    """
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    at_once = max(1, LOGITS // model.get_output_embeddings().weight.shape[0])
    for part in (targets != IGNORED).nonzero().split(at_once):
        at = torch.zeros_like(targets, dtype=torch.bool)
        at[part[:, 0], part[:, 1]] = True
        logits = logits_at(model, inputs, at).float()
        yield at, torch.nn.functional.cross_entropy(logits, targets[at], reduction="none")


def logits_at(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], at: torch.Tensor
) -> torch.Tensor:
    """The logits at the positions that `at` (batch, time) marks, shape (positions, vocabulary)."""
    return states_and_logits(model, inputs, at)[1]


def states_and_logits(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], at: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The hidden states that the head reads, (positions, width), where `at` marks, and the logits.

    The head is handed these hidden states alone. What a model does to its logits afterwards, such
    as a scale or a cap, acts on each by itself and so stays right.
    """
    read = []

    def pick(head: torch.nn.Module, hidden: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        read.append(hidden[0][:, -at.shape[1] :][at])  # a soft prompt may stand before the text
        return (read[0][None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        logits = model(**inputs, use_cache=False).logits[0]
    finally:
        hook.remove()
    return read[0], logits
