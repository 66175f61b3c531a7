"""HBAT: instructions and preferences in turns, each stage held to what the other has just learned
(arXiv 2406.15178).

Both sets are cut into as many shards as there are rounds. Round i:

    S_i   instructions of shard i, from P_{i-1}   (P_0 is the base)
    P_i   preferences of shard i, from S_i        (DPO, or PPO)

Once the other objective has had a stage, a stage is held, elastically, to the weights that it
starts from, by an importance that is summed over the other's stages: how far each moved a tensor,
or another of IMPORTANCE (`released`: through the released code's softmax). Optimiser and reference
start anew in every stage. Each stage is an artefact, so that a killed run goes on at its stage.

One round without a penalty is the usual two-stage training; `alternate=False` is two-stage training
with HBAT's shards and restarts. All weights are trained, and a stage that is held keeps one copy of
them more than plain training does, by Fisher information two.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .artefacts import artefact
from .data import Instruction, Preference
from .ewc import (
    Elastic,
    Importance,
    copy_weights,
    empirical_fisher,
    movement,
    saturated,
    scale_free,
    sum_importance,
    trainable,
)
from .models import fingerprint, load_model, save_model
from .ppo import Score, train_ppo
from .settings import PPOSettings, SFTSettings
from .tokens import encode, example
from .train import Diverged, Penalty, dpo, sft

Row = TypeVar("Row")
Kind = Literal["instructions", "preferences"]
KINDS: tuple[Kind, Kind] = ("instructions", "preferences")
IMPORTANCE = ("movement", "released", "fisher", "equal", "random", "frozen")
IMPORTANCE_FILE, LOG_FILE = (
    "importance.st",
    "stage.log",
)  # neither is weights or configuration, which tell a model apart
CODE = ("ewc", "hbat", "ppo")  # what decides on a stage, beside how it is trained
FISHER_ROWS = 200  # of a shard, that the Fisher information is estimated on
FROZEN = 0.2  # of the tensors, those that moved most, are not trained at all (`frozen`)


@dataclass(frozen=True)
class DPO:
    """How preferences are learned; the settings' steps are those of all rounds together."""

    settings: SFTSettings
    beta: float = 0.1


@dataclass(frozen=True)
class PPO:
    """Likewise, from the pairs' prompts and a score. In the cache `name` stands for the score:
    change it whenever the score changes.
    """

    settings: PPOSettings
    score: Score
    name: str


@dataclass(frozen=True)
class Stage:
    """One stage of a run. `curve` holds each step's `loss`, by PPO each iteration's log; a
    penalty is part of SFT's and DPO's loss.
    """

    round: int
    kind: Kind
    folder: Path  # the model after it
    curve: list[dict[str, float]]
    penalty: float  # at its end; at its start it is 0
    dropped: int  # rows longer than the model's context
    seconds: float


def shards(rows: Sequence[Row], n: int, seed: int = 0) -> list[list[Row]]:
    """The rows in n disjoint parts, as even as can be, that together are all of them. Raises
    ValueError if there are fewer rows than parts.
    """
    if not 1 <= n <= len(rows):
        raise ValueError(
            f"{len(rows)} rows cannot be cut into {n} shards; give 1 to {len(rows)} rounds"
        )
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    return [shuffled[i::n] for i in range(n)]


def stage_order(rounds: int, alternate: bool = True) -> list[tuple[int, Kind]]:
    """The stages in order: S_1 P_1 S_2 P_2 ..., or without alternation S_1 S_2 ... P_1 P_2 ..."""
    turns = [(i, kind) for i in range(rounds) for kind in KINDS]
    return turns if alternate else sorted(turns, key=lambda turn: KINDS.index(turn[1]))


