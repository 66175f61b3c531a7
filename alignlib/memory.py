"""What a training holds in memory at once, by item, from the model's sizes and the settings.

    weights       the model, frozen or not, and its buffers
    gradients     one number for each weight that is trained
    optimizer     AdamW's two moments of each (one byte each in 8 bits)
    anchor        of a regularized stage: what is trained, as it was at the start of the stage
    reference     of PPO: what is trained, as it was at the start (DPO works its numbers out before)
    activations   what the backward pass needs of the forward pass of the largest micro-batch
    logits        of its labelled tokens: themselves, their log-probabilities, and the gradient
    KV cache      of PPO's samples; it and the activations are not there at the same time

The bytes that one row keeps for the backward pass are counted, not guessed: one row is read with
a hook on what autograd saves. So this holds for any architecture, adapter and number format. The
process on a CPU needs KEPT times as much: freed blocks that nothing fits into stay with it, and the
backward pass has tensors of its own. `benchmarks/cost.py` compares this with what was needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psutil
import torch
from transformers import PreTrainedModel

from . import processes
from .batching import pad_left, positions
from .devices import autocast
from .host import memory_mb
from .likelihood import token_nll
from .settings import SFTSettings
from .tokens import IGNORED

GB = 1e9
FP32 = 4  # bytes
KEPT = 1.75  # times activations and logits, fitted to eleven trainings on Linux (1.5 to 2.0)
TILE = 4096, 32_768  # logits of so many tokens and words at once
NO_ROOM = "can't allocate memory"  # as PyTorch says it of the machine's own
Items = dict[str, float]  # GB


class OutOfMemory(RuntimeError):
    """A training that needs more memory than there is; the message names the setting to change."""


@dataclass(frozen=True)
class Sizes:
    """A model's sizes in bytes, counted on one row of `length` tokens."""

    weights: int
    trained: int  # parameters, not bytes
    length: int
    saved: int  # by autograd, for this row's tokens
    cast: int  # whatever the rows: weights in 16 bits
    hidden: int  # of one layer's output for this row
    layers: int
    vocabulary: int
    cache: int  # keys and values of this row
    on_gpu: bool = False


@dataclass(frozen=True)
class Batch:
    """What no micro-batch of a training exceeds."""

    rows: int
    length: int  # of its longest row, in tokens
    labels: int  # tokens with a label


def count_sizes(model: PreTrainedModel, ids: Sequence[int]) -> Sizes:
    """The sizes of a model that is set up to be trained, counted on one row of token ids."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    whole, two = (_saved(model, list(some), own) for some in (ids, ids[:2]))
    token = (whole - two) / max(1, len(ids) - 2)
    config = model.config.get_text_config()
    hidden = len(ids) * config.hidden_size * FP32
    return Sizes(
        weights=sum(t.nbytes for t in (*model.parameters(), *model.buffers())),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        length=len(ids),
        saved=round(token * len(ids)),
        cast=max(0, round(two - 2 * token)),
        hidden=hidden,
        layers=config.num_hidden_layers,
        vocabulary=model.get_output_embeddings().weight.shape[0],
        cache=_cache(model, ids),
        on_gpu=model.device.type == "cuda",
    )


def _saved(model: PreTrainedModel, ids: list[int], own: set[int]) -> int:
    """The bytes that autograd keeps of a forward pass over this row, with one label."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids, mask = pad_left([ids], 0, model.device)
    labels = torch.full_like(ids, IGNORED)
    labels[:, -1] = ids[:, -1]
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask)}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        with autocast(model.device):
            losses = [nll.sum() for _, nll in token_nll(model, inputs, labels)]
    del losses
    return sum(kept.values())


@torch.no_grad()
def _cache(model: PreTrainedModel, ids: Sequence[int]) -> int:
    """The bytes of a row's keys and values; 0 for a model without such a cache."""
    with autocast(model.device):
        out = model(torch.tensor([list(ids)], device=model.device), use_cache=True)
    layers = getattr(getattr(out, "past_key_values", None), "layers", ())
    found = (getattr(layer, name, None) for layer in layers for name in ("keys", "values"))
    return sum(t.nbytes for t in found if isinstance(t, torch.Tensor))


