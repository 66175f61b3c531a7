"""Training, through TRL: the only module that touches it.

Rows come tokenised (`tokens.example`), so that the loss mask is ours to see and to test.
A method adds a term to the loss through one hook, `penalty(model) -> Tensor`.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from unittest import mock

import torch
from datasets import (
    Dataset,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from torch.utils.data import Sampler, SequentialSampler
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
)
from transformers.utils import logging as hf_logging
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from .data import Preference
from .models import computes_in_bf16, pick_device, set_threads
from .tokens import encode

Penalty = Callable[[PreTrainedModel], torch.Tensor]


class Diverged(RuntimeError):
    """A loss that is no number."""


@dataclass(frozen=True)
class SFTSettings:
    steps: int
    batch_size: int = 32
    accumulate: int = 1  # micro-batches in a step
    learning_rate: float = 1e-3
    schedule: str = "linear"  # or "cosine", "constant"
    warmup_steps: int = 10
    weight_decay: float = 0.0
    clip: float = 1.0  # largest gradient norm
    seed: int = 0


class _Ours:
    """What we change in TRL's trainers: rows come tokenised and in the order we drew them, and a
    penalty may be added.
    """

    penalty: Penalty | None = None
    penalty_share = 1.0  # what one micro-batch adds of it

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        return SequentialSampler(dataset or self.train_dataset)

    def _prepare_dataset(self, dataset: Dataset, *args: object, **kwargs: object) -> Dataset:
        return dataset

    def compute_loss(
        self, model: PreTrainedModel, inputs: dict, *args: object, **kwargs: object
    ) -> torch.Tensor:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss if self.penalty is None else loss + self.penalty_share * self.penalty(model)


class _OwnLoss(SFTTrainer):
    """On a CPU the model's own loss: TRL's works out every token's entropy as well, which nobody
    reads and costs a quarter more there. On a GPU TRL's, which never holds all logits of a large
    vocabulary at once.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self.args.device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return Trainer.compute_loss(
            self, model, {**inputs, "use_cache": False}, return_outputs, num_items_in_batch
        )


class _SFT(_Ours, _OwnLoss):
    pass


class _DPO(_Ours, DPOTrainer):
    pass


class _Reward(_Ours, RewardTrainer):
    pass


def batches(lengths: Sequence[int], settings: SFTSettings) -> list[int]:
    """Row numbers for all steps: epochs of shuffled rows, those of like length side by side within
    a few batches.

    Padding goes down by about two thirds; every row comes once an epoch.
    """
    if not lengths:
        raise ValueError("no rows to train on: all were dropped or the list is empty")
    draw = torch.Generator().manual_seed(settings.seed)
    need, size, order = (
        settings.steps * settings.batch_size * settings.accumulate,
        settings.batch_size,
        [],
    )
    while len(order) < need:
        epoch = torch.randperm(len(lengths), generator=draw).tolist()
        pools = [
            sorted(epoch[i : i + 8 * size], key=lengths.__getitem__)
            for i in range(0, len(epoch), 8 * size)
        ]
        whole = [p[i : i + size] for p in pools for i in range(0, len(p), size)]
        order += [
            row for k in torch.randperm(len(whole), generator=draw).tolist() for row in whole[k]
        ]
    return order[:need]


def sft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, list[int]]],
    settings: SFTSettings,
    *,
    penalty: Penalty | None = None,
    progress: str | None = None,
) -> list[float]:
    """Fine-tune `model` in place on rows from `example`. Returns the loss of each step (nats per
    token). Raises Diverged, as all trainers here do, if one is no number.

    TRL normalises this loss by the tokens of a whole step, so the penalty is shared out over its
    micro-batches.
    """
    config = SFTConfig(**_shared(settings, model))
    ordered = [rows[i] for i in batches(_lengths(rows), settings)]
    return _train(
        _SFT,
        config,
        model,
        tokenizer,
        ordered,
        settings,
        penalty,
        1 / settings.accumulate,
        progress,
    )


def sft_in_turns(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    groups: Mapping[str, Sequence[dict[str, list[int]]]],
    settings: SFTSettings,
    *,
    turn: Callable[[str], None],
    rates: Sequence[tuple[list[torch.nn.Parameter], float]] = (),
    progress: str | None = None,
) -> list[float]:
    """`sft` on groups of rows that take turns, a step each; before a step `turn` is told whose it
    is. Returns the loss of each step.

    `rates`: which parameters learn, and how fast, in place of everything at the settings' rate.
    """
    size, names = settings.batch_size * settings.accumulate, list(groups)
    drawn = {
        name: iter([rows[i] for i in batches(_lengths(rows), settings)])
        for name, rows in groups.items()
    }
    whose = [names[step % len(names)] for step in range(settings.steps)]
    ordered = [row for name in whose for row in islice(drawn[name], size)]
    config = SFTConfig(**_shared(settings, model))
    return _train(
        _SFT,
        config,
        model,
        tokenizer,
        ordered,
        settings,
        None,
        1.0,
        progress,
        _Turns(whose, turn),
        rates=rates,
    )


