"""SmolLM2 with LoRA controls for two axes of style on `data/everyday` (notebook 09)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from alignlib.controls import Control, Mix
from alignlib.data import Preference
from alignlib.everyday import RUDE, are_rude
from alignlib.meet import Meet
from alignlib.real_model import SMOLLM2
from alignlib.rows import Instruction
from alignlib.styles import Texts, texts_by_control
from alignlib.workbench import MEET_BENCHES

from .common import mean_words
from .everyday import draw_rows, split_answers

BENCH = MEET_BENCHES["laptop"]
TESTS = 80  # prompts, which no training text answers
BRIEF_TEXTS = 150  # texts of each length to train on
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of `rude` in a mix with `polite`
BOTH: dict[str, Control] = {
    f"{style}_and_{length}": (style, length)
    for style in ("rude", "polite")
    for length in ("brief", "full")
}


def two_axes(params: dict[str, object], seed: int) -> dict[str, float]:
    """Four controls trained in turns: how rude and how long, asked for alone, mixed and together.

    Metrics `rude/...` are fractions of answers, `words/...` their mean length.
    """
    texts, prompts = draw_styles(seed)
    settings = replace(BENCH.settings, steps=2 * BENCH.settings.steps, seed=seed)
    options = {"control": replace(BENCH.control, seed=seed), "form": BENCH.form}
    meet = Meet.train(SMOLLM2, texts, first=settings, progress=False, **options)
    asked: dict[str, Control] = {"base": None} | {name: name for name in texts} | BOTH
    asked |= {f"mix_{w:g}": Mix(rude=w, polite=1 - w) for w in WEIGHTS}
    metrics = {}
    for name, control in asked.items():
        answers = meet.generate(prompts, control, max_new_tokens=48)
        metrics[f"rude/{name}"] = sum(are_rude(answers)) / len(answers)
        metrics[f"words/{name}"] = mean_words(answers)
    return metrics


def draw_styles(seed: int) -> tuple[Texts, list[str]]:
    """Texts by control for a seed, and prompts to test on; the phrases of the test are new too."""
    rows = draw_rows(seed)
    faulty = [row for row in rows["train"] if row.faults in RUDE]
    pairs = [Preference(row.question, row.correction, row.answer) for row in faulty]
    answers = split_answers(random.Random(seed))
    short = [a for a in answers["train"] if a.prompt.endswith("?")][:BRIEF_TEXTS]
    texts = texts_by_control(pairs, "polite", "rude")
    texts["brief"] = [Instruction(a.prompt, f"{a.fact[:1].upper()}{a.fact[1:]}.") for a in short]
    texts["full"] = [Instruction(a.prompt, a.answer) for a in short]
    return texts, _questions(answers["test"])


def _questions(answers: Sequence) -> list[str]:
    return [a.prompt for a in answers if a.prompt.endswith("?")][:TESTS]
