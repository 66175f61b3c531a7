"""Several processes that train one model, as `accelerate launch` or `torchrun` start them.

Each holds the whole model and works out its share of every step's rows. Losses and gradients are
summed over all of them, so that a step is the one that a single process would take. The first
process alone writes and prints. Without a launcher there is one process, and nothing here does
anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Value = TypeVar("Value")
CUT_UP = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}


class Unsupported(ValueError):
    """What several processes cannot do together."""


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """The number of this one, from 0."""
    return int(os.environ.get("RANK", 0))


def is_first() -> bool:
    return rank() == 0


def local_gpu() -> int | None:
    """The number of the GPU that is this process's own; None if there is one process."""
    return int(os.environ.get("LOCAL_RANK", 0)) if count() > 1 else None


def local_count() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def named_device() -> str:
    """The device that the environment names: by ALIGNLIB_DEVICE, or `accelerate launch --cpu`."""
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    named = os.environ.get("ALIGNLIB_DEVICE") or ("cpu" if on_cpu else "")
    if ":" in named:
        refuse(f"ALIGNLIB_DEVICE={named}")
    return named


def refuse(what: str) -> None:
    """Raise Unsupported if there are several processes, which `what` cannot use."""
    if count() > 1:
        raise Unsupported(f"{what} runs in one process; start it without a launcher")


def join() -> None:
    """Connect with the others, once. Raises Unsupported for FSDP and DeepSpeed."""
    used = [name for key, name in CUT_UP.items() if os.environ.get(key, "").lower() == "true"]
    if used:
        why = f"{used[0]} cuts up the model, of which controls and penalties need the whole"
        raise Unsupported(
            f"{why}; use `accelerate launch --multi_gpu`, with LoRA if memory is short"
        )
    if count() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=named_device() == "cpu" or not torch.cuda.is_available())


def mine(rows: Sequence[Item]) -> Sequence[Item]:
    """This process's share."""
    return rows[rank() :: count()]


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes, in its place."""
    if count() > 1:
        import torch

        join()
        torch.distributed.all_reduce(value)
    return value


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Sum the gradients of all processes. Where one has none, it counts as 0."""
    if count() == 1:
        return
    import torch

    trained = [p for p in parameters if p.requires_grad]
    known = total(torch.tensor([float(p.grad is not None) for p in trained]).to(trained[0].device))
    for parameter, anywhere in zip(trained, known.tolist(), strict=True):
        if anywhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            total(parameter.grad)


def agreed(value: Value) -> Value:
    """The first process's value, for all."""
    if count() == 1:
        return value
    import torch

    join()
    values = [value]
    torch.distributed.broadcast_object_list(values)
    return values[0]


def wait() -> None:
    """Until all are here."""
    agreed(None)
