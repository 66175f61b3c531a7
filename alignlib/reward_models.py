"""Reward models: a text's worth as one number, learned from preferences (Bradley and Terry 1952).

A reward model reads a dialogue in its tokenizer's chat template; without one it reads prompt and
completion with EOS or, as an encoder, both as a pair. Training one: `train.reward_model`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .batching import by_tokens, pad_left, positions
from .devices import autocast, compute_dtype, pick_device
from .judges import Scores
from .model_files import refusal
from .model_names import expanded
from .models import ModelError, load_tokenizer
from .tokens import context_length, judged_ids

DIGITS = {torch.float32: 4, torch.float16: 2, torch.bfloat16: 1}  # decimals that are not noise


@torch.inference_mode()
def rewards(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    completions: Sequence[str],
) -> torch.Tensor:
    """The reward model's number for each completion of its prompt, shape (n,).

    What is too long for the model loses the front of its prompt.
    """
    longest = min(context_length(model), tokenizer.model_max_length)
    is_encoder = tokenizer.cls_token_id is not None
    pairs = zip(prompts, completions, strict=True)
    rows = [judged_ids(tokenizer, *pair, longest) for pair in pairs]
    found = torch.zeros(len(rows))
    for picked in by_tokens([len(r) for r in rows]):
        some = [rows[i][::-1] if is_encoder else rows[i] for i in picked]
        ids, mask = pad_left(some, model.config.get_text_config().pad_token_id, model.device)
        if is_encoder:  # which reads its first token, so padding is on the right
            ids, mask = ids.flip(1), mask.flip(1)
        given = {"input_ids": ids, "attention_mask": mask}
        if not is_encoder:
            given["position_ids"] = positions(mask)
        elif getattr(model.config, "type_vocab_size", 0) > 1:  # it tells the two texts apart
            ends = (ids == tokenizer.sep_token_id).long()
            given["token_type_ids"] = ((ends.cumsum(1) - ends) > 0).long() * mask
        with autocast(model.device):
            out = model(**given)
        found[picked] = out.logits[:, 0].float().cpu()
    return found


def load_reward_model(name: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A reward model in evaluation mode and its tokenizer, from a folder or, by its id, the hub.

    Raises ModelError for a model without a trained head of one number, or without safetensors.
    """
    name = expanded(name)
    options = {"use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
    try:
        model, about = AutoModelForSequenceClassification.from_pretrained(
            name, dtype=torch.float32, **options
        )
    except Exception as error:
        fix = "give a folder or hub id with a reward model, its weights as safetensors"
        raise refusal(name, "no reward model", error, fix) from error
    if missing := sorted(about["missing_keys"]):
        what = f"not a reward model: its weights lack {missing[0]}"
        raise ModelError(f"{name}: {what}; train one with alignlib.train.reward_model")
    if model.config.num_labels != 1:
        what = f"{model.config.num_labels} numbers for a text, where a reward model has one"
        raise ModelError(f"{name}: {what}; give another")
    tokenizer = load_tokenizer(name)
    config = model.config.get_text_config()
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    return model.to(pick_device(model.num_parameters())).eval(), tokenizer


class RewardJudge:
    """A reward model as judge, `overall` only: a learned preference, not the truth."""

    axes = ("overall",)

    def __init__(self, name: str | Path) -> None:
        self.name = name

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> Scores:
        """The mark of each answer, rounded to what is computed exactly enough to tell apart.

        Each pair of question and answer is scored once, so that equal texts have equal marks.
        """
        model, tokenizer = self._loaded
        pairs = list(zip(questions, answers, strict=True))
        unique = list(dict.fromkeys(pairs))
        marks = rewards(model, tokenizer, *zip(*unique)) if unique else torch.zeros(0)
        digits = DIGITS[compute_dtype(model.device)]
        mark_of = dict(zip(unique, np.round(marks.numpy().astype(float), digits), strict=True))
        return {"overall": np.array([mark_of[pair] for pair in pairs])}

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model and its tokenizer, loaded when the first answer is scored."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*no pad token")
            return load_reward_model(self.name)
