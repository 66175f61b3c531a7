"""Experiments of lesson 05 on the controls themselves: every size, order and start, and several
axes at once.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from alignlib.controls import ATTENTION, Mix
from alignlib.data import Instruction
from alignlib.meet import texts_by_control
from alignlib.settings import ControlSettings
from alignlib.tinytown import sets
from alignlib.tinytown.boards import Board
from alignlib.tinytown.oracle import ANSWER_CUE

from .aligner import JUDGE
from .meet import (
    FIRST,
    KINDS,
    SPEAKS,
    STEPS,
    TESTED,
    N,
    asked_for,
    pairs,
    scores,
    train_meet,
    tuned,
)

TARGETS = {  # the matrices that LoRA works on
    "all": {},
    "attention": {"targets": ATTENTION},
    "values of two layers": {"targets": ("v_proj",), "layers": (2, 3)},
}


def cell(kind: str, **given: object) -> dict[str, object]:
    """A control as a cell's parameters; what is not given is as in the comparison of methods."""
    return {
        "kind": kind,
        "size": KINDS[f"meet, {kind}"].size,
        "targets": "all",
        "start": "vocabulary",
        "arm": "both steps",
    } | given


WHOLE = {kind: cell(kind) for kind in ("prompt", "lora")}
SIZES = (
    *(cell("prompt", size=n) for n in (1, 5, 20, 50, 100)),
    cell("lora", size=1, targets="values of two layers"),
    cell("lora", size=1, targets="attention"),
    cell("lora", size=2),
    cell("lora"),
)
ARMS = (  # a LoRA control as it starts changes nothing: there is no second step with it frozen
    *(cell(kind, arm=arm) for kind in ("prompt", "lora") for arm in ("step 1 alone", "joint")),
    cell("prompt", arm="step 2 alone"),
    cell("prompt", arm="no pairs"),
)
FASTER = tuple(
    cell("prompt", size=n, arm="faster model") for n in (1, 20, 100)
)  # is it size, or the rates that were chosen for twenty tokens?
STARTS = tuple(cell("prompt", start=start) for start in ("random", "text", "unit"))
STARTING_TEXT = (("good", "a polite right complete answer"), ("bad", "a rude wrong short answer"))
DIAL = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5)


def which_control(params: dict, seed: int) -> dict[str, float]:
    """MEET on questions with one control: what the good one and the bad one do on the test, and, of
    the usual controls, what lies between.

    Arms: both steps; one alone, with all the steps (of the second alone the controls stay as they
    were drawn); both trained `joint`; `no pairs`, as many texts of the two kinds, to different
    questions (so to twice as many); and a `faster model`, at three times the rate.
    """
    control = ControlSettings(
        params["kind"],
        params["size"],
        start=params["start"],
        texts=STARTING_TEXT,
        **TARGETS[params["targets"]],
    )
    rows, arm = texts_by_control(pairs("qa", N)), params["arm"]
    if arm == "no pairs":
        rows = {"good": rows["good"], "bad": texts_by_control(pairs("qa", N, seed=30))["bad"]}
    first, rates = (
        {"step 1 alone": STEPS, "step 2 alone": 0, "joint": 0}.get(arm, FIRST),
        tuned(f"meet, {params['kind']}"),
    )
    if arm == "faster model":
        rates = rates | {"rate": 3 * rates["rate"]}
    model = train_meet(
        rows, seed, control, **rates, first=first, freeze_controls=arm == "step 2 alone"
    )
    asked = pairs("qa", TESTED, "test")
    prompts, texts = [p.prompt for p in asked], [p.chosen for p in asked]
    more = model.logprob(prompts, texts, "good") - model.logprob(prompts, texts, "bad")
    metrics = {"share": model.control_share, "good_minus_bad_logprob": float(more.mean())}
    for end, t in product(("good", "bad"), (0.0, SPEAKS)):
        found = scores("qa", asked, asked_for(model, end)(prompts, t, seed))
        metrics |= {f"{metric}_{t:g}_{end}": float(m.mean()) for metric, m in found.items()}
    for w in DIAL if params in WHOLE.values() else ():
        found = scores("qa", asked, asked_for(model, Mix(good=w, bad=1 - w))(prompts, SPEAKS, seed))
        metrics |= {f"{metric}_at_{w:g}": float(m.mean()) for metric, m in found.items()}
    return metrics


def ends() -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Controls of the axes asked for one by one, and all three at once, either end of each."""
    single = [(f"{axis}{end}",) for axis in sets.AXES for end in "+-"]
    return single, [
        tuple(f"{axis}{end}" for axis, end in zip(sets.AXES, each))
        for each in product("+-", repeat=3)
    ]


def several_axes(params: dict, seed: int) -> dict[str, float]:
    """Three axes, a control for each end of each: what is got on every axis when one is asked for,
    and when all three are.

    Boards of the test are those that leave room on all axes: where there is more detail than was
    asked for. `most` is the effect of asking that perfect answers would have.
    """
    rows: dict[str, list[Instruction]] = {}
    for axis in sets.AXES:
        rows |= texts_by_control(pairs("qa", N // 3, seed=10, axis=axis), f"{axis}+", f"{axis}-")
    control, first = (
        (ControlSettings("prompt", 1), 0)
        if params["method"] == "one token"
        else (KINDS[params["method"]], None)
    )
    model = train_meet(rows, seed, control, **tuned(params["method"]), first=first)
    boards = [
        Board.parse(p.prompt) for p in sets.preferences(TESTED, "test", axis="detail", seed=10)
    ]
    prompts, metrics = [f"{board}{ANSWER_CUE}" for board in boards], {}
    for axis in sets.AXES:
        for p in sets.preferences(TESTED, "test", axis=axis, seed=10):
            chosen, rejected = (
                sets.axis_score(Board.parse(p.prompt), text, axis)
                for text in (p.chosen, p.rejected)
            )
            metrics[f"most/{axis}"] = (
                metrics.get(f"most/{axis}", 0.0) + (chosen - rejected) / TESTED
            )
    single, mixed = ends()
    for controls_asked in (None, *single, *mixed):
        texts = asked_for(model, controls_asked)(prompts, 0.0, seed)
        name = " ".join(controls_asked or ("none",))
        metrics |= {
            f"{axis}/{name}": float(
                np.mean([sets.axis_score(b, t, axis) for b, t in zip(boards, texts)])
            )
            for axis in sets.AXES
        }
        metrics[f"sound/{name}"] = float(
            JUDGE.scores([str(board) for board in boards], texts)["fault_free"].mean()
        )
    return metrics
