"""TRL's trainers as we use them: the only module that touches TRL.

Three things are ours: which rows make up a step, a penalty that is added to its loss, and that a
training leaves the model, the random state and the process as it found them.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from datasets import (
    Dataset,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from transformers.utils import logging as hf_logging
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from .likelihood import token_nll
from .models import computes_in_bf16, own_random_state, set_threads
from .settings import SFTSettings
from .tokens import IGNORED

Penalty = Callable[[PreTrainedModel], torch.Tensor]
Row = dict[str, list[int]]
Step = list[list[int]]  # micro-batches of row numbers
# transformers 5.23 renamed the setting; TRL turns it on unless it is told not to
CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in SFTConfig.__dataclass_fields__
)
Rates = Sequence[tuple[list[torch.nn.Parameter], float]]  # which parameters learn, at which rate


class Diverged(RuntimeError):
    """A loss or a weight that is not a finite number."""


class _Stepwise:
    """Steps as we drew them: the micro-batches of a step are one item of the data loader.

    So the penalty is added once per step, and every row or token of a step weighs the same,
    whichever micro-batch it is in.
    """

    steps: Sequence[Step] = ()
    penalty: Penalty | None = None

    def __init__(self, *given: object, **more: object) -> None:
        super().__init__(*given, **more)
        self.remove_callback(PrinterCallback)

    def _prepare_dataset(self, dataset: Dataset, *args: object, **kwargs: object) -> Dataset:
        return dataset  # already tokenised

    def get_train_dataloader(self) -> DataLoader:
        rows = list(self.train_dataset)

        def collate(step: Step) -> list[dict]:
            return [self.data_collator([rows[i] for i in micro_batch]) for micro_batch in step]

        return DataLoader(list(self.steps), batch_size=None, collate_fn=collate)

    def floating_point_ops(self, inputs: object) -> int:
        return 0  # nobody reads it

    def training_step(
        self, model: PreTrainedModel, inputs: list[dict], num_items_in_batch: object = None
    ) -> torch.Tensor:
        model.train()
        total = torch.zeros((), device=self.args.device)
        whole = sum(map(self._size, inputs))
        for k, micro_batch in enumerate(inputs):
            part = self._size(micro_batch) / whole
            with self.compute_loss_context_manager():
                ready = self._prepare_inputs(micro_batch)
                loss = part * self.compute_loss(model, ready)
                if k == 0 and self.penalty is not None:
                    loss = loss + self.penalty(model)
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    @staticmethod
    def _size(micro_batch: dict) -> int:
        """What the mean of a loss is over: rows."""
        return len(micro_batch["input_ids"])


class _SFT(_Stepwise, SFTTrainer):
    """On CUDA the loss is TRL's. Elsewhere it is ours, which is faster there: TRL's works out the
    entropy of every token as well.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self.args.device.type == "cuda":
            return super().compute_loss(model, inputs, return_outputs)
        labels = inputs.pop("labels")
        return sum(nll.sum() for _, nll in token_nll(model, inputs, labels)) / self._count(labels)

    @classmethod
    def _size(cls, micro_batch: dict) -> int:
        """What the mean of the loss is over: tokens with a label."""
        return int(cls._count(micro_batch["labels"]))

    @staticmethod
    def _count(labels: torch.Tensor) -> torch.Tensor:
        return (labels[:, 1:] != IGNORED).sum()


class _DPO(_Stepwise, DPOTrainer):
    pass


class _Reward(_Stepwise, RewardTrainer):
    pass


TRAINERS = {"sft": (_SFT, SFTConfig), "dpo": (_DPO, DPOConfig), "reward": (_Reward, RewardConfig)}


