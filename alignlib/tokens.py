"""From texts to tokens: a prompt, a row with its loss mask, what does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label of a token without loss, as PyTorch has it


def encode(tokenizer: PreTrainedTokenizerBase, text: str | list[int]) -> list[int]:
    """A prompt's token ids: bos where the tokenizer has one, never eos. One that comes in ids
    stays as it is.
    """
    if not isinstance(text, str):
        return text
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids if tokenizer.bos_token_id is None else [tokenizer.bos_token_id, *ids]


def example(
    tokenizer: PreTrainedTokenizerBase, prompt: str | list[int], completion: str
) -> dict[str, list[int]]:
    """`input_ids` and `labels` of one row: the mask covers exactly the completion and its EOS.

    Prompt and completion are tokenised apart, so that no token can span the seam.
    """
    start = encode(tokenizer, prompt)
    rest = tokenizer(completion, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return {"input_ids": start + rest, "labels": [IGNORED] * len(start) + rest}


def fitting(
    rows: Sequence[dict[str, list[int]]], context: int
) -> tuple[list[dict[str, list[int]]], int]:
    """The rows no longer than the context, and how many are longer: a row is dropped whole,
    never cut.
    """
    kept = [r for r in rows if len(r["input_ids"]) <= context]
    return kept, len(rows) - len(kept)


def lost_share(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """Share of the texts' characters (spaces apart) that do not survive the tokenizer, be it as
    unk or without a word.
    """
    lost = total = 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        there, back = (
            Counter("".join(text.split())),
            Counter(tokenizer.decode(ids, skip_special_tokens=True)),
        )
        lost += (there - back).total()
        total += there.total()
    return lost / max(1, total)
