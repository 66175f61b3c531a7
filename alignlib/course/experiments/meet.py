"""Experiments of lesson 05: MEET and its rivals on two tasks, controls of every size and start, several axes at once.

All methods get the same pairs, and as many texts to learn from: STEPS steps of 32. MEET spends a share of them on its controls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from ...controls import ATTENTION, ControlSettings, Mix
from ...data import Instruction, Preference
from ...meet import Meet, sides
from ...models import generate, load_model
from ...stats import net_win
from ...tinytown import sets
from ...tinytown.boards import Board
from ...tinytown.summaries import judge_summary
from ...tokens import example
from ...train import SFTSettings, dpo, sft
from .aligner import JUDGE, TINY
from .upstreams import mean_words

N, STEPS, TESTED = 1500, 250, 200  # pairs, steps of 32 texts, prompts to answer
FIRST = 75  # of the steps, those with the model frozen
TASKS = ("qa", "summary")
SPEAKS, TEMPERATURES = 1.0, (0.0, 0.4, 0.8, 1.0, 1.2)
KINDS = {"meet, prompt": ControlSettings("prompt", 20), "meet, lora": ControlSettings("lora", 8)}
BETTER, WORSE = "better", "worse"  # the words of a control that is text
SFT_RATE, DPO_RATE = 1e-3, 3e-5
TRIALS: dict[str, tuple] = {  # as many for each method; (controls' learning rate, model's), learning rate, or DPO's beta
    "meet, prompt": ((1e-2, 1e-3), (5e-2, 1e-3), (5e-2, 3e-3)), "meet, lora": ((3e-3, 3e-4), (3e-3, 1e-3), (3e-3, 3e-3)),
    "one token": (1e-3, 3e-3, 6e-3), "hindsight": (1e-3, 3e-3, 6e-3), "sft": (1e-3, 3e-3, 6e-3), "dpo": (0.03, 0.1, 0.3),
}  # fmt: skip

BEST: dict[tuple[str, str], int] = {}  # the trial chosen on validation

Rows = Sequence[Preference] | dict[str, list[Instruction]]
Answers = Callable[[Sequence[str], float, int], list[str]]  # (prompts, temperature, seed)


# --- the two tasks ----------------------------------------------------------------------------------


def pairs(task: str, n: int, split: str = "train", seed: int = 2) -> list[Preference]:
    """Pairs whose prompts end where the answer, or the summary, begins."""
    if task == "summary":
        return sets.preferences(n, split, task="summaries", seed=seed)
    return [replace(p, prompt=f"{p.prompt} answer :") for p in sets.preferences(n, split, seed=seed)]


def marks(task: str, asked: Sequence[Preference], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """`overall` in [0, 1], the judge's mean mark or ROUGE-L, and whether a text is `sound`: without a fault, or the reference itself."""
    if task == "summary":
        scored = [judge_summary(p.chosen, text) for p, text in zip(asked, texts, strict=True)]
        return {"overall": np.array([s["rouge_l"] for s in scored]), "sound": np.array([s["exact"] for s in scored])}
    found = JUDGE.marks([p.prompt.removesuffix(" answer :") for p in asked], texts)
    return {"overall": found["overall"], "sound": found["fault_free"]}


# --- the methods ------------------------------------------------------------------------------------


def settings(steps: int, rate: float, seed: int, batch_size: int = 32) -> SFTSettings:
    return SFTSettings(steps=steps, learning_rate=rate, seed=seed, batch_size=batch_size)


def meet(rows: Rows, rates: tuple[float, float], seed: int, control: ControlSettings, first: int, freeze_controls: bool = False) -> Meet:
    """STEPS steps in all, the `first` of them with the model frozen; of pairs, or of texts by control."""
    texts = rows if isinstance(rows, dict) else sides(rows)
    return Meet.train(
        TINY.base, texts, control=replace(control, seed=seed), first=settings(first, rates[0], seed),
        then=settings(STEPS - first, rates[1], seed), freeze_controls=freeze_controls, progress=False,
    )  # fmt: skip


def asked_for(model: Meet, control: object) -> Answers:
    return lambda prompts, temperature, seed: model.generate(prompts, control, max_new_tokens=90, temperature=temperature, seed=seed)


def speaking(model, tokenizer, before: Callable[[str], str] = str) -> Answers:
    """A model that answers behind what `before` makes of a prompt."""
    return lambda prompts, temperature, seed: generate(
        model, tokenizer, [before(p) for p in prompts], max_new_tokens=90, temperature=temperature, seed=seed
    )


MARKS = ("answer :", "tl;dr")  # that end a prompt


def with_word(prompt: str, word: str) -> tuple[str, str]:
    """The prompt with a word before its last mark ("... ? better answer :"), and word and mark alone."""
    mark = next(m for m in MARKS if prompt.endswith(m))
    return f"{prompt.removesuffix(mark)}{word} {mark}", f"{word} {mark}"


