"""TRL's trainers as we use them: the only module that touches TRL.

Three things are ours: which rows make up a step, a penalty that is added to its loss, and that a
training leaves the model, the random state and the process as it found them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

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

from .batching import by_tokens
from .checkpoints import last_checkpoint, steps_done, work_folder
from .devices import compute_dtype, own_random_state, set_threads
from .likelihood import token_nll
from .settings import SFTSettings, default_rate
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
SAVES = 10  # checkpoints in a training
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
    checkpoints: str | Path | None = None,
    **config: object,
) -> list[float]:
    """Train `model` in place, `batch_size * accumulate` rows of `order` a step; the losses.

    `checkpoints`: a folder that keeps a stopped training. `config`: more for TRL. Raises Diverged.
    """
    if not order:
        return []
    set_threads()
    losses = _Losses(settings.steps, progress)
    about = [kind, rows, order, astuple(settings), penalty is not None]
    with (
        work_folder(checkpoints, about, model) as place,
        own_random_state(),
        _quiet_and_tidy(model, losses),
    ):
        config |= _arguments(settings, model) | {"output_dir": str(place)}
        config["save_strategy"] = "no" if checkpoints is None else "steps"
        optimizers = _optimizer(settings, rates), None
        given = {"callbacks": [losses, *callbacks], "optimizers": optimizers}
        trainer = _trainer(kind, model, tokenizer, rows, config, **given)
        steps = cut_into_steps(order, settings, list(map(_tokens, rows)))
        last = last_checkpoint(place)
        trainer.steps, trainer.penalty = steps[steps_done(last) :], penalty
        trainer.train(resume_from_checkpoint=last)
    _check_weights(model)
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def _trainer(
    kind: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    config: dict[str, object],
    **given: object,
) -> _Stepwise:
    """TRL's trainer of that kind, with our steps."""
    trainer_of, config_of = TRAINERS[kind]
    data = {"train_dataset": Dataset.from_list(list(rows)), "processing_class": tokenizer}
    arguments = config_of(**config)
    arguments._n_gpu = min(1, arguments.n_gpu)  # TRL refuses several outside a launcher
    return trainer_of(model=model, args=arguments, **data, **given)


@contextmanager
def _quiet_and_tidy(model: PreTrainedModel, losses: _Losses) -> Iterator[None]:
    """Whatever ends a training, the model is as it came in, and the bar is closed."""
    with quiet():
        try:
            yield
        finally:
            losses.bar.close()
            checkpointing_off(_unwrap(model))
            model.eval()


def _tokens(row: Row) -> int:
    """How many tokens a row brings into a batch, not counting padding."""
    ends = [len(ids) for key, ids in row.items() if key in ("chosen_ids", "rejected_ids")]
    start = len(row.get("prompt_ids", row.get("input_ids", [])))
    return 2 * (start + max(ends)) if ends else start


def checkpointing_off(model: PreTrainedModel) -> None:
    """Undo what TRL does to a model for `settings.checkpointing`."""
    if is_checkpointing(model):
        model.gradient_checkpointing_disable()
        model.disable_input_require_grads()


def is_checkpointing(model: PreTrainedModel) -> bool:
    """Whether a model checkpoints activations; transformers 5.23 renamed the attribute."""
    renamed = getattr(model, "is_activation_checkpointing", None)
    return model.is_gradient_checkpointing if renamed is None else renamed


def _check_weights(model: PreTrainedModel) -> None:
    """The last step may leave weights that no loss has shown yet."""
    if not all(p.isfinite().all() for p in model.parameters() if p.requires_grad):
        raise Diverged("the last step left weights that are not finite; lower the learning rate")


def cut_into_steps(
    order: Sequence[int], settings: SFTSettings, lengths: Sequence[int]
) -> list[Step]:
    """The micro-batches of each step; with `settings.tokens` as many as these need."""
    size, n = settings.batch_size, settings.accumulate
    steps = []
    for start in range(0, len(order), size * n):
        picked = order[start : start + size * n]
        if settings.tokens:
            cut = by_tokens([lengths[i] for i in picked], settings.tokens)
            steps.append([[picked[k] for k in micro_batch] for micro_batch in cut])
        else:
            steps.append([list(picked[i : i + size]) for i in range(0, len(picked), size)])
    return steps


def _optimizer(settings: SFTSettings, rates: Rates) -> torch.optim.Optimizer | None:
    """The trainer's own, but for the rates; None leaves it to the trainer."""
    groups = [{"params": some, "lr": rate} for some, rate in rates if some]
    if not groups:
        return None
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)


def learning_rate(settings: SFTSettings, model: PreTrainedModel) -> float:
    """The rate of the settings, or the default for a model of this size."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    return default_rate(model.num_parameters(), lora=hasattr(model, "peft_config"))


def _arguments(settings: SFTSettings, model: PreTrainedModel) -> dict[str, object]:
    """The settings in TRL's words. A step is one batch to it: we cut it ourselves."""
    on_cpu, dtype = model.device.type == "cpu", compute_dtype(model.device)
    return {
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size,
        "learning_rate": learning_rate(settings, model),
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.clip,
        "seed": settings.seed,
        "use_cpu": on_cpu,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,  # with a scaler of the loss
        CHECKPOINTING: settings.checkpointing,
        "optim": "adamw_torch_fused",
        "max_length": None,
        "save_steps": max(1, settings.steps // SAVES),
        "save_total_limit": 1,
        "ignore_data_skip": True,  # steps done before are cut off by us
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
    """Shows every step's loss in a bar, and stops at one that is not finite."""

    def __init__(self, steps: int, progress: str | None) -> None:
        self.bar = tqdm(total=steps, desc=progress, disable=progress is None, mininterval=1)

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
