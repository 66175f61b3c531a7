"""The gates of world 1: head room, steering by a control, forgetting under interference."""

from __future__ import annotations

import numpy as np

from alignlib.data import Instruction, Preference
from alignlib.generation import generate
from alignlib.likelihood import completion_nll
from alignlib.models import add_lora, load_model
from alignlib.settings import SFTSettings
from alignlib.tinytown import sets
from alignlib.tinytown.answers import OPENERS
from alignlib.tinytown.faults import STRANGER
from alignlib.tinytown.oracle import demonstrations, warm_pairs
from alignlib.tokens import example
from alignlib.train import dpo, sft

from .aligner import JUDGE, TINY, WARMUP_SHARE, correct, train


def headroom(params: dict, seed: int) -> dict[str, float]:
    """The difficulty dial, on validation: where does the lesson's budget leave room for better
    and worse?
    """
    level, n = params["level"], params["corrections"]
    identity = sets.identity(TINY.identity, level=level, seed=1000 + seed)
    rows = sets.corrections(400, "validation", level=level, upstream=STRANGER)
    c = correct(
        train(WARMUP_SHARE, sets.corrections(n, level=level, seed=seed), identity, seed), rows
    )
    return {
        "before": c.fault_free("before").value,
        "after": c.fault_free("after").value,
        "kept": c.good_kept().value,
    }


def steer(params: dict, seed: int) -> dict[str, float]:
    """A LoRA control on the frozen base, trained on good or on bad answers: does it move what
    the model says?
    """
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
    scores = JUDGE.scores([p.removesuffix(" answer :") for p in prompts], said)
    nll = [
        completion_nll(model, tokenizer, prompts, [a for _, a in side]).mean().item()
        for side in (good, bad)
    ]
    return {axis: float(m.mean()) for axis, m in scores.items()} | {
        "nll_good": nll[0],
        "nll_bad": nll[1],
    }


def _good_and_bad(
    split: str, n: int, seed: int
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    rows = [r for r in sets.corrections(2 * n, split, "all", rate=0.4, seed=seed) if r.faults][:n]
    return [(f"{r.question} answer :", r.correction) for r in rows], [
        (f"{r.question} answer :", r.answer) for r in rows
    ]


def forgetting(params: dict, seed: int) -> dict[str, float]:
    """Instructions first, then preferences: what is left of the instructions, which have no
    preference data?

    All start from the same instructions, with preference prompts of either kind answered in either
    manner, so that only the pairs differ. The arm `joint` learns both at once, from the chosen
    answers: whether a model of this size can hold both.
    """
    model, tokenizer = load_model(TINY.base)
    dial = params["interference"]
    pairs, held = warm_pairs(1500, dial, seed=100 + seed), warm_pairs(300, dial, "test")
    shown = (
        [Instruction(p.prompt, p.chosen) for p in pairs]
        if params["arm"] == "joint"
        else demonstrations(1000, 0.5, seed=200 + seed)
    )
    rows = [
        example(tokenizer, f"{r.prompt} answer :", r.completion)
        for r in sets.instructions(2000, seed=seed) + shown
    ]
    sft(model, tokenizer, rows, SFTSettings(steps=200, seed=seed))
    before = _instructions_and_preferences(model, tokenizer, held)
    if params["arm"] == "joint":
        return {f"{k}_after": v for k, v in before.items()}
    pairs = [Preference(f"{p.prompt} answer :", p.chosen, p.rejected) for p in pairs]
    dpo(
        model,
        tokenizer,
        pairs,
        SFTSettings(steps=100, batch_size=16, learning_rate=7e-5, seed=seed),
    )
    after = _instructions_and_preferences(model, tokenizer, held)
    told = {f"{k}_before": v for k, v in before.items()} | {
        f"{k}_after": v for k, v in after.items()
    }
    return told | {"drop": before["followed"] - after["followed"]}


def _instructions_and_preferences(model, tokenizer, held: list[Preference]) -> dict[str, float]:
    """On test prompts: plain instructions followed to the letter (`followed`), with the right
    words somewhere in the answer (`content`), and answered warmly (`spilled`); preference
    prompts answered warmly (`warm`).
    """
    rows = sets.instructions(400, "test")
    said = generate(model, tokenizer, [f"{r.prompt} answer :" for r in rows], max_new_tokens=24)
    prompts = [f"{p.prompt} answer :" for p in held]
    warm = generate(model, tokenizer, prompts, max_new_tokens=6)
    return {
        "followed": float(np.mean([s == r.completion for s, r in zip(said, rows)])),
        "content": float(np.mean([f" {r.completion}" in f" {s}" for s, r in zip(said, rows)])),
        "spilled": float(np.mean([s.startswith(tuple(OPENERS)) for s in said])),
        "warm": float(np.mean([s.startswith(tuple(OPENERS)) for s in warm])),
    }