def memory_items(
    sizes: Sizes,
    batch: Batch,
    settings: SFTSettings,
    *,
    anchor: bool = False,
    reference: bool = False,
    generated: tuple[int, int] = (0, 0),
) -> Items:
    """GB by item, at the time when most is needed.

    `anchor`: whether the stage is regularized. `reference`: whether a copy of what is trained is
    kept as one. `generated`: rows and tokens of the texts that are sampled at once.
    """
    times = batch.rows * batch.length / sizes.length  # as many tokens as the row that was counted
    trained = sizes.trained * FP32
    activations = sizes.saved * times
    if settings.checkpointing:  # the input of each layer, and what one of them keeps
        activations = sizes.hidden * times * sizes.layers + activations / sizes.layers
    kept = 1 if sizes.on_gpu else KEPT
    rows, tokens = generated
    items = {
        "weights": sizes.weights,
        "gradients": trained * (2 if processes.count() > 1 else 1),  # DDP has a copy
        "optimizer": trained / 2 if settings.eight_bit else 2 * trained,
        "anchor": trained * anchor,
        "reference": trained * reference,
        "activations": kept * activations + sizes.cast,
        "logits": kept * 3 * FP32 * _logits(sizes, batch),
        "KV cache": sizes.cache * rows * tokens / sizes.length,
    }
    passing = ("activations", "logits")  # not there while texts are sampled
    if items["KV cache"] > sum(items[name] for name in passing):
        items |= dict.fromkeys(passing, 0.0)
    else:
        items["KV cache"] = 0.0
    return {name: size / GB for name, size in items.items()}


def _logits(sizes: Sizes, batch: Batch) -> int:
    """How many there are at once; on a single GPU the loss is TRL's, which takes them by tiles."""
    if sizes.on_gpu and processes.count() == 1:
        return min(batch.labels, TILE[0]) * min(sizes.vocabulary, TILE[1])
    return batch.labels * sizes.vocabulary


def advice(sizes: Sizes, batch: Batch, settings: SFTSettings, room: float, **held: object) -> str:
    """The first setting whose change makes a training fit into so many GB."""
    half, saving = batch, replace(settings, checkpointing=True)
    if batch.rows >= 4:  # the two sides of a pair stay together
        half = replace(batch, rows=batch.rows // 2, labels=batch.labels // 2)
    short = replace(half, length=batch.length // 2, labels=half.labels // 2)
    changes = [(f"tokens={half.rows * half.length}", half, settings)] if half != batch else []
    changes.append(("checkpointing=True", half, saving))
    if sizes.on_gpu:
        saving = replace(saving, eight_bit=True)
        changes.append(("checkpointing=True and eight_bit=True", half, saving))
    changes.append((f"max_length={short.length}", short, saving))
    for what, changed, given in changes:
        if sum(memory_items(sizes, changed, given, **held).values()) <= room:
            return f"set {what}"
    frozen = memory_items(replace(sizes, trained=0), half, settings)
    if FP32 * sizes.trained > sizes.weights / 2 and sum(frozen.values()) <= room:
        return "train LoRA instead of all weights (lora_rank=16)"
    return "take a smaller model"


@contextmanager
def memory_explained(settings: SFTSettings) -> Iterator[None]:
    """What runs out of memory within is told which setting to change. Raises OutOfMemory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        what = str(error)
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and NO_ROOM not in what:
            raise
        half = settings.tokens // 2 or "half of a batch's tokens"
        ways = [f"tokens={half}, so that fewer are read at once", "a smaller max_length"]
        if not settings.checkpointing:
            ways.append("checkpointing=True")
        fix = ", ".join(ways)
        raise OutOfMemory(
            f"out of memory; set {fix}, or train LoRA instead of all weights"
        ) from error


def room_gb(device: torch.device) -> float:
    """GB that this process may have in all: of the GPU's memory, or of the machine's.

    ALIGNLIB_MEMORY_GB sets a smaller number, such as that of another machine.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        there = (free + torch.cuda.memory_reserved(device)) / GB
    else:
        free = psutil.virtual_memory().available / processes.local_count()
        there = free / GB + memory_mb() * 2**20 / GB
    named = os.environ.get("ALIGNLIB_MEMORY_GB", "inf")
    try:
        return min(there, float(named))
    except ValueError:
        raise ValueError(f"ALIGNLIB_MEMORY_GB={named!r} is no number of GB") from None
