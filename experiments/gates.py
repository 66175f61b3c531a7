"""The gates of world 1: room for improvement, steering by a control, forgetting."""

from __future__ import annotations

from alignlib.data import Instruction, Preference
from alignlib.generation import generate
from alignlib.likelihood import completion_nll
from alignlib.models import add_lora, load_model
from alignlib.settings import SFTSettings
from alignlib.tinytown import sets
from alignlib.tinytown.answers import OPENERS
from alignlib.tinytown.faults import STRANGER
from alignlib.tinytown.oracle import ANSWER_CUE, demonstrations, warm_pairs
from alignlib.tokens import example
from alignlib.train import dpo, sft

from .aligner import WARMUP_SHARE, compare, train_aligner
from .common import JUDGE, TINY, LoadedModel, fine_tune, means, values, with_suffix


def headroom(params: dict, seed: int) -> dict[str, float]:
    """Answers before and after correction, on validation boards of one difficulty."""
    level = params["level"]
    corrections = sets.corrections(params["corrections"], level=level, seed=seed)
    identity = sets.identity(TINY.identity, level=level, seed=1000 + seed)
    validation = sets.corrections(400, "validation", level=level, upstream=STRANGER)
    aligner = train_aligner(WARMUP_SHARE, (corrections, identity), seed)
    return values(compare(aligner, validation), "before", "after", "kept")


def steer(params: dict, seed: int) -> dict[str, float]:
    """What the frozen base generates with a LoRA control trained on good or on bad answers."""
    model, tokenizer = load_model(TINY.base)
    if params["control"] != "none":
        texts = _good_and_bad("train", 1500, seed)[params["control"]]
        rows = [example(tokenizer, *text) for text in texts]
        model = add_lora(model, 8, seed)
        sft(model, tokenizer, rows, SFTSettings(steps=150, learning_rate=3e-3, seed=seed))
    tests = _good_and_bad("test", 300, 0)
    prompts = [prompt for prompt, _ in tests["good"]]
    generated = generate(model, tokenizer, prompts, max_new_tokens=80, temperature=1.0, seed=seed)
    questions = [prompt.removesuffix(ANSWER_CUE) for prompt in prompts]
    metrics = means(JUDGE.scores(questions, generated))
    for kind, texts in tests.items():
        nll = completion_nll(model, tokenizer, prompts, [answer for _, answer in texts])
        metrics[f"nll_{kind}"] = nll.mean().item()
    return metrics


def _good_and_bad(split: str, n: int, seed: int) -> dict[str, list[tuple[str, str]]]:
    """Prompts with the corrected (good) and with the faulty (bad) answer."""
    rows = sets.corrections(2 * n, split, "all", rate=0.4, seed=seed)
    faulty = [r for r in rows if r.faults][:n]
    return {
        "good": [(r.question + ANSWER_CUE, r.correction) for r in faulty],
        "bad": [(r.question + ANSWER_CUE, r.answer) for r in faulty],
    }


def forgetting(params: dict, seed: int) -> dict[str, float]:
    """What DPO on preferences leaves of instructions, for which there are no preferences.

    All cells start from the same instructions and from preference prompts answered in either
    style, so that only the pairs differ. The arm `joint` instead learns instructions and chosen
    answers at once, to show that a model of this size can do both.
    """
    dial = params["interference"]
    joint = params["arm"] == "joint"
    pairs = warm_pairs(1500, dial, seed=100 + seed)
    test_pairs = warm_pairs(300, dial, "test")
    if joint:
        shown = [Instruction(p.prompt, p.chosen) for p in pairs]
    else:
        shown = demonstrations(1000, 0.5, seed=200 + seed)
    instructions = sets.instructions(2000, seed=seed)
    rows = [(r.prompt + ANSWER_CUE, r.completion) for r in instructions + shown]
    loaded = fine_tune(TINY.base, rows, SFTSettings(steps=200, seed=seed))
    before = _instructions_and_preferences(loaded, test_pairs)
    if joint:
        return with_suffix(before, "_after")
    settings = SFTSettings(steps=100, batch_size=16, learning_rate=7e-5, seed=seed)
    pairs = [Preference(p.prompt + ANSWER_CUE, p.chosen, p.rejected) for p in pairs]
    dpo(*loaded, pairs, settings)
    after = _instructions_and_preferences(loaded, test_pairs)
    drop = before["followed"] - after["followed"]
    return with_suffix(before, "_before") | with_suffix(after, "_after") | {"drop": drop}


def _instructions_and_preferences(loaded: LoadedModel, pairs: list[Preference]) -> dict[str, float]:
    """Fractions of test prompts, greedily completed.

    Of plain instructions: completed exactly (`followed`), with the right words somewhere
    (`content`), with an opener (`spilled`); of the pairs' prompts: with an opener (`warm`).
    """
    rows = sets.instructions(400, "test")
    plain = generate(*loaded, [r.prompt + ANSWER_CUE for r in rows], max_new_tokens=24)
    preferred = generate(*loaded, [p.prompt + ANSWER_CUE for p in pairs], max_new_tokens=6)
    scores = {
        "followed": [text == r.completion for text, r in zip(plain, rows)],
        "content": [f" {r.completion}" in f" {text}" for text, r in zip(plain, rows)],
        "spilled": [text.startswith(tuple(OPENERS)) for text in plain],
        "warm": [text.startswith(tuple(OPENERS)) for text in preferred],
    }
    return means(scores)
