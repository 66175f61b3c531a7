"""Which rows share a batch, and how a batch is padded: for training, generation and likelihoods.

Rows of similar length share a batch, so that little of it is padding. A batch is bounded by its
tokens, padding included, because memory grows with tokens and not with rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .settings import SFTSettings

TOKENS = 4096  # of a batch without gradients, padding included
POOL = 16  # micro-batches whose rows are sorted by length together


def by_tokens(lengths: Sequence[int], tokens: int = TOKENS) -> list[list[int]]:
    """Row numbers in batches of similar length, each of at most `tokens` with padding.

    A row longer than that has a batch of its own.
    """
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not found or lengths[row] * (len(found[-1]) + 1) > tokens:
            found.append([])
        found[-1].append(row)
    return found


def batches(lengths: Sequence[int], settings: SFTSettings) -> list[int]:
    """Row numbers of all steps in order: epochs of shuffled rows, grouped by length.

    Every `batch_size` of them are one micro-batch, and each of these is full: rows left over at the
    end of an epoch go first in the next one. Raises ValueError if there are no rows.
    """
    if not lengths:
        raise ValueError("no rows to train on: all were dropped or the list is empty")
    size, needed = settings.batch_size, settings.steps * settings.batch_size * settings.accumulate
    draw = torch.Generator().manual_seed(settings.seed)
    waiting, order = [], []
    while len(order) < needed:
        waiting += torch.randperm(len(lengths), generator=draw).tolist()
        end = len(waiting) // size * size
        epoch, waiting = waiting[:end], waiting[end:]
        micro_batches = []
        for start in range(0, end, POOL * size):
            pool = sorted(epoch[start : start + POOL * size], key=lengths.__getitem__)
            micro_batches += [pool[i : i + size] for i in range(0, len(pool), size)]
        for k in torch.randperm(len(micro_batches), generator=draw).tolist():
            order += micro_batches[k]
    return order[:needed]


def pad_left(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of a batch, both (batch, longest)."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(r)) + list(r) for r in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows], device=device)
    return ids, mask


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Each token's place in its row, not counting padding on the left; (batch, longest)."""
    return (mask.cumsum(1) - 1).clamp(min=0)
