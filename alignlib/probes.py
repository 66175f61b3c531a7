"""What can be read off states along a line: linear probes, their AUC, and directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .stats import Estimate

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

PERMUTATIONS = 20  # of the labels, for the control
StatePair = tuple[np.ndarray, np.ndarray]  # two kinds of states, each (n, width)


@dataclass(frozen=True)
class Probe:
    """A linear classifier of states: its weights and its AUC on validation and test."""

    weights: np.ndarray  # (width,), for standardized states
    validation: float
    test: Estimate


def probe(
    train: StatePair, validation: StatePair, test: StatePair, *, paired: bool = True
) -> Probe:
    """Logistic regression on standardized states: the first kind against the second.

    `paired` is that of `auc` for the test; sets of different size never are.
    """
    classifier = _fit(train, _labels(train))
    paired = paired and len(test[0]) == len(test[1])
    return Probe(
        weights=classifier[-1].coef_[0],
        validation=_area(*_scores(classifier, validation)),
        test=auc(*_scores(classifier, test), paired=paired),
    )


def probe_of_chance(train: StatePair, test: StatePair) -> Estimate:
    """The control: test AUC with permuted labels; mean, lowest and highest over permutations."""
    areas = []
    for seed in range(PERMUTATIONS):
        labels = np.random.default_rng(seed).permutation(_labels(train))
        areas.append(_area(*_scores(_fit(train, labels), test)))
    unit = f"AUC; low to high: all {PERMUTATIONS}"
    return Estimate(float(np.mean(areas)), min(areas), max(areas), PERMUTATIONS, unit)


def _labels(pair: StatePair) -> np.ndarray:
    return np.repeat([1, 0], [len(pair[0]), len(pair[1])])


def _fit(train: StatePair, labels: np.ndarray) -> Pipeline:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return classifier.fit(np.concatenate(train), labels)


def _scores(classifier: Pipeline, pair: StatePair) -> StatePair:
    """The score of each state, two arrays (n,)."""
    return classifier.decision_function(pair[0]), classifier.decision_function(pair[1])


def auc(
    first: np.ndarray, second: np.ndarray, draws: int = 500, seed: int = 0, *, paired: bool = True
) -> Estimate:
    """The probability that a score of the first kind exceeds one of the second; a tie counts half.

    If `paired`, scores i of both come from one question, and the bootstrap draws them as a pair;
    else it draws from each set on its own. Raises ValueError for paired sets of different size.
    """
    n, m = len(first), len(second)
    if paired and n != m:
        raise ValueError(f"{n} and {m} scores cannot be paired; pass paired=False")
    rng = np.random.default_rng(seed)
    areas = []
    for _ in range(draws):
        i = rng.integers(0, n, n)
        j = i if paired else rng.integers(0, m, m)
        areas.append(_area(first[i], second[j]))
    low, high = np.percentile(areas, [2.5, 97.5])
    return Estimate(_area(first, second), float(low), float(high), n + m, "AUC")


def _area(first: np.ndarray, second: np.ndarray) -> float:
    """The area under the ROC curve, from the ranks of all scores (Mann-Whitney)."""
    from scipy.stats import rankdata

    n, m = len(first), len(second)
    ranks = rankdata(np.concatenate([first, second]))  # (n + m,), from 1; ties share a mean rank
    wins = ranks[:n].sum() - n * (n + 1) / 2
    return float(wins / (n * m))


def direction(differences: torch.Tensor) -> torch.Tensor:
    """The line along which states differ most, (n, width) -> (width,), of length 1.

    It is the first principal component, about zero, of the normalized differences. Its sign is
    arbitrary: fix it on rows whose answer you know (2402.02416, appendix B.6, after Zou et al.).
    """
    normalized = torch.nn.functional.normalize(differences, dim=-1)
    return torch.linalg.svd(normalized, full_matrices=False).Vh[0]