def dpo(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Preference],
    settings: SFTSettings,
    *,
    beta: float = 0.1,
    penalty: Penalty | None = None,
    progress: str | None = None,
) -> list[float]:
    """Direct preference optimisation of `model` in place; the reference is the model as it comes
    in. Returns the losses.

    The reference's log-probabilities are computed before the first step: with `ref_model=None`
    alone TRL would reload the base from disk, whatever has been trained since.
    """
    rows = [_pair(tokenizer, p) for p in pairs]
    lengths = [
        len(r["prompt_ids"]) + max(len(r["chosen_ids"]), len(r["rejected_ids"])) for r in rows
    ]
    config = DPOConfig(beta=beta, precompute_ref_log_probs=True, **_shared(settings, model))
    ordered = [rows[i] for i in batches(lengths, settings)]
    return _train(_DPO, config, model, tokenizer, ordered, settings, penalty, 1.0, progress)


def reward_model(
    base: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Preference],
    settings: SFTSettings,
    *,
    progress: str | None = None,
) -> PreTrainedModel:
    """A model that gives a text one number, made of a base model (folder or hub id) with a new
    head.

    Loss: -log sigmoid(chosen - rejected), after Bradley and Terry. `models.rewards` asks it.
    """
    torch.manual_seed(settings.seed)  # of the head
    hf_logging.set_verbosity_error()
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, dtype=torch.float32, use_safetensors=True
    ).to(pick_device())
    rows = [
        {k: p["prompt_ids"] + p[k] for k in ("chosen_ids", "rejected_ids")}
        for p in (_pair(tokenizer, pair) for pair in pairs)
    ]
    ordered = [rows[i] for i in batches([max(map(len, r.values())) for r in rows], settings)]
    _train(
        _Reward,
        RewardConfig(**_shared(settings, model)),
        model,
        tokenizer,
        ordered,
        settings,
        None,
        1.0,
        progress,
    )
    return model


def _pair(tokenizer: PreTrainedTokenizerBase, pair: Preference) -> dict[str, list[int]]:
    ends = {
        f"{k}_ids": tokenizer(t, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        for k, t in (("chosen", pair.chosen), ("rejected", pair.rejected))
    }
    return {"prompt_ids": encode(tokenizer, pair.prompt), **ends}


def _lengths(rows: Sequence[dict[str, list[int]]]) -> list[int]:
    return [len(r["input_ids"]) for r in rows]


def _train(
    kind,
    config,
    model,
    tokenizer,
    ordered,
    settings,
    penalty,
    penalty_share,
    progress,
    *more: TrainerCallback,
    rates=(),
) -> list[float]:
    """Train on rows in the order they come in, those of all steps one behind the other."""
    set_threads()
    groups = [{"params": some, "lr": rate} for some, rate in rates if some]
    own = (
        torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)
        if groups
        else None
    )  # as the trainer's, but for the rates
    hf_logging.set_verbosity_error()
    losses = _Losses(settings.steps, progress)
    data = Dataset.from_list(ordered)
    with tempfile.TemporaryDirectory() as folder:
        config.output_dir = folder
        with _no_other_bars():
            given = dict(train_dataset=data, callbacks=[losses, *more], optimizers=(own, None))
            trainer = kind(model=model, args=config, processing_class=tokenizer, **given)
            trainer.penalty, trainer.penalty_share = penalty, penalty_share
            trainer.remove_callback(PrinterCallback)
            trainer.train()
    _unwrapped(model).eval()
    return losses.values


def _unwrapped(model: PreTrainedModel) -> PreTrainedModel:
    """The model without the forward that trainers have put before its own: a copy of the model
    would go on calling the original's.
    """
    for part in (model, model.get_base_model() if hasattr(model, "get_base_model") else model):
        for name in ("forward", "_original_forward"):
            vars(part).pop(name, None)
    return model


@contextmanager
def _no_other_bars() -> Iterator[None]:
    """Ours shows the steps; TRL's and datasets' own show what nobody asked for."""
    silent = are_progress_bars_disabled()
    with mock.patch.dict(os.environ, TQDM_DISABLE="1"):
        disable_progress_bars()
        try:
            yield
        finally:
            if not silent:
                enable_progress_bars()


def _shared(settings: SFTSettings, model: PreTrainedModel) -> dict[str, object]:
    on_cpu = model.device.type == "cpu"
    return dict(
        output_dir="unused",
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        seed=settings.seed,
        use_cpu=on_cpu,
        bf16=computes_in_bf16(model.device),
        activation_checkpointing=False,
        optim="adamw_torch_fused",
        max_length=None,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=not on_cpu,
    )


class _Turns(TrainerCallback):
    """Tells before each step whose turn it is."""

    def __init__(self, whose: Sequence[str], turn: Callable[[str], None]) -> None:
        self.whose, self.turn = whose, turn

    def on_step_begin(self, args, state, control, **kwargs):
        self.turn(self.whose[state.global_step])


class _Losses(TrainerCallback):
    """Keeps every step's loss and shows it in a bar."""

    def __init__(self, steps: int, progress: str | None) -> None:
        from tqdm import tqdm

        self.values: list[float] = []
        self.bar = tqdm(total=steps, desc=progress, disable=progress is None, mininterval=1)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            if not math.isfinite(logs["loss"]):
                raise Diverged(
                    f"step {state.global_step} of {args.max_steps}: the loss is "
                    f"{logs['loss']}; lower the learning rate"
                )
            self.values.append(logs["loss"])
            self.bar.update()
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()
