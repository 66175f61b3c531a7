"""The device and its number format, threads, and random state."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from . import processes
from .model_files import ModelError

THREADS = 2  # fixed, so that the same seed gives the same numbers; ALIGNLIB_THREADS overrides it
MPS_FROM = 10_000_000  # parameters below which a Mac's GPU is no faster than its CPU


def set_threads() -> int:
    """Fix the number of CPU threads and return it."""
    share = (os.cpu_count() or 1) // processes.local_count()
    default = max(1, min(THREADS, share))
    torch.set_num_threads(int(os.environ.get("ALIGNLIB_THREADS", default)))
    return torch.get_num_threads()


def pick_device(parameters: int | None = None) -> torch.device:
    """The device for a model of so many parameters (None: a large one).

    ALIGNLIB_DEVICE, such as `cpu` or `cuda:1`, overrides the choice. Raises ModelError if it names
    no device. So does `accelerate launch --cpu`. Of several processes each has a GPU of its own.
    """
    if named := processes.named_device():
        try:
            return torch.device(named)
        except RuntimeError as error:
            fix = "set it to cpu, cuda, cuda:1 or mps, or unset it"
            raise ModelError(f"ALIGNLIB_DEVICE={named!r} is no device; {fix}") from error
    if torch.cuda.is_available():
        return torch.device("cuda", processes.local_gpu())
    small = parameters is not None and parameters < MPS_FROM
    return torch.device("mps" if torch.backends.mps.is_available() and not small else "cpu")


def device_kind() -> str:
    """The kind of device that numbers depend on, such as `cpu` or `cuda Tesla T4`."""
    device = pick_device()
    return f"cuda {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def compute_dtype(device: torch.device) -> torch.dtype:
    """What is computed in: bf16 on GPUs that have it, fp16 on older ones, fp32 elsewhere.

    Weights that are trained stay fp32: in 16 bits a small learning rate's updates are rounded away.
    """
    if device.type != "cuda":
        return torch.float32
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def autocast(device: torch.device) -> torch.autocast:
    dtype = compute_dtype(device)
    halved = dtype != torch.float32
    return torch.autocast(device.type, dtype if halved else None, enabled=halved)


@contextmanager
def own_random_state() -> Iterator[None]:
    """Whatever is drawn or seeded within leaves Python's, NumPy's and torch's state as it was."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
