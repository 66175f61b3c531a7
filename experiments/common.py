"""What several experiments share: training and sampling a model, and metrics by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlib.data import Preference
from alignlib.generation import generate
from alignlib.judges import TownJudge
from alignlib.models import load_model
from alignlib.profiles import TINY
from alignlib.report import Comparison
from alignlib.reward_models import rewards
from alignlib.settings import SFTSettings
from alignlib.stats import Estimate
from alignlib.tinytown.oracle import ANSWER_CUE
from alignlib.tokens import example
from alignlib.train import reward_model, sft

JUDGE = TownJudge()

Texts = Sequence[str]
LoadedModel = tuple[PreTrainedModel, PreTrainedTokenizerBase]
Sampler = Callable[[Texts, float, int], list[str]]  # (prompts, temperature, seed)
Reward = Callable[[Texts, Texts], np.ndarray]  # (prompts, completions)

NET_WINS = tuple(f"net_win_{axis}" for axis in ("helpful", "harmless", "honest", "overall"))
ESTIMATES: dict[str, Callable[[Comparison], Estimate | None]] = {  # by their names in the records
    "before": lambda comparison: comparison.fault_free("before"),
    "after": lambda comparison: comparison.fault_free("after"),
    "fault_free": lambda comparison: comparison.fault_free("after"),
    "net_win": lambda comparison: comparison.net_win("overall"),
    "of_ceiling": lambda comparison: comparison.share_of_ceiling("overall"),
    "kept": Comparison.good_kept,
    "made_worse": Comparison.made_worse,
    "edit_ratio": Comparison.edit_ratio,
} | {name: partial(Comparison.net_win, axis=name.removeprefix("net_win_")) for name in NET_WINS}


def settings_for(steps: int, rate: float, seed: int, batch_size: int = 32) -> SFTSettings:
    return SFTSettings(steps=steps, learning_rate=rate, seed=seed, batch_size=batch_size)


def fine_tune(
    base: str | Path, rows: Iterable[tuple[str, str]], settings: SFTSettings, **options: object
) -> LoadedModel:
    """A base model, fine-tuned on rows of prompt and completion."""
    model, tokenizer = load_model(base)
    sft(model, tokenizer, [example(tokenizer, *row) for row in rows], settings, **options)
    return model, tokenizer


def sampler(loaded: LoadedModel) -> Sampler:
    """What completes prompts by this model, greedily at temperature 0."""
    return lambda prompts, temperature, seed: generate(
        *loaded, prompts, max_new_tokens=100, temperature=temperature, seed=seed
    )


def train_reward(pairs: Sequence[Preference], settings: SFTSettings) -> Reward:
    """A reward model, trained from the base on these pairs."""
    _, tokenizer = load_model(TINY.base)
    model = reward_model(TINY.base, tokenizer, pairs, settings)
    return lambda prompts, texts: rewards(model, tokenizer, prompts, texts).numpy()


def marks(prompts: Texts, texts: Texts) -> dict[str, np.ndarray]:
    """The exact judge's marks of answers to prompts that end with the cue for them."""
    return JUDGE.scores([prompt.removesuffix(ANSWER_CUE) for prompt in prompts], texts)


def swap(pair: Preference) -> Preference:
    """The pair with chosen and rejected text exchanged."""
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen)


def mean_words(texts: Texts) -> float:
    return float(np.mean([len(text.split()) for text in texts]))


def with_suffix(metrics: Mapping[str, float], suffix: str) -> dict[str, float]:
    return {f"{name}{suffix}": value for name, value in metrics.items()}


def best_mean(found: Sequence[Mapping[str, float]], *aims: str) -> int:
    """Which trial has the best mean of the aims: the one rule for choosing settings.

    Pass metrics on validation rows; what is chosen is reported on the test.
    """
    return max(range(len(found)), key=lambda i: sum(found[i][aim] for aim in aims))


def means(scores: Mapping[str, Sequence[float]], suffix: str = "") -> dict[str, float]:
    """The mean of each metric's scores."""
    return {f"{name}{suffix}": float(np.mean(each)) for name, each in scores.items()}


def values(comparison: Comparison, *names: str, suffix: str = "") -> dict[str, float]:
    """Estimates of ESTIMATES, without those that the comparison cannot make."""
    estimates = {f"{name}{suffix}": ESTIMATES[name](comparison) for name in names}
    return {name: estimate.value for name, estimate in estimates.items() if estimate is not None}
