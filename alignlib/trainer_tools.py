"""What surrounds a training: its steps, what is shown of it, and leaving all as it was found."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from tqdm import tqdm
from transformers import PreTrainedModel, TrainerCallback
from transformers.utils import logging as hf_logging

from . import processes
from .batching import by_tokens
from .settings import SFTSettings

Row = dict[str, list[int]]
Step = list[list[int]]  # micro-batches of row numbers


class Diverged(RuntimeError):
    """A loss or a weight that is not a finite number."""


def cut_into_steps(
    order: Sequence[int], settings: SFTSettings, lengths: Sequence[int]
) -> list[Step]:
    """This process's micro-batches of each step; with `settings.tokens` as many as it needs."""
    size, n = settings.batch_size, settings.accumulate
    if size * n < processes.count():
        what = f"{processes.count()} processes cannot share the {size * n} rows of a step"
        raise processes.Unsupported(f"{what}; take a larger batch size")
    steps = []
    for start in range(0, len(order), size * n):
        picked = processes.mine(order[start : start + size * n])
        if settings.tokens:
            cut = by_tokens([lengths[i] for i in picked], settings.tokens)
            steps.append([[picked[k] for k in micro_batch] for micro_batch in cut])
        else:
            steps.append([list(picked[i : i + size]) for i in range(0, len(picked), size)])
    return steps


def row_tokens(row: Row) -> int:
    """How many tokens a row brings into a batch, not counting padding."""
    ends = [len(ids) for key, ids in row.items() if key in ("chosen_ids", "rejected_ids")]
    start = len(row.get("prompt_ids", row.get("input_ids", [])))
    return 2 * (start + max(ends)) if ends else start


def check_weights(model: PreTrainedModel) -> None:
    """The last step may leave weights that no loss has shown yet."""
    if not all(p.isfinite().all() for p in model.parameters() if p.requires_grad):
        raise Diverged("the last step left weights that are not finite; lower the learning rate")


def checkpointing_off(model: PreTrainedModel) -> None:
    """Undo what TRL does to a model for `settings.checkpointing`."""
    if is_checkpointing(model):
        model.gradient_checkpointing_disable()
        model.disable_input_require_grads()


def is_checkpointing(model: PreTrainedModel) -> bool:
    """Whether a model checkpoints activations; transformers 5.23 renamed the attribute."""
    renamed = getattr(model, "is_activation_checkpointing", None)
    return model.is_gradient_checkpointing if renamed is None else renamed


def unwrap(model: PreTrainedModel) -> PreTrainedModel:
    """The model without the `forward` that trainers put before its own.

    A copy of the model would go on calling the original's.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    for part in (model, base):
        for name in ("forward", "_original_forward"):
            vars(part).pop(name, None)
    return model


def free_earlier() -> None:
    """Free what earlier trainings left: optimizer and schedule refer to each other, and to the
    weights. TRL's trainers do this as they start.
    """
    gc.collect()


@contextmanager
def quiet() -> Iterator[None]:
    """No bars or remarks but our own; afterwards all is as talkative as it was."""
    bars, verbosity = not are_progress_bars_disabled(), hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    disable_progress_bars()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            enable_progress_bars()


class Turns(TrainerCallback):
    """Says before each step whose turn it is."""

    def __init__(self, turns: Sequence[str], turn: Callable[[str], None]) -> None:
        self.turns, self.turn = turns, turn

    def on_step_begin(self, args, state, control, **kwargs):
        self.turn(self.turns[state.global_step])


class Losses(TrainerCallback):
    """Shows every step's loss in a bar, and stops at one that is not finite."""

    def __init__(self, steps: int, progress: str | None) -> None:
        off = progress is None or not processes.is_first()
        self.bar = tqdm(total=steps, desc=progress, disable=off, mininterval=1)

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar.update(state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in (logs or {}):
            return
        if not math.isfinite(logs["loss"]):
            step = f"step {state.global_step} of {args.max_steps}"
            raise Diverged(f"{step}: the loss is {logs['loss']}; lower the learning rate")
        self.bar.update()
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
