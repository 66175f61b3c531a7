"""What a training will take: minutes and memory, tried on a few of its batches beforehand."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .batching import batches
from .devices import autocast, compute_dtype, own_random_state, pick_device, set_threads
from .host import peak_memory_mb
from .likelihood import row_nll
from .settings import SFTSettings
from .trainers import Row, checkpointing_off, cut_into_steps

TRIED = 3  # steps that are timed
GB = 1e9


@dataclass(frozen=True)
class Cost:
    """What a training is predicted to take; `gb` is the peak of the process, or of the GPU."""

    steps: int
    seconds_per_step: float
    tokens_per_second: float
    gb: float

    @property
    def minutes(self) -> float:
        return self.steps * self.seconds_per_step / 60

    def __str__(self) -> str:
        speed = f"{self.seconds_per_step:.1f} s per step, {self.tokens_per_second:.0f} tokens/s"
        return f"{self.steps} steps, {self.minutes:.1f} min ({speed}), {self.gb:.1f} GB"


def predict_training(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    settings: SFTSettings,
) -> Cost:
    """Time and memory of `train.sft` on these rows, tried on a few of its batches.

    With `settings.minutes` the steps are as many as fit into them. The model stays as it is.
    """
    if settings.checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()  # checkpointing needs it
    try:
        with own_random_state():
            seconds, tokens = _try_steps(model, tokenizer, rows, settings)
    finally:
        model.eval()
        checkpointing_off(model)
        model.zero_grad()
    speed = sum(tokens[: len(seconds)]) / sum(seconds)
    per_step = sum(tokens) / len(tokens) / speed
    gb = peak_gb(model.device) + _optimizer_gb(model)
    return Cost(_steps_in(settings, per_step), per_step, speed, gb)


def _steps_in(settings: SFTSettings, seconds_per_step: float) -> int:
    """The steps of the settings, or as many as fit into their minutes; at least one."""
    if not settings.minutes:
        return settings.steps
    return max(1, min(settings.steps, int(settings.minutes * 60 / seconds_per_step)))


def _try_steps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    settings: SFTSettings,
) -> tuple[list[float], list[int]]:
    """The seconds of a few steps, and the tokens of these and of all others.

    First comes the micro-batch that needs the most memory, untimed.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    steps = cut_into_steps(batches(lengths, settings), settings, lengths)
    tokens = [sum(lengths[i] for batch in step for i in batch) for step in steps]
    largest = max((b for s in steps for b in s), key=lambda b: len(b) * max(lengths[i] for i in b))
    seconds = []
    for step in [[largest], *steps[:TRIED]]:
        tried = [[rows[i] for i in micro_batch] for micro_batch in step]
        seconds.append(_seconds(model, tokenizer.pad_token_id, tried))
    return seconds[1:], tokens


def machine() -> str:
    """What this machine has: device, memory and speed of a matrix product, in one line."""
    device = pick_device()
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        name, memory = about.name, about.total_memory / GB
    else:
        name, memory = f"{device.type}, {set_threads()} threads", _host_gb()
    dtype = compute_dtype(device)
    a, seconds = torch.randn(2048, 2048, device=device, dtype=dtype), []
    for _ in range(8):
        started = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the result
        seconds.append(time.perf_counter() - started)
    rate = 2 * 2048**3 / min(seconds) / 1e9
    kind = str(dtype).removeprefix("torch.")
    return f"{name}: {memory:.0f} GB, {rate:.0f} GFLOP/s in a matrix product of {kind}"


def _host_gb() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    except (AttributeError, ValueError):  # Windows
        return float("nan")


def peak_gb(device: torch.device) -> float:
    """The peak so far: of this GPU's memory, or of the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GB
    return peak_memory_mb() * 2**20 / GB or float("nan")  # 0 means not known


def _optimizer_gb(model: PreTrainedModel) -> float:
    """AdamW's two moments of every weight that is trained, in fp32."""
    return 8 * sum(p.numel() for p in model.parameters() if p.requires_grad) / GB


def _seconds(model: PreTrainedModel, pad: int, step: list[list[Row]]) -> float:
    """How long a step's forward and backward passes take."""
    started = time.perf_counter()
    for rows in step:
        with autocast(model.device):
            nll = row_nll(model, rows, pad)
        nll.sum().backward()
    model.zero_grad()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
