"""Batches: of similar length, always full, bounded by tokens."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from alignlib.batching import batches, by_tokens, pad_left, positions
from alignlib.profiles import TINY
from alignlib.prompts import TOWN
from alignlib.settings import SFTSettings
from alignlib.tinytown import sets
from alignlib.tinytown.tokenizer import build_tokenizer
from alignlib.tokens import example


def padding(lengths: list[int], order: list[int], size: int) -> float:
    """The fraction of all tokens that is padding."""
    steps = [[lengths[i] for i in order[k : k + size]] for k in range(0, len(order), size)]
    return 1 - sum(map(sum, steps)) / sum(max(step) * len(step) for step in steps)


@pytest.mark.parametrize("rows", ["corrections", "identity"])
def test_little_of_lesson_02s_batches_is_padding(rows: str) -> None:
    tiny, tokenizer = TINY, build_tokenizer()
    stage = tiny.training if rows == "corrections" else tiny.warmup
    drawn = getattr(sets, rows)(getattr(tiny, rows), seed=0)
    prompts = [TOWN.prompt(r.question, r.answer) for r in drawn]
    tokens = [example(tokenizer, p, r.correction) for p, r in zip(prompts, drawn)]
    lengths = [len(row["input_ids"]) for row in tokens]
    assert padding(lengths, batches(lengths, stage), stage.batch_size) <= 0.07


@pytest.mark.parametrize("n", [5, 60, 640, 700, 1500])
def test_every_row_comes_as_often_as_any_other_and_batches_are_alike(n: int) -> None:
    """Whether or not the rows are a multiple of the batch."""
    settings = SFTSettings(steps=6 * n // 16 + 1, batch_size=16)
    lengths = [(i * 37) % 100 + 20 for i in range(n)]
    order = batches(lengths, settings)
    assert len(order) == settings.steps * settings.batch_size
    counts = Counter(order)
    assert len(counts) == n and max(counts.values()) - min(counts.values()) <= 2
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(0)).tolist() * 6
    if n >= 640:
        assert padding(lengths, order, 16) < 0.25 * padding(lengths, shuffled, 16)


def test_whole_epochs_hold_every_row_once_and_differ() -> None:
    lengths = [(i * 37) % 100 for i in range(640)]
    order = batches(lengths, SFTSettings(steps=80, batch_size=16))
    first, second = order[:640], order[640:]
    assert sorted(first) == sorted(second) == list(range(640)) and first != second
    again = batches(lengths, SFTSettings(steps=80, batch_size=16))
    assert again == order != batches(lengths, SFTSettings(steps=80, batch_size=16, seed=1))


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to train on"):
        batches([], SFTSettings(steps=1))


def test_a_batch_is_bounded_by_tokens_and_a_longer_row_has_its_own() -> None:
    lengths = [5, 100, 7, 30, 6, 29, 5]
    found = by_tokens(lengths, 60)
    assert sorted(row for batch in found for row in batch) == list(range(7))
    assert all(max(lengths[i] for i in b) * len(b) <= 60 or len(b) == 1 for b in found)
    assert [1] in found and [5, 3] in found
    assert by_tokens([]) == []


def test_padding_on_the_left_leaves_each_token_its_position() -> None:
    ids, mask = pad_left([[5, 6, 7], [8]], 0, torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert positions(mask).tolist() == [[0, 1, 2], [0, 0, 0]]
