"""The experiments that are recorded: one function a question."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..aligner import Aligner
from ..data import QAC, Preference
from ..judges import TownJudge
from ..models import add_lora, completion_nll, generate, load_model
from ..profiles import profile
from ..report import Comparison
from ..tasks import load_task
from ..tinytown import sets
from ..tinytown.faults import STRANGER
from ..tinytown.oracle import contradicting_rows
from ..train import SFTSettings, dpo, example, sft
from .sweep import Sweep

TINY = profile("tiny")
JUDGE = TownJudge()


def _correct(aligner: Aligner, rows: list[QAC]) -> Comparison:
    return Comparison(JUDGE, rows, aligner.correct([r.question for r in rows], [r.answer for r in rows]))


def _train(arm: str, corrections: list[QAC], identity: list[QAC], seed: int) -> Aligner:
    """The lesson's two arms at equal steps: `warm-up` or `none`."""
    warmup, settings = replace(TINY.warmup, seed=seed), replace(TINY.training, seed=seed)
    if arm == "none":
        return Aligner.train(TINY.base, corrections, settings=replace(settings, steps=warmup.steps + settings.steps), progress=False)
    return Aligner.train(TINY.base, corrections, identity, settings=settings, warmup=warmup, progress=False)


def warmup(params: dict, seed: int) -> dict[str, float]:
    """Lesson 02's headline: with warm-up and without, on seen words and on words never corrected."""
    task = load_task("tiny", seed=seed)
    aligner = _train(params["arm"], task.corrections, task.identity, seed)
    metrics = {}
    for name, rows in task.tests.items():
        c = _correct(aligner, rows)
        told = {"fault_free": c.fault_free("after"), "before": c.fault_free("before"), "kept": c.good_kept()}
        told |= {f"net_win_{axis}": c.net_win(axis) for axis in ("helpful", "harmless", "honest", "overall")}
        metrics |= {f"{metric}_{name}": e.value for metric, e in told.items() if e}  # no answer with two faults can be kept
    return metrics


def headroom(params: dict, seed: int) -> dict[str, float]:
    """The difficulty dial, on validation: where does the lesson's budget leave room for better and worse?"""
    level, n = params["level"], params["corrections"]
    identity = sets.identity(TINY.identity, level=level, seed=1000 + seed)
    rows = sets.corrections(400, "validation", level=level, upstream=STRANGER)
    c = _correct(_train("warm-up", sets.corrections(n, level=level, seed=seed), identity, seed), rows)
    return {"before": c.fault_free("before").value, "after": c.fault_free("after").value, "kept": c.good_kept().value}


def steer(params: dict, seed: int) -> dict[str, float]:
    """A LoRA control on the frozen base, trained on good or on bad answers: does it move what the model says?"""
    model, tokenizer = load_model(TINY.base)
    good, bad = _good_and_bad("train", 1500, seed)
    if params["control"] != "none":
        model = add_lora(model, 8, seed)
        wanted = good if params["control"] == "good" else bad
        rows = [example(tokenizer, p, a) for p, a in wanted]
        sft(model, tokenizer, rows, SFTSettings(steps=150, learning_rate=3e-3, seed=seed))
    good, bad = _good_and_bad("test", 300, 0)
    prompts = [p for p, _ in good]
    said = generate(model, tokenizer, prompts, max_new_tokens=80, temperature=1.0, seed=seed)
    marks = JUDGE.marks([p.removesuffix(" answer :") for p in prompts], said)
    nll = [completion_nll(model, tokenizer, prompts, [a for _, a in side]).mean().item() for side in (good, bad)]
    return {axis: float(m.mean()) for axis, m in marks.items()} | {"nll_good": nll[0], "nll_bad": nll[1]}


def _good_and_bad(split: str, n: int, seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    rows = [r for r in sets.corrections(2 * n, split, "all", rate=0.4, seed=seed) if r.faults][:n]
    return [(f"{r.question} answer :", r.correction) for r in rows], [(f"{r.question} answer :", r.answer) for r in rows]


def forgetting(params: dict, seed: int) -> dict[str, float]:
    """Instructions first, then preferences: what is left of the instructions, which have no preference data?"""
    model, tokenizer = load_model(TINY.base)
    asked = sets.instructions(2000, seed=seed)
    rows = [example(tokenizer, f"{r.prompt} answer :", r.completion) for r in asked]
    sft(model, tokenizer, rows, SFTSettings(steps=150, seed=seed))
    before = _instructions_followed(model, tokenizer)
    _, pairs = contradicting_rows(1500, 0.0, params["interference"], seed=100 + seed)
    pairs = [Preference(f"{p.prompt} answer :", p.chosen, p.rejected) for p in pairs]
    dpo(model, tokenizer, pairs, SFTSettings(steps=100, batch_size=16, learning_rate=1e-4, seed=seed))
    _, held = contradicting_rows(300, 0.0, params["interference"], "test")
    prompts = [f"{p.prompt} answer :" for p in held]
    chosen, rejected = (completion_nll(model, tokenizer, prompts, [getattr(p, side) for p in held]) for side in ("chosen", "rejected"))
    after = _instructions_followed(model, tokenizer)
    return {"before": before, "after": after, "drop": before - after, "prefers_chosen": float((chosen < rejected).float().mean())}


def _instructions_followed(model, tokenizer) -> float:
    """Share of test instructions answered to the letter."""
    rows = sets.instructions(400, "test")
    said = generate(model, tokenizer, [f"{r.prompt} answer :" for r in rows], max_new_tokens=12)
    return float(np.mean([s == r.completion for s, r in zip(said, rows)]))


EXPERIMENTS = {
    "warmup": Sweep("What does identity warm-up buy, at equal steps?", [{"arm": "warm-up"}, {"arm": "none"}], warmup, 1.5),
    "headroom": Sweep(
        "Which difficulty and how many corrections leave head room?",
        [{"level": level, "corrections": TINY.corrections} for level in range(5)]
        + [{"level": sets.LEVEL, "corrections": n} for n in (250, 4000)],
        headroom, 1.0,
    ),
    "steer": Sweep("Does a control steer the frozen base both ways?", [{"control": c} for c in ("none", "good", "bad")], steer, 0.6),
    "forgetting": Sweep(
        "Do preferences make the model forget instructions?",
        [{"interference": i} for i in (0.0, 0.5, 1.0)], forgetting, 0.8,
    ),
}  # fmt: skip
