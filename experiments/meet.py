"""Experiments of lesson 05: MEET and its rivals on two tasks, and on bases of other sizes.

All methods get the same pairs, and as many texts to learn from: STEPS steps of 32. MEET spends a
share of them on its controls.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np

from alignlib.data import Instruction, Preference
from alignlib.likelihood import rewards
from alignlib.meet import Meet, texts_by_control
from alignlib.models import load_model
from alignlib.settings import ControlSettings, SFTSettings
from alignlib.stats import wins
from alignlib.tinytown import sets
from alignlib.tinytown.oracle import ANSWER_CUE
from alignlib.tinytown.pretrain import Recipe, pretrain_base
from alignlib.tinytown.summaries import judge_summary
from alignlib.tokens import example
from alignlib.train import dpo, reward_model, sft

from .aligner import JUDGE, TINY
from .baselines import speaking
from .make_upstreams import WORK
from .upstreams import mean_words

N, STEPS, TESTED = 1500, 250, 200  # pairs, steps of 32 texts, prompts to answer
MISLABELLED = 0.25  # of the pairs of summaries
FIRST = 75  # of the steps, those with the model frozen
TASKS = ("qa", "summary")
SPEAKS = 1.0
TEMPERATURES = {"qa": (0.0, 0.4, 0.8, SPEAKS, 1.2), "summary": (0.0, SPEAKS)}
KINDS = {"meet, prompt": ControlSettings("prompt", 20), "meet, lora": ControlSettings("lora", 8)}
BETTER, WORSE = "better", "worse"  # the words of a control that is text
DPO_RATE, JUDGE_RATE = 3e-5, 1e-3
RATES = ({"rate": 3e-4}, {"rate": 1e-3}, {"rate": 3e-3}, {"rate": 6e-3})
PROMPT_RATES = tuple(
    {"controls": c, "rate": r}
    for c, r in ((5e-2, 1e-3), (5e-2, 3e-3), (1.5e-1, 3e-3), (5e-2, 6e-3))
)
TRIALS: dict[
    str, tuple[dict[str, float], ...]
] = {  # as many for each method: learning rates, or DPO's beta
    "meet, prompt": PROMPT_RATES,
    "one token": PROMPT_RATES,
    "meet, lora": tuple(
        {"controls": c, "rate": r}
        for c, r in ((3e-3, 3e-4), (3e-3, 1e-3), (1e-2, 3e-4), (3e-3, 3e-3))
    ),
    "hindsight": RATES,
    "sft": RATES,
    "dpo": tuple(
        {"beta": b, "rate": r} for b, r in ((0.03, 1e-3), (0.1, 1e-3), (0.3, 1e-3), (0.1, 3e-3))
    ),
}

BEST: dict[tuple[str, str], int] = {  # the trial chosen on validation
    ("qa", "meet, prompt"): 0,
    ("qa", "meet, lora"): 0,
    ("qa", "one token"): 1,
    ("qa", "hindsight"): 1,
    ("qa", "sft"): 1,
    ("qa", "dpo"): 1,
    ("summary", "meet, prompt"): 2,
    ("summary", "meet, lora"): 2,
    ("summary", "one token"): 2,
    ("summary", "hindsight"): 2,
    ("summary", "sft"): 3,
    ("summary", "dpo"): 0,
}

Rows = Sequence[Preference] | dict[str, list[Instruction]]
Answers = Callable[[Sequence[str], float, int], list[str]]  # (prompts, temperature, seed)


# --- the two tasks
# ----------------------------------------------------------------------------------


def pairs(
    task: str, n: int, split: str = "train", seed: int = 2, axis: str = "faults"
) -> list[Preference]:
    """Pairs whose prompts end where the answer, or the summary, begins. Good summaries come
    easily here (the base's likeliest is good); so that something is left to learn from, a share
    of their training pairs is labelled the wrong way round.
    """
    rows = sets.preferences(
        n, split, task="summaries" if task == "summary" else "questions", axis=axis, seed=seed
    )
    rows = [replace(p, prompt=p.prompt + ANSWER_CUE) for p in rows]
    coin = random.Random(seed)
    wrong = [task == "summary" and split == "train" and coin.random() < MISLABELLED for _ in rows]
    return [
        replace(p, chosen=p.rejected, rejected=p.chosen) if w else p
        for p, w in zip(rows, wrong, strict=True)
    ]


def scores(task: str, asked: Sequence[Preference], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """`overall` in [0, 1], the judge's mean mark or ROUGE-L, and whether a text is `sound`:
    without a fault, or the reference itself.
    """
    if task == "summary":
        scored = [judge_summary(p.chosen, text) for p, text in zip(asked, texts, strict=True)]
        return {
            "overall": np.array([s["rouge_l"] for s in scored]),
            "sound": np.array([s["exact"] for s in scored]),
        }
    found = JUDGE.scores([p.prompt.removesuffix(ANSWER_CUE) for p in asked], texts)
    return {"overall": found["overall"], "sound": found["fault_free"]}


# --- the methods
# ------------------------------------------------------------------------------------


def settings(steps: int, rate: float, seed: int, batch_size: int = 32) -> SFTSettings:
    return SFTSettings(steps=steps, learning_rate=rate, seed=seed, batch_size=batch_size)


def train_meet(
    rows: Rows,
    seed: int,
    control: ControlSettings,
    controls: float,
    rate: float,
    *,
    first: int | None = None,
    freeze_controls: bool = False,
    base: str | Path | None = None,
) -> Meet:
    """STEPS steps in all, the `first` of them with the model frozen; of pairs, or of texts by
    control. `rate`: the model's learning rate.
    """
    texts, first = (
        rows if isinstance(rows, dict) else texts_by_control(rows),
        FIRST if first is None else first,
    )
    return Meet.train(
        base or TINY.base,
        texts,
        control=replace(control, seed=seed),
        first=settings(first, controls, seed),
        then=settings(STEPS - first, rate, seed),
        freeze_controls=freeze_controls,
        progress=False,
    )


def asked_for(model: Meet, control: object) -> Answers:
    return lambda prompts, temperature, seed: model.generate(
        prompts, control, max_new_tokens=100, temperature=temperature, seed=seed
    )


def with_word(prompt: str, word: str) -> str:
    """The prompt with a word before its last ("... ? better answer :")."""
    return f"{prompt.removesuffix(ANSWER_CUE)} {word}{ANSWER_CUE}"


def chained(rows: Sequence[Preference]) -> list[tuple[str, str]]:
    """Four rows a pair, of chain of hindsight: the better text, the better behind the worse, the
    worse text, the worse behind the better.
    """
    shown = []
    for p in rows:
        for word, text, other, first in (
            (BETTER, p.chosen, WORSE, p.rejected),
            (WORSE, p.rejected, BETTER, p.chosen),
        ):
            shown += [
                (with_word(p.prompt, word), text),
                (f"{with_word(p.prompt, other)} {first} {word}{ANSWER_CUE}", text),
            ]
    return shown


def hindsight(rows: Sequence[Preference], seed: int, rate: float) -> Answers:
    """Controls in words, and texts behind one another (Chain of hindsight, arXiv 2302.02676)."""
    model, tokenizer = load_model(TINY.base)
    sft(
        model,
        tokenizer,
        [example(tokenizer, *row) for row in chained(rows)],
        settings(STEPS, rate, seed),
    )
    answers = speaking(model, tokenizer)
    return lambda prompts, temperature, seed: answers(
        [with_word(p, BETTER) for p in prompts], temperature, seed
    )


def preferred_only(
    rows: Sequence[Preference],
    seed: int,
    rate: float,
    steps: int | None = None,
    base: str | Path | None = None,
):
    model, tokenizer = load_model(base or TINY.base)
    sft(
        model,
        tokenizer,
        [example(tokenizer, p.prompt, p.chosen) for p in rows],
        settings(steps or STEPS, rate, seed),
    )
    return model, tokenizer


def then_dpo(rows: Sequence[Preference], seed: int, beta: float, rate: float) -> Answers:
    """The usual recipe: half of the steps on the preferred texts, then DPO on the pairs, half as
    many pairs a step as others have texts.
    """
    model, tokenizer = preferred_only(rows, seed, rate, steps=STEPS // 2)
    dpo(model, tokenizer, rows, settings(STEPS - STEPS // 2, DPO_RATE, seed, 16), beta=beta)
    return speaking(model, tokenizer)


def with_meet(control: ControlSettings, **order: int) -> Callable[..., Answers]:
    return lambda rows, seed, **given: asked_for(
        train_meet(rows, seed, control, **order, **given), "good"
    )


METHODS: dict[
    str, Callable[..., Answers]
] = {  # (rows, seed, and what a trial gives; some also take another base)
    **{name: with_meet(control) for name, control in KINDS.items()},
    "one token": with_meet(ControlSettings("prompt", 1), first=0),
    "hindsight": hindsight,
    "sft": lambda rows, seed, **given: speaking(*preferred_only(rows, seed, **given)),
    "dpo": then_dpo,
}


# --- what is recorded
# -------------------------------------------------------------------------------


def meet_tuning(params: dict, seed: int) -> dict[str, float]:
    """One trial of one method on validation: marks of greedy and of sampled texts, and
    `overall`, their mean, by which is chosen.
    """
    trial = dict(params)
    task, method = trial.pop("task"), trial.pop("method")
    asked = pairs(task, TESTED, "validation")
    answers = METHODS[method](pairs(task, N), seed, **trial)
    found = {
        f"{metric}_{t:g}": float(m.mean())
        for t in (0.0, SPEAKS)
        for metric, m in scores(task, asked, answers([p.prompt for p in asked], t, seed)).items()
    }
    return found | {"overall": (found["overall_0"] + found[f"overall_{SPEAKS:g}"]) / 2}


def tuned(method: str, task: str = "qa") -> dict[str, float]:
    return TRIALS[method][BEST[task, method]]


BESIDE: dict[
    str, Callable[..., Answers]
] = {  # for comparison: what all methods gain, and what as few good texts as MEET sees can do
    "untouched": lambda rows, seed, base=None: speaking(*load_model(base or TINY.base)),
    "sft, half": lambda rows, seed, rate, base=None: speaking(
        *preferred_only(rows, seed, rate, steps=STEPS // 2, base=base)
    ),
}


def rivals_of_meet(params: dict, seed: int) -> dict[str, float]:
    """All methods on the test of one task, tuned; to questions also as other judges see them:
    two learned ones (`other_judges`), and one who counts words.
    """
    task, made = params["task"], makers((*BESIDE, *METHODS), params["task"], seed)
    if task == "summary":
        return side_by_side(task, made, seed, TEMPERATURES[task])
    return side_by_side(task, made, seed, TEMPERATURES[task], other_judges()) | habits()


def makers(
    methods: Sequence[str], task: str, seed: int, **base: Path
) -> dict[str, Callable[[], Answers]]:
    """What makes each method's model, tuned, of a task's pairs."""
    rows, rates = pairs(task, N), {"untouched": {}, "sft, half": tuned("sft", task)}
    return {
        m: partial(
            (BESIDE | METHODS)[m],
            rows,
            seed,
            **(rates[m] if m in rates else tuned(m, task)),
            **base,
        )
        for m in methods
    }


def side_by_side(
    task: str,
    methods: dict[str, Callable[[], Answers]],
    seed: int,
    temperatures: Sequence[float],
    judges: dict[str, LearnedJudge] = {},
) -> dict[str, float]:
    """Methods, made one after the other, on the test: at each temperature marks and words, and
    the net win of MEET over each; as they speak, also the net win that other judges see.
    """
    asked = pairs(task, TESTED, "test")
    prompts, metrics, overall, other = [p.prompt for p in asked], {}, {}, {}
    for method, make in methods.items():
        answers = make()
        for t in temperatures:
            texts = answers(prompts, t, seed)
            found = scores(task, asked, texts)
            metrics |= {f"{metric}_{t:g}/{method}": float(m.mean()) for metric, m in found.items()}
            metrics[f"words_{t:g}/{method}"] = mean_words(texts)
            overall[method, f"{t:g}"] = found["overall"]
            if t == SPEAKS:
                other |= {(method, name): judge(prompts, texts) for name, judge in judges.items()}
    for kind, (method, by) in product(KINDS, overall | other):
        if method != kind:
            mark = overall if (kind, by) in overall else other
            metrics[f"{kind}_over_{method}_{by}"] = 100 * float(
                wins(mark[method, by], mark[kind, by]).mean()
            )
    return metrics


BASES = {
    r.hidden: r
    for r in (
        Recipe(hidden=48, layers=2, feed_forward=128, steps=3000),
        Recipe(hidden=80, layers=3, feed_forward=208, steps=3000),
    )
}


def base_size(params: dict, seed: int) -> dict[str, float]:
    """MEET and its plainer rivals to questions, from a base of another width, at the rates that
    suit the usual one. A base that is not in WORK is pretrained first: record all cells on one
    machine.
    """
    base = pretrain_base(WORK / f"width-{params['width']}", BASES[params["width"]])
    made = makers((*BESIDE, *KINDS, "one token", "sft"), "qa", seed, base=base)
    return side_by_side("qa", made, seed, (0.0, SPEAKS)) | {
        "parameters": load_model(base)[0].num_parameters()
    }


LearnedJudge = Callable[
    [Sequence[str], Sequence[str]], np.ndarray
]  # (prompts, texts): a number each


@lru_cache(maxsize=1)
def other_judges() -> dict[str, LearnedJudge]:
    """Two reward models, of one seed, and one who counts words. Both learn from the same pairs,
    which no method has: twice as many of sound against spoilt answers as of wordy against terse
    ones, both sound. Of these the `fair` one's annotator prefers either, by a coin; the one who
    `likes length` the wordy one.
    """
    faults, wordy = pairs("qa", 2 * N // 3, seed=20), pairs("qa", N // 3, seed=20, axis="length")
    coin = random.Random(20)
    either = [
        replace(p, chosen=p.rejected, rejected=p.chosen) if coin.random() < 0.5 else p
        for p in wordy
    ]
    words = lambda prompts, texts: np.array([float(len(text.split())) for text in texts])  # noqa: E731
    return {
        "fair": _learned(faults + either),
        "likes length": _learned(faults + wordy),
        "counts words": words,
    }


def _learned(rows: Sequence[Preference]) -> LearnedJudge:
    _, tokenizer = load_model(TINY.base)
    model = reward_model(TINY.base, tokenizer, rows, settings(STEPS, JUDGE_RATE, 0, 16))
    return lambda prompts, texts: rewards(model, tokenizer, prompts, texts).numpy()


def habits() -> dict[str, float]:
    """How often each of the other judges prefers the better text of new pairs; and the wordy
    one, where both are sound.
    """
    found, kinds = (
        {},
        {
            which: pairs("qa", TESTED, "test", seed=20, axis=axis)
            for which, axis in (("better", "faults"), ("wordy", "length"))
        },
    )
    for (judge, likes), (which, rows) in product(other_judges().items(), kinds.items()):
        chosen, rejected = (
            likes([p.prompt for p in rows], [getattr(p, side) for p in rows])
            for side in ("chosen", "rejected")
        )
        found[f"{judge}_prefers_{which}"] = float((chosen > rejected).mean())
    return found
