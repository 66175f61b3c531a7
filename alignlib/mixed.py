"""The mixed loss: both of HBAT's objectives in every step, with neither stages nor a penalty.

    L  =  L_preferences  +  weight * L_instructions

Plain fine-tuning on instructions comes first, for as many steps as instructions have more than
preferences; so both objectives get as many batches as in stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from .batching import batches
from .data import Instruction, Preference
from .devices import autocast
from .likelihood import row_nll
from .models import add_lora, ends_with, load_model
from .ppo import train_ppo
from .prompts import AS_IS
from .settings import SFTSettings, with_steps
from .stages import DPO, PPO, LoadedModel, examples, num_steps, usable
from .tokens import IGNORED, end_id
from .train import Penalty, dpo, sft


def train_mixed(
    base: str | Path,
    instructions: Sequence[Instruction],
    preferences: Sequence[Preference],
    teach: SFTSettings,
    prefer: DPO | PPO,
    *,
    weight: float,
    lora_rank: int = 0,
    form: str = AS_IS,
    progress: bool = True,
) -> LoadedModel:
    """Train on both objectives at once; the model, with its adapter if any, and its tokenizer.

    Every step on preferences has the loss of `teach.batch_size` instructions too, times `weight`.
    Raises ValueError for rows that cannot be used, and Diverged.
    """
    model, tokenizer = load_model(base)
    ends_with(model, tokenizer, end_id(tokenizer, form))
    model = add_lora(model, lora_rank, teach.seed)
    kept, _ = usable(instructions, model, tokenizer, teach, form)
    pairs, _ = usable(preferences, model, tokenizer, prefer, form)
    rows = [one for row in kept for one in examples(row, tokenizer, form)]
    steps = num_steps(prefer)
    first = with_steps(teach, max(0, teach.steps - steps))  # with a warm-up as stages have it
    sft(model, tokenizer, rows, first, progress="instructions" if progress else None)
    size = max(1, teach.batch_size // updates(prefer))
    drawn = replace(teach, steps=steps * updates(prefer))
    loss = instruction_loss(rows, tokenizer.pad_token_id, drawn, weight, size)
    options = {"form": form, "penalty": loss, "progress": "both" if progress else None}
    if isinstance(prefer, PPO):
        prompts = [pair.prompt for pair in pairs]
        train_ppo(model, tokenizer, prompts, prefer.score, prefer.settings, **options)
    else:
        settings = with_steps(prefer.settings, steps)
        dpo(model, tokenizer, pairs, settings, beta=prefer.beta, **options)
    return model, tokenizer


def updates(prefer: DPO | PPO) -> int:
    """How often a step on preferences updates the model; PPO's steps are its iterations."""
    if isinstance(prefer, DPO):
        return 1
    return prefer.settings.epochs * -(-prefer.settings.batch_size // prefer.settings.minibatch)


def instruction_loss(
    rows: Sequence[dict[str, list[int]]],
    pad: int,
    settings: SFTSettings,
    weight: float,
    batch_size: int,
) -> Penalty:
    """The weighted loss per token of the next rows at every update, for the trainers.

    The settings' steps and batch size say how many rows there are in all.
    """
    drawn = replace(settings, seed=settings.seed + 1, accumulate=1)
    order = iter(batches([len(row["input_ids"]) for row in rows], drawn))

    def loss(policy: PreTrainedModel) -> torch.Tensor:
        batch = [rows[next(order)] for _ in range(batch_size)]
        num_tokens = sum(label != IGNORED for row in batch for label in row["labels"])
        with autocast(policy.device):
            return weight * row_nll(policy, batch, pad).sum() / num_tokens

    return loss