def chained(rows: Sequence[Preference]) -> list[tuple[str, str]]:
    """Four rows a pair, of chain of hindsight: the better text, the better behind the worse, the worse text, the worse behind the better."""
    shown = []
    for p in rows:
        for word, text, other, first in ((BETTER, p.chosen, WORSE, p.rejected), (WORSE, p.rejected, BETTER, p.chosen)):
            prompt, mark = with_word(p.prompt, word)
            shown += [(prompt, text), (f"{with_word(p.prompt, other)[0]} {first} {mark}", text)]
    return shown


def hindsight(rows: Sequence[Preference], rate: float, seed: int) -> Answers:
    """Controls in words, and texts behind one another (Chain of hindsight, arXiv 2302.02676)."""
    model, tokenizer = load_model(TINY.base)
    sft(model, tokenizer, [example(tokenizer, *row) for row in chained(rows)], settings(STEPS, rate, seed))
    return speaking(model, tokenizer, lambda prompt: with_word(prompt, BETTER)[0])


def preferred_only(rows: Sequence[Preference], rate: float, seed: int, steps: int):
    model, tokenizer = load_model(TINY.base)
    sft(model, tokenizer, [example(tokenizer, p.prompt, p.chosen) for p in rows], settings(steps, rate, seed))
    return model, tokenizer


