"""SmolLM2 with LoRA controls for two axes of style on `data/everyday` (notebook 09)."""

from __future__ import annotations

import random
from dataclasses import replace

from alignlib.controls import Control, Mix
from alignlib.data import Preference, write_rows
from alignlib.everyday import SPLITS, are_rude, rows_file
from alignlib.meet import Meet
from alignlib.real_model import SMOLLM2
from alignlib.rows import Instruction
from alignlib.styles import Texts, texts_by_control
from alignlib.workbench import MEET_BENCHES

from .common import mean_words
from .everyday import insert, rude_by_split, split_answers

BENCH = MEET_BENCHES["laptop"]
TESTS = 80  # prompts, which no training text answers
BRIEF_TEXTS = 150  # texts of each length to train on
PAIRS = {"train": 250, "validation": 60, "test": 100}  # of a polite and a rude answer
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of `rude` in a mix with `polite`
BOTH: dict[str, Control] = {
    f"{style}_and_{length}": (style, length)
    for style in ("rude", "polite")
    for length in ("brief", "full")
}

STEPS = BENCH.settings.steps
COSTS = {  # by arm: the controls, and the steps in all
    "two controls": (("polite", "rude"), STEPS),
    "preferred texts only": (("polite",), STEPS),
    "preferred texts only, half": (("polite",), STEPS // 2),
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


def cost_of_controls(params: dict[str, object], seed: int) -> dict[str, float]:
    """Controls for polite and rude answers, or fine-tuning by LoRA on the polite ones alone.

    `loss` per token on polite answers to new prompts, and the fractions of answers that name the
    right fact (`right`) and that are rude.
    """
    names, steps = COSTS[str(params["arm"])]
    texts = texts_by_control(draw_pairs(seed)["train"], "polite", "rude")
    settings = replace(BENCH.settings, steps=steps, seed=seed)
    options = {"control": replace(BENCH.control, seed=seed), "form": BENCH.form}
    rows = {name: texts[name] for name in names}
    meet = Meet.train(SMOLLM2, rows, first=settings, progress=False, **options)
    tests = split_answers(random.Random(seed))["test"][: PAIRS["test"]]
    prompts = [test.prompt for test in tests]
    answers = meet.generate(prompts, "polite", max_new_tokens=48)
    right = [t.fact.lower() in answer.lower() for t, answer in zip(tests, answers, strict=True)]
    loss = -meet.logprob(prompts, [test.answer for test in tests], "polite")
    rude = sum(are_rude(answers)) / len(answers)
    return {"loss": float(loss.mean()), "right": sum(right) / len(right), "rude": rude}


def draw_styles(seed: int) -> tuple[Texts, list[str]]:
    """Texts by control for a seed, and prompts to test on."""
    texts = texts_by_control(draw_pairs(seed)["train"], "polite", "rude")
    answers = split_answers(random.Random(seed))
    short = [a for a in answers["train"] if a.prompt.endswith("?")][:BRIEF_TEXTS]
    texts["brief"] = [Instruction(a.prompt, f"{a.fact[:1].upper()}{a.fact[1:]}.") for a in short]
    texts["full"] = [Instruction(a.prompt, a.answer) for a in short]
    return texts, [a.prompt for a in answers["test"] if a.prompt.endswith("?")][:TESTS]


def draw_pairs(seed: int) -> dict[str, list[Preference]]:
    """Polite answers, and the same after an insult, by split; the files are those of seed 0.

    Validation and test have insults of their own. All insults open the answer: where they may stand
    anywhere, the likeliest next word is seldom one, and most greedy answers stay polite.
    """
    rng = random.Random(seed)
    answers, insults = split_answers(rng), rude_by_split(rng)
    pairs = {}
    for split in SPLITS:
        openings = [phrase for phrase in insults[split] if phrase.place in ("open", "lead")]
        pairs[split] = [
            Preference(a.prompt, a.answer, insert(a.answer, rng.choice(openings)))
            for a in answers[split][: PAIRS[split]]
        ]
    return pairs


def write_files() -> None:
    """The files of seed 0, which come with the course."""
    for split, pairs in draw_pairs(0).items():
        write_rows(rows_file(split, "styles"), pairs)