def run_log(
    stages: Sequence[Stage], measure: Callable[[Path], Mapping[str, float]]
) -> list[dict[str, float | str]]:
    """One row a stage: its round and kind, its loss (the mean over its last fifth; by SFT and
    DPO with the penalty), penalty and seconds, and what `measure` finds in its model's folder:
    how it stands with both aims, say.
    """
    rows: list[dict[str, float | str]] = []
    for stage in stages:
        end = [step["loss"] for step in stage.curve[-max(1, len(stage.curve) // 5) :]]
        row = {
            "round": stage.round + 1,
            "kind": stage.kind,
            "loss": sum(end) / len(end),
            "penalty": stage.penalty,
            "seconds": stage.seconds,
        }
        rows.append(row | dict(measure(stage.folder)))
    return rows


def train_hbat(
    base: str | Path,
    instructions: Sequence[Instruction],
    preferences: Sequence[Preference],
    teach: SFTSettings,
    prefer: DPO | PPO,
    *,
    rounds: int,
    strength: float,
    importance: str = "movement",
    alternate: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> list[Stage]:
    """Train, and return all stages; the last one's folder holds the model. `teach.steps` are those
    of all rounds together; `seed` draws shards and the order of rows, in place of the settings'
    own.

    Raises ValueError for more rounds than rows or steps, or an unknown importance; Diverged, naming
    the stage, if a loss is no number: the stages before it are kept.
    """
    if importance not in IMPORTANCE:
        raise ValueError(f"no importance {importance!r}; there are {', '.join(IMPORTANCE)}")
    length = prefer.settings.iterations if isinstance(prefer, PPO) else prefer.settings.steps
    if rounds > min(teach.steps, length):
        raise ValueError(
            f"{rounds} rounds for {teach.steps} steps of instructions and {length} of "
            "preferences: a stage would have none"
        )
    rows = {
        "instructions": shards(instructions, rounds, seed),
        "preferences": shards(preferences, rounds, seed),
    }
    came, origin, done = base, fingerprint(base), []
    for i, kind in stage_order(rounds, alternate):
        how = _round_method(teach if kind == "instructions" else prefer, i, rounds, seed)
        regularizer = Regularizer(
            strength if any(stage.kind != kind for stage in done) else 0.0,
            importance if strength else "none",
        )
        key = (how.settings, how.name) if isinstance(how, PPO) else how
        label = f"round {i + 1} of {rounds}, {kind}"
        build = partial(
            _stage,
            came=came,
            first=not done,
            kind=kind,
            rows=rows[kind][i],
            how=how,
            regularizer=regularizer,
            progress=label if progress else None,
        )
        try:
            came = artefact(
                "hbat", [origin, [i, kind], rows[kind][i], key, regularizer], build, CODE
            )
        except Diverged as error:
            raise Diverged(f"{label}: {error}; the stages before it are kept") from error
        origin = came.name  # an artefact's name is a digest of all it was made from
        done.append(
            Stage(i, kind, came, **json.loads((came / LOG_FILE).read_text(encoding="utf-8")))
        )
    return done


@dataclass(frozen=True)
class Regularizer:
    """How a stage is held (strength 0: not at all), and what importance it leaves for those that
    follow.
    """

    strength: float
    importance: str


def _round_method(
    how: SFTSettings | DPO | PPO, i: int, rounds: int, seed: int
) -> SFTSettings | DPO | PPO:
    """One round's share of the steps, and of the warm-up, with a seed of its own."""
    if not isinstance(how, SFTSettings):
        return replace(how, settings=_round_settings(how.settings, i, rounds, seed))
    return _round_settings(how, i, rounds, seed)


def _round_settings(
    settings: SFTSettings | PPOSettings, i: int, rounds: int, seed: int
) -> SFTSettings | PPOSettings:
    length = "iterations" if isinstance(settings, PPOSettings) else "steps"
    whole = getattr(settings, length)
    share = whole * (i + 1) // rounds - whole * i // rounds
    risen = (
        {}
        if isinstance(settings, PPOSettings)
        else {"warmup_steps": min(settings.warmup_steps, share // 5)}
    )
    return replace(settings, **{length: share}, **risen, seed=1000 * seed + i)


def _stage(
    folder: Path,
    *,
    came: str | Path,
    first: bool,
    kind: Kind,
    rows: Sequence,
    how: SFTSettings | DPO | PPO,
    regularizer: Regularizer,
    progress: str | None,
) -> None:
    """Train one stage and leave in the folder its model, the importance summed up so far, and
    its log.
    """
    started = time.monotonic()
    model, tokenizer = load_model(came)
    before, penalty = copy_weights(model) if regularizer.importance != "none" else {}, None
    if regularizer.strength:
        important = _read(came, model.device, KINDS[1 - KINDS.index(kind)])
        if regularizer.importance == "frozen":
            _freeze(model, important)
        else:
            important = saturated(important) if regularizer.importance == "released" else important
            penalty = Elastic(
                model, scale_free(important, model), regularizer.strength, anchor=before
            )
        del important
    rows, dropped = _fitting(rows, tokenizer, model.config.max_position_embeddings, how)
    curve = _learn(model, tokenizer, rows, how, penalty, progress)
    model.requires_grad_(True)
    held = 0.0 if penalty is None else float(penalty(model).detach())
    known = {k: {} if first else _read(came, model.device, k) for k in KINDS}
    if regularizer.importance != "none":
        known[kind] = sum_importance(
            known[kind], _importance(regularizer.importance, before, model, tokenizer, rows, how)
        )
    save_model(folder, model, tokenizer)
    save_file(
        {f"{k}/{name}": value.contiguous() for k in KINDS for name, value in known[k].items()},
        folder / IMPORTANCE_FILE,
    )
    told = {
        "curve": curve,
        "penalty": held,
        "dropped": dropped,
        "seconds": round(time.monotonic() - started, 2),
    }
    (folder / LOG_FILE).write_text(json.dumps(told), encoding="utf-8")


def _fitting(
    rows: Sequence, tokenizer: PreTrainedTokenizerBase, context: int, how: SFTSettings | DPO | PPO
) -> tuple[list, int]:
    """The rows whose prompt and longest text (by PPO also what may be said) fit the context, and
    how many do not. Raises ValueError if none does.
    """
    said = how.settings.max_new_tokens if isinstance(how, PPO) else 0

    def longest(r):
        return max(
            len(encode(tokenizer, r.prompt)) + said,
            *(len(example(tokenizer, r.prompt, t)["input_ids"]) for t in _texts(r)),
        )  # noqa: E731

    kept = [r for r in rows if longest(r) <= context]
    if not kept:
        raise ValueError(
            f"none of a stage's {len(rows)} rows fits the model's {context} tokens; shorten "
            "them, or take fewer rounds"
        )
    return kept, len(rows) - len(kept)


def _texts(row: Instruction | Preference) -> tuple[str, ...]:
    return (row.completion,) if isinstance(row, Instruction) else (row.chosen, row.rejected)


def _learn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence,
    how: SFTSettings | DPO | PPO,
    penalty: Penalty | None,
    progress: str | None,
) -> list[dict[str, float]]:
    if isinstance(how, PPO):
        return train_ppo(
            model,
            tokenizer,
            [r.prompt for r in rows],
            how.score,
            how.settings,
            penalty=penalty,
            progress=progress,
        )
    if isinstance(how, DPO):
        losses = dpo(
            model, tokenizer, rows, how.settings, beta=how.beta, penalty=penalty, progress=progress
        )
    else:
        losses = sft(
            model,
            tokenizer,
            [example(tokenizer, r.prompt, r.completion) for r in rows],
            how,
            penalty=penalty,
            progress=progress,
        )
    return [{"loss": loss} for loss in losses]


def _read(folder: str | Path, device: torch.device, kind: Kind) -> Importance:
    """The importance that this kind's stages, up to this folder's, have left."""
    with safe_open(Path(folder) / IMPORTANCE_FILE, "pt", device=str(device)) as kept:
        return {
            name.removeprefix(f"{kind}/"): kept.get_tensor(name)
            for name in kept.keys()
            if name.startswith(f"{kind}/")
        }


def _importance(
    kind: str,
    before: dict[str, torch.Tensor],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence,
    how: SFTSettings | DPO | PPO,
) -> Importance:
    """What a stage leaves. The Fisher information is that of the instructions' completions, or
    of the preferred texts (by PPO too, which has not seen them).
    """
    if kind == "fisher":
        return empirical_fisher(
            model, [example(tokenizer, r.prompt, _texts(r)[0]) for r in rows[:FISHER_ROWS]]
        )
    if kind == "equal":
        return {name: torch.ones((), device=p.device) for name, p in before.items()}
    if kind == "random":
        settings = how if isinstance(how, SFTSettings) else how.settings
        noise = torch.Generator().manual_seed(2 * settings.seed + isinstance(how, SFTSettings))
        return {name: torch.rand((), generator=noise).to(p.device) for name, p in before.items()}
    return movement(before, {name: p.detach() for name, p in trainable(model).items()})


def _freeze(model: PreTrainedModel, importance: Importance) -> None:
    """Do not train the most important tensors."""
    first = sorted(importance, key=lambda name: -float(importance[name]))[
        : max(1, round(FROZEN * len(importance)))
    ]
    for name in first:
        trainable(model)[name].requires_grad_(False)
