"""SmolLM2 on two objectives of `data/everyday`: reply with one word, open warmly (notebook 10)."""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

from alignlib.data import write_rows
from alignlib.everyday import (
    ONE_WORD,
    SPLITS,
    WARM,
    Aims,
    one_word,
    right_word,
    rows_file,
    warm,
    warmly_answered,
)
from alignlib.generation import generate
from alignlib.hbat import DPO, train_hbat
from alignlib.likelihood import completion_nll
from alignlib.mixed import train_mixed
from alignlib.models import load_model
from alignlib.real_model import SMOLLM2
from alignlib.rows import Instruction, Preference
from alignlib.tokens import prompt_ids
from alignlib.workbench import HBAT_BENCHES

from .common import LoadedModel, best_mean, means, with_suffix
from .everyday import Answer, split_answers

HBAT_LAPTOP = HBAT_BENCHES["laptop"]
ROUNDS = HBAT_LAPTOP.rounds
# rows of each split: instructions of one word, plain ones, pairs; no prompt is in two of them
SIZES = {"train": (200, 200, 200), "validation": (60, 0, 60), "test": (100, 0, 100)}


def draw_aims(seed: int) -> dict[str, Aims]:
    """The rows of each split for a seed; the files in `data/everyday` are those of seed 0.

    Half of the instructions to train on are plain ones, answered in a sentence, as people's own
    are: with one word alone a model answers every prompt by one.
    """
    answers = split_answers(random.Random(seed))
    return {split: _aims(answers[split], *SIZES[split]) for split in SPLITS}


def _aims(answers: Sequence[Answer], words: int, plain: int, pairs: int) -> Aims:
    asked = [a for a in answers if a.prompt.endswith("?") and len(a.fact.split()) == 1][:words]
    others = [a for a in answers if a not in asked]
    instructions = [Instruction(f"{a.prompt} {ONE_WORD}", a.fact) for a in asked]
    instructions += [Instruction(a.prompt, a.answer) for a in others[:plain]]
    preferred = others[plain : plain + pairs]
    return Aims(
        instructions,
        [Preference(a.prompt, f"{WARM} {a.answer}", a.answer) for a in preferred],
        [a.fact for a in preferred],
    )


def write_files() -> None:
    """The files of seed 0, which come with the course."""
    for split, aims in draw_aims(0).items():
        write_rows(rows_file(split, "one_word"), aims.instructions)
        pairs = zip(aims.pairs, aims.facts, strict=True)
        write_rows(rows_file(split, "warm"), [Warm(*astuple(pair), fact) for pair, fact in pairs])


@dataclass(frozen=True)
class Warm(Preference):
    """A pair in the file, with the fact that its prompt asks for."""

    fact: str


METHODS: dict[str, dict[str, object]] = {  # options of `train_hbat`; strength 0: no penalty
    "two_stage": {"rounds": 1, "strength": 0.0},
    "restarted": {"rounds": ROUNDS, "strength": 0.0, "alternate": False},
    "turns": {"rounds": ROUNDS, "strength": 0.0},
    "hbat": {"rounds": ROUNDS},
    "mixed": {},
}
# equally many trials of each method, on a seed of their own
TRIALS: dict[str, tuple[dict[str, float], ...]] = {
    "two_stage": ({"rate": 2e-4}, {"rate": 3e-4}, {"rate": 4e-4}, {"rate": 5e-4}),
    "restarted": ({"rate": 2e-4}, {"rate": 3e-4}, {"rate": 5e-4}, {"rate": 8e-4}),
    "turns": ({"rate": 3e-4}, {"rate": 4e-4}, {"rate": 5e-4}, {"rate": 8e-4}),
    "hbat": (
        {"rate": 5e-4, "strength": 0.03},
        {"rate": 5e-4, "strength": 0.1},
        {"rate": 5e-4, "strength": 1.0},
        {"rate": 8e-4, "strength": 1.0},
    ),
    "mixed": (
        {"rate": 5e-4, "weight": 0.03},
        {"rate": 5e-4, "weight": 0.1},
        {"rate": 5e-4, "weight": 0.3},
        {"rate": 5e-4, "weight": 1.0},
    ),
}
TUNED_ON = 100  # a seed for `best_trials` alone
TUNED: dict[str, dict[str, float]] = {  # the best trials, and the model before training
    "base": {},
    "two_stage": {"rate": 3e-4},
    "restarted": {"rate": 3e-4},
    "turns": {"rate": 5e-4},
    "hbat": {"rate": 5e-4, "strength": 0.1},
    "mixed": {"rate": 5e-4, "weight": 0.1},
}


def best_trials(record: dict) -> dict[str, dict[str, float]]:
    """By method, the trial with the best mean of both aims on validation."""
    trials, found = defaultdict(list), defaultdict(list)
    for cell in record["cells"]:
        trial = dict(cell["params"])
        method = trial.pop("method")
        trials[method].append(trial)
        found[method].append(cell["metrics"])
    aims = ("instructions_validation", "preference_validation")
    return {method: trials[method][best_mean(found[method], *aims)] for method in trials}


def aims_of_a_method(params: dict[str, object], seed: int) -> dict[str, float]:
    """One method on the rows of a seed: both aims on validation and on the test."""
    rows = draw_aims(seed)
    loaded = train_aims(str(params["method"]), rows["train"], seed, params)
    metrics = {}
    for split in ("validation", "test"):
        metrics |= with_suffix(measure_aims(loaded, rows[split]), f"_{split}")
    return metrics


def train_aims(method: str, rows: Aims, seed: int, trial: dict[str, float]) -> LoadedModel:
    """SmolLM2 after a method's whole training, or as it is (`base`)."""
    if method == "base":
        return load_model(SMOLLM2)
    bench = HBAT_LAPTOP
    teach = replace(bench.teach, seed=seed)
    prefer = DPO(replace(bench.prefer, learning_rate=trial["rate"], seed=seed), bench.beta)
    given = (SMOLLM2, rows.instructions, rows.pairs, teach, prefer)
    common = {"lora_rank": bench.lora_rank, "form": bench.form, "progress": False}
    if method == "mixed":
        return train_mixed(*given, weight=trial["weight"], **common)
    options = METHODS[method] | {k: v for k, v in trial.items() if k == "strength"}
    with tempfile.TemporaryDirectory() as folder:
        return train_hbat(*given, **options, **common, seed=seed, folder=folder)[-1].load()


def measure_aims(loaded: LoadedModel, rows: Aims) -> dict[str, float]:
    """Both aims, greedily, and the loss on instructions that were not trained on."""
    form, (model, tokenizer) = HBAT_LAPTOP.form, loaded
    asked = [row.prompt for row in (*rows.instructions, *rows.pairs)]
    prompts = [prompt_ids(tokenizer, prompt, form) for prompt in asked]
    texts = generate(model, tokenizer, prompts, max_new_tokens=40)
    words, answers = texts[: len(rows.instructions)], texts[len(rows.instructions) :]
    completions = [row.completion for row in rows.instructions]
    loss = completion_nll(model, tokenizer, prompts[: len(words)], completions)
    scores = {
        "instructions": one_word(words),
        "right": right_word(rows.instructions, words),
        "spilled": warm(words),
        "preference": warmly_answered(rows.facts, answers),
        "warm": warm(answers),
    }
    return means(scores) | {"loss": float(loss.mean())}
