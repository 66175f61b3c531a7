"""Experiments of lesson 05 on the controls: size, order, start, and several axes at once."""

from __future__ import annotations

from itertools import product

from alignlib.controls import ATTENTION, Mix
from alignlib.data import Instruction, Preference
from alignlib.meet import Meet
from alignlib.settings import ControlSettings
from alignlib.styles import texts_by_control
from alignlib.tinytown import sets
from alignlib.tinytown.boards import Board
from alignlib.tinytown.oracle import ANSWER_CUE

from . import meet_methods
from .common import JUDGE, means
from .meet import KINDS, ONE_TOKEN, SAMPLED, tuned
from .meet_methods import under_control

TARGETS = {  # the matrices that LoRA adapts
    "all": {},
    "attention": {"targets": ATTENTION},
    "values of two layers": {"targets": ("v_proj",), "layers": (2, 3)},
}


def cell(kind: str, **changes: object) -> dict[str, object]:
    """A control as a cell's parameters: that of the comparison of methods, with changes."""
    return {
        "kind": kind,
        "size": KINDS[f"meet, {kind}"].size,
        "targets": "all",
        "start": "vocabulary",
        "arm": "both steps",
    } | changes


BOTH_STEPS = {kind: cell(kind) for kind in ("prompt", "lora")}
SIZES = (
    *(cell("prompt", size=n) for n in (1, 5, 20, 50, 100)),
    cell("lora", size=1, targets="values of two layers"),
    cell("lora", size=1, targets="attention"),
    cell("lora", size=2),
    cell("lora"),
)
ARMS = (  # untrained LoRA controls change nothing, so step 2 is not run on them alone
    *(cell(kind, arm=arm) for kind in ("prompt", "lora") for arm in ("step 1 alone", "joint")),
    cell("prompt", arm="step 2 alone"),
    cell("prompt", arm="no pairs"),
)
FASTER = tuple(cell("prompt", size=n, arm="faster model") for n in (1, 20, 100))
STARTS = tuple(cell("prompt", start=start) for start in ("random", "text", "unit"))
STARTING_TEXT = (("good", "a polite right complete answer"), ("bad", "a rude wrong short answer"))
DIAL = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5)


def which_control(params: dict, seed: int) -> dict[str, float]:
    """MEET on questions with one control: its good and bad end; for the usual ones, mixtures."""
    model = _train(params, seed)
    test = meet_methods.pairs("qa", meet_methods.NUM_PROMPTS, "test")
    prompts, chosen = [p.prompt for p in test], [p.chosen for p in test]

    def metrics_under(control: object, temperature: float, suffix: str) -> dict[str, float]:
        texts = under_control(model, control)(prompts, temperature, seed)
        return means(meet_methods.scores("qa", test, texts), suffix)

    difference = model.logprob(prompts, chosen, "good") - model.logprob(prompts, chosen, "bad")
    metrics = {"share": model.control_share, "good_minus_bad_logprob": float(difference.mean())}
    for end, temperature in product(("good", "bad"), (0.0, SAMPLED)):
        metrics |= metrics_under(end, temperature, f"_{temperature:g}_{end}")
    if params in BOTH_STEPS.values():
        for weight in DIAL:
            mixture = Mix(good=weight, bad=1 - weight)
            metrics |= metrics_under(mixture, SAMPLED, f"_at_{weight:g}")
    return metrics


def _train(params: dict, seed: int) -> Meet:
    """MEET in both steps, or by an arm.

    One step alone takes all the steps (in step 2 alone, the controls keep their start); `joint`
    trains both from the start; `no pairs` has as many texts of each kind, to different questions;
    `faster model` has three times the learning rate, to tell size from the rates tuned for it.
    """
    kind, arm = params["kind"], params["arm"]
    targets = TARGETS[params["targets"]]
    control = ControlSettings(
        kind, params["size"], start=params["start"], texts=STARTING_TEXT, **targets
    )
    num_pairs = meet_methods.NUM_PAIRS
    rows = texts_by_control(meet_methods.pairs("qa", num_pairs))
    if arm == "no pairs":
        rows["bad"] = texts_by_control(meet_methods.pairs("qa", num_pairs, seed=30))["bad"]
    rates = tuned(f"meet, {kind}")
    if arm == "faster model":
        rates = rates | {"rate": 3 * rates["rate"]}
    control_steps = {"step 1 alone": meet_methods.STEPS, "step 2 alone": 0, "joint": 0}.get(arm)
    options = {"control_steps": control_steps, "freeze_controls": arm == "step 2 alone"}
    return meet_methods.train_meet(rows, seed, control, **rates, **options)


def axis_controls() -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The controls to ask for: one end of one axis, and one end of every axis at once."""
    single = [(f"{axis}{end}",) for axis in sets.AXES for end in "+-"]
    combined = [
        tuple(f"{axis}{end}" for axis, end in zip(sets.AXES, ends))
        for ends in product("+-", repeat=3)
    ]
    return single, combined


def several_axes(params: dict, seed: int) -> dict[str, float]:
    """Three axes, a control for each end of each, asked for one by one and all at once.

    The boards have room on all axes: more detail than was asked for. `most` is the effect that
    perfect answers would have.
    """
    rows: dict[str, list[Instruction]] = {}
    for axis in sets.AXES:
        pairs = meet_methods.pairs("qa", meet_methods.NUM_PAIRS // 3, seed=10, axis=axis)
        rows |= texts_by_control(pairs, f"{axis}+", f"{axis}-")
    method = params["method"]
    control, control_steps = (ONE_TOKEN, 0) if method == "one token" else (KINDS[method], None)
    model = meet_methods.train_meet(
        rows, seed, control, **tuned(method), control_steps=control_steps
    )
    boards = [Board.parse(p.prompt) for p in _test_pairs("detail")]
    prompts = [f"{board}{ANSWER_CUE}" for board in boards]
    metrics = {f"most/{axis}": _largest_effect(axis) for axis in sets.AXES}
    single, combined = axis_controls()
    for control in (None, *single, *combined):
        texts = under_control(model, control)(prompts, 0.0, seed)
        scores = {
            axis: [sets.axis_score(board, text, axis) for board, text in zip(boards, texts)]
            for axis in sets.AXES
        }
        scores["sound"] = JUDGE.scores([str(board) for board in boards], texts)["fault_free"]
        metrics |= means(scores, f"/{' '.join(control or ('none',))}")
    return metrics


def _test_pairs(axis: str) -> list[Preference]:
    return sets.preferences(meet_methods.NUM_PROMPTS, "test", axis=axis, seed=10)


def _largest_effect(axis: str) -> float:
    """The mean difference of the axis between chosen and rejected texts."""
    effect, pairs = 0.0, _test_pairs(axis)
    for p in pairs:
        board = Board.parse(p.prompt)
        chosen, rejected = (sets.axis_score(board, t, axis) for t in (p.chosen, p.rejected))
        effect += (chosen - rejected) / len(pairs)
    return effect
