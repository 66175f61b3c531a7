"""TRL's trainers as we use them: the only module that touches TRL.

Three things are ours: which rows make up a step, a penalty that is added to its loss, and that a
training leaves the model, the random state and the process as it found them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from importlib.util import find_spec
from pathlib import Path

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from . import processes
from .checkpoints import last_checkpoint, steps_done, work_folder
from .devices import compute_dtype, own_random_state, set_threads
from .ewc import Elastic
from .likelihood import token_nll
from .memory import memory_explained
from .settings import SFTSettings, default_rate
from .tokens import IGNORED
from .trainer_tools import (
    Losses,
    Row,
    Step,
    check_weights,
    checkpointing_off,
    cut_into_steps,
    quiet,
    row_tokens,
    unwrap,
)

Penalty = Callable[[PreTrainedModel], torch.Tensor]  # added to a step's loss, once
# transformers 5.23 renamed the setting; TRL turns it on unless it is told not to
CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in SFTConfig.__dataclass_fields__
)
SAVES = 10  # checkpoints in a training
Rates = Sequence[tuple[list[torch.nn.Parameter], float]]  # which parameters learn, at which rate


class _Stepwise:
    """Steps as we drew them: the micro-batches of a step are one item of the data loader.

    So the penalty is added once per step, and every row or token of a step weighs the same,
    whichever micro-batch it is in, and whichever process has it (`processes.py`).
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
        model = self.accelerator.unwrap_model(model)
        model.train()
        total = torch.zeros((), device=self.args.device)
        whole = processes.total(total + sum(map(self._size, inputs)))
        for micro_batch in inputs:
            part = self._size(micro_batch) / whole
            with self.compute_loss_context_manager():
                ready = self._prepare_inputs(micro_batch)
                loss = part * self.compute_loss(model, ready)
            self.accelerator.backward(loss)
            total += loss.detach()
        if self.penalty is not None:
            total += self._penalize(model)
        processes.sum_gradients(model.parameters())
        return processes.total(total)

    def _penalize(self, model: PreTrainedModel) -> torch.Tensor:
        """Add this process's share of the penalty's gradient, scaled as that of the loss is in
        fp16; the share of its value.
        """
        scaler, share = self.accelerator.scaler, 1 / processes.count()
        scale = 1.0 if scaler is None else scaler.get_scale()
        return share * add_penalty(self.penalty, model, share * scale)

    def _has_their_loss(self) -> bool:
        """TRL's loss gathers numbers from all processes, which have not as many micro-batches."""
        return self.args.device.type == "cuda" and processes.count() == 1

    @staticmethod
    def _size(micro_batch: dict) -> int:
        """What the mean of a loss is over: rows."""
        return len(micro_batch["input_ids"])


class _SFT(_Stepwise, SFTTrainer):
    """On one GPU the loss is TRL's. Elsewhere it is ours, which is faster there: TRL's works out
    the entropy of every token as well.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self._has_their_loss():
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
    """The rows bring the reference's log-probabilities, so TRL needs no reference of its own.

    As in `_SFT`, the loss is TRL's on one GPU and ours elsewhere, where TRL's works out the logits
    of every position.
    """

    def __init__(self, *given: object, **more: object) -> None:
        super().__init__(*given, **more)
        _forget_reference(self.model)

    def _precompute_ref_logps(self, dataset: Dataset, *args: object) -> Dataset:
        return dataset

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self._has_their_loss():
            return super().compute_loss(model, inputs, return_outputs)
        is_completion = inputs.pop("completion_mask") == 1
        reference = [inputs.pop(f"ref_{kind}_logps") for kind in ("chosen", "rejected")]
        labels = inputs["input_ids"].masked_fill(~is_completion, IGNORED)
        logprobs = labels.new_zeros(len(labels), dtype=torch.float32)
        for at, nll in token_nll(model, inputs, labels):
            logprobs = logprobs.index_add(0, at.nonzero()[:, 0], -nll)
        chosen, rejected = logprobs.chunk(2)  # the batch holds all chosen, then all rejected
        margin = (chosen - reference[0]) - (rejected - reference[1])
        return -torch.nn.functional.logsigmoid(self.beta * margin).mean()


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
    processes.join()
    losses = Losses(settings.steps, progress)
    groups = [(len(some), rate) for some, rate in rates]
    about = [kind, rows, order, astuple(settings), groups, penalty is not None]
    tidy = _quiet_and_tidy(model, losses)
    with work_folder(checkpoints, about, model) as place, own_random_state(), tidy:
        config |= _arguments(settings, model) | {"output_dir": str(place)}
        config["save_strategy"] = "no" if checkpoints is None else "steps"
        optimizers = _optimizer(settings, rates), None
        given = {"callbacks": [losses, *callbacks], "optimizers": optimizers}
        trainer = _trainer(kind, model, tokenizer, rows, config, **given)
        steps = cut_into_steps(order, settings, list(map(row_tokens, rows)))
        last = processes.agreed(last_checkpoint(place) if processes.is_first() else None)
        trainer.steps, trainer.penalty = steps[steps_done(last) :], penalty
        with memory_explained(settings):
            trainer.train(resume_from_checkpoint=last)
    check_weights(model)
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def add_penalty(penalty: Penalty, model: PreTrainedModel, scale: float = 1.0) -> torch.Tensor:
    """Add `scale` times a penalty's gradient to the model's; the penalty.

    `Elastic` knows its gradient in closed form; that of any other penalty is worked out here.
    """
    if isinstance(penalty, Elastic):
        return penalty.add_gradient(scale)
    value = penalty(model)
    if value.requires_grad:
        (scale * value).backward()
    return value.detach()


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


def _forget_reference(model: PreTrainedModel) -> None:
    """Delete the copy that TRL makes of an adapter for DPO."""
    if "ref" in getattr(model, "peft_config", ()):
        model.delete_adapter("ref")


@contextmanager
def _quiet_and_tidy(model: PreTrainedModel, losses: Losses) -> Iterator[None]:
    """Whatever ends a training, the model is as it came in, and the bar is closed."""
    dropouts = {part: part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)}
    with quiet():
        try:
            yield
        finally:
            losses.bar.close()
            for part, p in dropouts.items():  # TRL's DPO sets them to 0
                part.p = p
            _forget_reference(model)
            checkpointing_off(unwrap(model))
            model.eval()


def _optimizer(settings: SFTSettings, rates: Rates) -> torch.optim.Optimizer | None:
    """The trainer's own, but for the rates; None leaves it to the trainer."""
    if settings.eight_bit and not find_spec("bitsandbytes"):
        fix = "pip install bitsandbytes, or eight_bit=False"
        raise ValueError(f"AdamW in 8 bits needs bitsandbytes, which is not installed; {fix}")
    groups = [{"params": some, "lr": rate} for some, rate in rates if some]
    if not groups:
        return None
    if settings.eight_bit:
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, weight_decay=settings.weight_decay)
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
        "optim": "adamw_8bit" if settings.eight_bit else "adamw_torch_fused",
        "max_length": None,
        "save_steps": max(1, settings.steps // SAVES),
        "save_total_limit": 1,
        "ignore_data_skip": True,  # steps done before are cut off by us
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "log_level_replica": "error",  # of all processes but the first
        "dataloader_pin_memory": not on_cpu,
    }
