"""From text to token ids: prompts, training rows with their loss mask, what fits the context."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED = -100  # the label of a token without loss, as in PyTorch
UNBOUNDED = 10**6  # the context length of a model whose configuration names none


def encode(tokenizer: PreTrainedTokenizerBase, text: str | list[int]) -> list[int]:
    """Token ids of a prompt, with BOS if the tokenizer has one, without EOS; ids stay as is."""
    if not isinstance(text, str):
        return text
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids if tokenizer.bos_token_id is None else [tokenizer.bos_token_id, *ids]


def example(
    tokenizer: PreTrainedTokenizerBase, prompt: str | list[int], completion: str
) -> dict[str, list[int]]:
    """`input_ids` and `labels` of one row: the loss is on the completion and its EOS alone.

    Prompt and completion are tokenized separately, so that no token spans their boundary.
    """
    start = encode(tokenizer, prompt)
    rest = tokenizer(completion, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return {"input_ids": start + rest, "labels": [IGNORED] * len(start) + rest}


def context_length(model: PreTrainedModel) -> int:
    """The longest input a model can read, in tokens; UNBOUNDED if its configuration names none."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", UNBOUNDED)


def fitting(
    rows: Sequence[dict[str, list[int]]], context: int
) -> tuple[list[dict[str, list[int]]], int]:
    """The rows of at most `context` tokens, and the number of longer ones. No row is truncated."""
    kept = [row for row in rows if len(row["input_ids"]) <= context]
    return kept, len(rows) - len(kept)
