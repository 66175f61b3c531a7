"""Supervised fine-tuning, DPO and reward models.

Rows come tokenised (`tokens.example`), so that the loss mask is ours to see and to test. Which rows
make up a step is ours too (`batching.batches`). A method adds a term to the loss through one hook,
`penalty(model) -> Tensor`. The trainers are TRL's (`trainers.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from . import processes
from .batching import TOKENS, batches, by_tokens
from .data import Preference
from .devices import autocast, own_random_state, pick_device
from .likelihood import row_nll
from .prompts import AS_IS
from .settings import SFTSettings
from .tokens import IGNORED, UNBOUNDED, context_length, end_id, judged_ids, prompt_ids, text_ids
from .trainer_tools import Diverged, Row, Turns, quiet, row_tokens
from .trainers import Penalty, Rates, run_trainer

__all__ = ["Diverged", "Penalty", "dpo", "reward_model", "sft", "sft_in_turns"]


KINDS = ("chosen", "rejected")


def sft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    settings: SFTSettings,
    *,
    penalty: Penalty | None = None,
    progress: str | None = None,
    checkpoints: str | Path | None = None,
) -> list[float]:
    """Fine-tune `model` in place on rows from `tokens.example`.

    Returns the loss of each step: nats per token, averaged over all tokens of the step, plus the
    penalty. `checkpoints`: a folder from which the same training goes on if it was stopped. Raises
    Diverged, as all trainers here do, if a loss or a weight is not finite.
    """
    order = batches(_lengths(rows), settings)
    given = {"penalty": penalty, "progress": progress, "checkpoints": checkpoints}
    return run_trainer("sft", model, tokenizer, rows, order, settings, **given)


def sft_in_turns(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    groups: Mapping[str, Sequence[Row]],
    settings: SFTSettings,
    *,
    turn: Callable[[str], None],
    rates: Rates = (),
    progress: str | None = None,
    checkpoints: str | Path | None = None,
) -> list[float]:
    """`sft` on groups of rows that take turns, one step each. Returns the loss of each step.

    Before a step `turn` is called with the name of its group. `rates`: which parameters learn and
    at which rate, in place of all of them at the settings' rate.
    """
    rows, drawn = [], {}
    for name, some in groups.items():
        drawn[name] = iter([len(rows) + i for i in batches(_lengths(some), settings)])
        rows += some
    names, size = list(groups), settings.batch_size * settings.accumulate
    turns = [names[step % len(names)] for step in range(settings.steps)]
    order = [row for name in turns for row in islice(drawn[name], size)]
    given = {"progress": progress, "checkpoints": checkpoints}
    given |= {"rates": rates, "callbacks": [Turns(turns, turn)]}
    return run_trainer("sft", model, tokenizer, rows, order, settings, **given)


def dpo(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Preference],
    settings: SFTSettings,
    *,
    beta: float = 0.1,
    form: str = AS_IS,
    penalty: Penalty | None = None,
    progress: str | None = None,
) -> list[float]:
    """Direct preference optimisation of `model` in place. Returns the loss of each step.

    `form` is that of the prompts (`prompts.py`).

    The reference is the model as it comes in, adapter included: its log-probabilities of the pairs
    that will be seen are computed before the first step.
    """
    rows = [_pair(tokenizer, pair, form) for pair in pairs]
    longest = [max(len(r["chosen_ids"]), len(r["rejected_ids"])) for r in rows]
    order = batches([len(r["prompt_ids"]) + n for r, n in zip(rows, longest)], settings)
    # no more tokens at once than in a step, so that this does not need more memory than training
    in_a_step = settings.tokens or settings.batch_size * max(map(row_tokens, rows))
    rows = with_reference(model, tokenizer, rows, set(order), min(TOKENS, in_a_step))
    given = {"penalty": penalty, "progress": progress}
    method = {"beta": beta, "precompute_ref_log_probs": True}
    return run_trainer("dpo", model, tokenizer, rows, order, settings, **given, **method)


@torch.no_grad()
def with_reference(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    seen: set[int],
    tokens: int = TOKENS,
) -> list[Row]:
    """The pairs (tokenised) with the model's log-probability of both sides, in nats.

    It is worked out for the row numbers in `seen`, and 0 for the others. At most so many `tokens`
    are read at once.
    """
    sides = [(i, kind) for i in sorted(seen) for kind in KINDS]
    texts = [_as_example(rows[i]["prompt_ids"], rows[i][f"{kind}_ids"]) for i, kind in sides]
    found = [dict.fromkeys((f"ref_{kind}_logps" for kind in KINDS), 0.0) for _ in rows]
    model.eval()
    logprobs = torch.zeros(len(sides), device=model.device)
    for picked in processes.mine(by_tokens(_lengths(texts), tokens)):
        with autocast(model.device):
            nll = row_nll(model, [texts[k] for k in picked], tokenizer.pad_token_id)
        logprobs[picked] = -nll.float()
    for (i, kind), value in zip(sides, processes.total(logprobs).tolist(), strict=True):
        found[i][f"ref_{kind}_logps"] = value
    return [row | reference for row, reference in zip(rows, found, strict=True)]


def _as_example(prompt: list[int], completion: list[int]) -> Row:
    """A row as `tokens.example` makes it, of ids."""
    return {"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion}


def reward_model(
    base: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Preference],
    settings: SFTSettings,
    *,
    progress: str | None = None,
) -> PreTrainedModel:
    """A model that gives a text one number: the base (folder or hub id) with a new head, trained.

    What is too long for it loses the front of its prompt. Loss: -log sigmoid(chosen - rejected),
    after Bradley and Terry. `reward_models.rewards` asks it.
    """
    processes.refuse("a reward model")
    with own_random_state(), quiet():
        torch.manual_seed(settings.seed)  # of the head
        model = AutoModelForSequenceClassification.from_pretrained(
            base,
            num_labels=1,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
        )
    model.to(pick_device(model.num_parameters()))
    longest = min(context_length(model), settings.max_length or UNBOUNDED)
    rows = [
        {
            f"{kind}_ids": judged_ids(tokenizer, p.prompt, getattr(p, kind), longest)
            for kind in KINDS
        }
        for p in pairs
    ]
    order = batches([max(map(len, r.values())) for r in rows], settings)
    before, given = tokenizer.pad_token, {"progress": progress, "pad_token": _padding(tokenizer)}
    try:
        run_trainer("reward", model, tokenizer, rows, order, settings, **given)
    finally:
        tokenizer.pad_token = before  # TRL sets it too
    return model


def _padding(tokenizer: PreTrainedTokenizerBase) -> str:
    """A token to pad with that is not EOS: the model reads the last token that is not padding."""
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return tokenizer.pad_token
    return tokenizer.convert_ids_to_tokens(int(tokenizer.eos_token_id == 0))


def _pair(tokenizer: PreTrainedTokenizerBase, pair: Preference, form: str) -> Row:
    end, sides = [end_id(tokenizer, form)], zip(KINDS, (pair.chosen, pair.rejected))
    completions = {f"{kind}_ids": text_ids(tokenizer, text) + end for kind, text in sides}
    return {"prompt_ids": prompt_ids(tokenizer, pair.prompt, form)} | completions


def _lengths(rows: Sequence[Row]) -> list[int]:
    return [len(r["input_ids"]) for r in rows]