def run_trainer(
    kind: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    order: Sequence[int],
    settings: SFTSettings,
    *,
    penalty: Penalty | None = None,
    progress: str | None = None,
    rates: Rates = (),
    callbacks: Sequence[TrainerCallback] = (),
    **config: object,
) -> list[float]:
    """Train `model` in place on rows in this order, `batch_size * accumulate` of them a step.

    `config`: more for TRL's configuration. Returns each step's loss. Raises Diverged.
    """
    if not order:
        return []
    set_threads()
    losses = _Losses(settings.steps, progress)
    trainer_of, config_of = TRAINERS[kind]
    with tempfile.TemporaryDirectory() as folder, own_random_state(), quiet():
        try:
            trainer = trainer_of(
                model=model,
                args=config_of(output_dir=folder, **_arguments(settings, model), **config),
                processing_class=tokenizer,
                train_dataset=Dataset.from_list(list(rows)),
                callbacks=[losses, *callbacks],
                optimizers=(_optimizer(settings, rates), None),
            )
            trainer.steps, trainer.penalty = _steps(order, settings), penalty
            trainer.train()
        finally:
            losses.bar.close()
            _unwrap(model).eval()
    _check_weights(model)
    return losses.values


def _check_weights(model: PreTrainedModel) -> None:
    """The last step may leave weights that no loss has shown yet."""
    if not all(p.isfinite().all() for p in model.parameters() if p.requires_grad):
        raise Diverged("the last step left weights that are not finite; lower the learning rate")


def _steps(order: Sequence[int], settings: SFTSettings) -> list[Step]:
    size, n = settings.batch_size, settings.accumulate
    micro_batches = [list(order[i : i + size]) for i in range(0, len(order), size)]
    return [micro_batches[i : i + n] for i in range(0, len(micro_batches), n)]


def _optimizer(settings: SFTSettings, rates: Rates) -> torch.optim.Optimizer | None:
    """The trainer's own, but for the rates; None leaves it to the trainer."""
    groups = [{"params": some, "lr": rate} for some, rate in rates if some]
    if not groups:
        return None
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)


def _arguments(settings: SFTSettings, model: PreTrainedModel) -> dict[str, object]:
    """The settings in TRL's words. A step is one batch to it: we cut it ourselves."""
    on_cpu = model.device.type == "cpu"
    return {
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.clip,
        "seed": settings.seed,
        "use_cpu": on_cpu,
        "bf16": computes_in_bf16(model.device),
        CHECKPOINTING: False,
        "optim": "adamw_torch_fused",
        "max_length": None,
        "save_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": not on_cpu,
    }


def _unwrap(model: PreTrainedModel) -> PreTrainedModel:
    """The model without the `forward` that trainers put before its own.

    A copy of the model would go on calling the original's.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    for part in (model, base):
        for name in ("forward", "_original_forward"):
            vars(part).pop(name, None)
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """No bars or remarks but our own; afterwards all is as talkative as it was."""
    bars, verbosity = not are_progress_bars_disabled(), hf_logging.get_verbosity()
    before = os.environ.get("TQDM_DISABLE")
    hf_logging.set_verbosity_error()
    disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            enable_progress_bars()
        os.environ.pop("TQDM_DISABLE")
        if before is not None:
            os.environ["TQDM_DISABLE"] = before


class Turns(TrainerCallback):
    """Says before each step whose turn it is."""

    def __init__(self, turns: Sequence[str], turn: Callable[[str], None]) -> None:
        self.turns, self.turn = turns, turn

    def on_step_begin(self, args, state, control, **kwargs):
        self.turn(self.turns[state.global_step])


class _Losses(TrainerCallback):
    """Keeps every step's loss and shows it in a bar."""

    def __init__(self, steps: int, progress: str | None) -> None:
        self.values: list[float] = []
        self.bar = tqdm(total=steps, desc=progress, disable=progress is None, mininterval=1)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in (logs or {}):
            return
        if not math.isfinite(logs["loss"]):
            step = f"step {state.global_step} of {args.max_steps}"
            raise Diverged(f"{step}: the loss is {logs['loss']}; lower the learning rate")
        self.values.append(logs["loss"])
        self.bar.update()
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