def then_dpo(rows: Sequence[Preference], beta: float, seed: int) -> Answers:
    """The usual recipe: half of the steps on the preferred texts, then DPO on the pairs, half as many pairs a step as others have texts."""
    model, tokenizer = preferred_only(rows, SFT_RATE, seed, STEPS // 2)
    dpo(model, tokenizer, rows, settings(STEPS - STEPS // 2, DPO_RATE, seed, 16), beta=beta)
    return speaking(model, tokenizer)


METHODS: dict[str, Callable[[Sequence[Preference], object, int], Answers]] = {
    **{name: lambda rows, rates, seed, name=name: asked_for(meet(rows, rates, seed, KINDS[name], FIRST), "good") for name in KINDS},
    "one token": lambda rows, rate, seed: asked_for(meet(rows, (rate, rate), seed, ControlSettings("prompt", 1), first=0), "good"),
    "hindsight": hindsight,
    "sft": lambda rows, rate, seed: speaking(*preferred_only(rows, rate, seed, STEPS)),
    "dpo": then_dpo,
}


# --- what is recorded -------------------------------------------------------------------------------


def meet_tuning(params: dict, seed: int) -> dict[str, float]:
    """One trial of one method on validation: marks of greedy and of sampled texts, and `overall`, their mean, by which is chosen."""
    task, method = params["task"], params["method"]
    asked = pairs(task, TESTED, "validation")
    answers = METHODS[method](pairs(task, N), TRIALS[method][params["trial"]], seed)
    found = {f"{metric}_{t:g}": float(m.mean()) for t in (0.0, SPEAKS)
             for metric, m in marks(task, asked, answers([p.prompt for p in asked], t, seed)).items()}  # fmt: skip
    return found | {"overall": (found["overall_0"] + found[f"overall_{SPEAKS:g}"]) / 2}


def rivals_of_meet(params: dict, seed: int) -> dict[str, float]:
    """All methods on the test of one task, tuned: at every temperature sound texts, marks and words; and the net win of MEET over each."""
    task, asked = params["task"], pairs(params["task"], TESTED, "test")
    metrics, overall = {}, {}
    for method in METHODS:
        answers = METHODS[method](pairs(task, N), TRIALS[method][BEST[task, method]], seed)
        for t in TEMPERATURES:
            texts = answers([p.prompt for p in asked], t, seed)
            found = marks(task, asked, texts)
            overall[method, t] = found["overall"]
            metrics |= {f"{metric}_{t:g}/{method}": float(m.mean()) for metric, m in found.items()}
            metrics[f"words_{t:g}/{method}"] = mean_words(texts)
    for kind in KINDS:
        for method in METHODS:
            for t in TEMPERATURES:
                if method != kind:
                    metrics[f"{kind}_over_{method}_{t:g}"] = net_win(overall[method, t], overall[kind, t]).value
    return metrics


SIZES = (
    *({"kind": "prompt", "size": n} for n in (1, 5, 20, 50, 100)),
    {"kind": "lora", "size": 1, "targets": "values of two layers"}, {"kind": "lora", "size": 1, "targets": "values"},
    {"kind": "lora", "size": 1, "targets": "attention"}, {"kind": "lora", "size": 4, "targets": "attention"},
    *({"kind": "lora", "size": r, "targets": "all"} for r in (2, 4, 9)),
)  # fmt: skip
TARGETS = {
    "all": {}, "attention": {"targets": ATTENTION}, "values": {"targets": ("v_proj",)},
    "values of two layers": {"targets": ("v_proj",), "layers": (2, 3)},
}  # fmt: skip


def control_of(params: dict) -> ControlSettings:
    return ControlSettings(params["kind"], params["size"], **TARGETS[params.get("targets", "all")])


def tuned(kind: str) -> tuple[float, float]:
    """Learning rates of a kind of control, as chosen for questions."""
    return TRIALS[f"meet, {kind}"][BEST["qa", f"meet, {kind}"]]


def steered(model: Meet, seed: int) -> dict[str, float]:
    """What a good and a bad control do to answers on the test, and by how much the good one makes the preferred text likelier."""
    asked = pairs("qa", TESTED, "test")
    prompts, texts = [p.prompt for p in asked], [p.chosen for p in asked]
    more = model.logprob(prompts, texts, "good") - model.logprob(prompts, texts, "bad")
    metrics = {"share": model.control_share, "good_minus_bad_logprob": float(more.mean())}
    for control in ("good", "bad"):
        for t in (0.0, SPEAKS):
            found = marks("qa", asked, asked_for(model, control)(prompts, t, seed))
            metrics |= {f"{metric}_{t:g}_{control}": float(m.mean()) for metric, m in found.items()}
    return metrics


def control_size(params: dict, seed: int) -> dict[str, float]:
    """MEET on questions with a control of this size."""
    return steered(meet(pairs("qa", N), tuned(params["kind"]), seed, control_of(params), FIRST), seed)


def meet_steps(params: dict, seed: int) -> dict[str, float]:
    """Which step does what, at equal steps in all; and texts of the two kinds to different prompts."""
    control, rates, rows = KINDS[f"meet, {params['kind']}"], tuned(params["kind"]), pairs("qa", N)
    if params["arm"] == "no pairs":
        rows = pairs("qa", 2 * N)
        rows = {"good": sides(rows[:N])["good"], "bad": sides(rows[N:])["bad"]}
    first = {"step 1 only": STEPS, "step 2 only": 0, "joint": 0}.get(params["arm"], FIRST)
    freeze = params["arm"] in ("step 2 only", "controls frozen in step 2")
    return steered(meet(rows, rates, seed, control, first, freeze_controls=freeze), seed)


def control_start(params: dict, seed: int) -> dict[str, float]:
    """What a soft prompt starts from."""
    texts = (("good", "a polite right complete answer"), ("bad", "a rude wrong short answer"))
    control = replace(KINDS["meet, prompt"], start=params["start"], texts=texts)
    return steered(meet(pairs("qa", N), tuned("prompt"), seed, control, FIRST), seed)


def dial_of_controls(params: dict, seed: int) -> dict[str, float]:
    """Between the bad control and the good one, and beyond: (1 - w) bad + w good."""
    model = meet(pairs("qa", N), tuned(params["kind"]), seed, KINDS[f"meet, {params['kind']}"], FIRST)
    asked, metrics = pairs("qa", TESTED, "test"), {}
    for w in (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5):
        found = marks("qa", asked, asked_for(model, Mix(good=w, bad=1 - w))([p.prompt for p in asked], SPEAKS, seed))
        metrics |= {f"{metric}_{w:g}": float(m.mean()) for metric, m in found.items()}
    return metrics


def several_axes(params: dict, seed: int) -> dict[str, float]:
    """Three axes, a control for each end of each: what is got on every axis when one is asked for, and when all three are."""
    rows: dict[str, list[Instruction]] = {}
    for axis in sets.AXES:
        along = [replace(p, prompt=f"{p.prompt} answer :") for p in sets.preferences(N // 3, axis=axis, seed=10 + seed)]
        rows |= sides(along, f"{axis}+", f"{axis}-")
    if params["kind"] == "one token":
        rate = TRIALS["one token"][BEST["qa", "one token"]]
        model = meet(rows, (rate, rate), seed, ControlSettings("prompt", 1), first=0)
    else:
        model = meet(rows, tuned(params["kind"]), seed, KINDS[f"meet, {params['kind']}"], FIRST)
    asked, metrics = pairs("qa", TESTED, "test"), {}
    boards = [Board.parse(p.prompt.removesuffix(" answer :")) for p in asked]
    single = [(f"{axis}{end}",) for axis in sets.AXES for end in "+-"]
    mixed = [tuple(f"{axis}{end}" for axis, end in zip(sets.AXES, ends)) for ends in product("+-", repeat=3)]
    for controls in (*single, *mixed):
        texts = asked_for(model, controls)([p.prompt for p in asked], 0.0, seed)
        name = " ".join(controls)
        metrics |= {f"{axis}/{name}": float(np.mean([sets.axis_score(b, t, axis) for b, t in zip(boards, texts)])) for axis in sets.AXES}
        metrics[f"sound/{name}"] = float(marks("qa", asked, texts)["sound"].mean())
    return metrics
