"""What a learned judge thinks: pairs of answers compared, with the judge's own quality beside it.

A learned judge is no measure of truth. So its verdict stands beside its agreement with labelled
pairs and, for a judge that reads both answers at once, beside how often it prefers whatever stands
first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .data import Preference
from .judges import Judge
from .stats import Estimate, bootstrap_mean, rate
from .texts import filled_in
from .upstream import Upstream

QUESTION = """Which answer to the question is better: more correct, more helpful and more polite? \
Reply with one letter alone: A, B, or T if there is no difference.

Question: {question}

Answer A: {first}

Answer B: {second}"""
PLACES = ("{question}", "{first}", "{second}")
CHANCE = 0.5  # agreement of a judge that guesses
BIASED = 0.5  # share of pairs in which the order decides, from which on no verdict is given


class PairJudge(Protocol):
    """Decides which of two answers is better."""

    def wins(
        self, questions: Sequence[str], before: Sequence[str], after: Sequence[str]
    ) -> np.ndarray:
        """1 where `after` is better, -1 where `before` is, 0 for a tie; shape (n,)."""


@dataclass
class ByScore:
    """A judge that scores, as one that compares: the higher overall score wins."""

    judge: Judge

    def wins(
        self, questions: Sequence[str], before: Sequence[str], after: Sequence[str]
    ) -> np.ndarray:
        """See `PairJudge`."""
        marks = self.judge.scores([*questions, *questions], [*before, *after]).get("overall")
        if marks is None:
            raise ValueError("this judge gives no overall score, so it cannot compare answers")
        return np.sign(marks[len(before) :] - marks[: len(before)])


@dataclass
class ModelJudge:
    """A language model that is shown both answers, once in each order.

    A pair counts only if it says the same in both orders, else it is a tie. `first` is how often it
    chose the answer shown first, by pair; `unread` counts replies that name no answer or were cut
    off, which are ties too. Raises ValueError for a `question` without its three places.
    """

    model: Upstream
    question: str = QUESTION
    first: Estimate | None = None
    order_decided: Estimate | None = None
    unread: int = 0

    def __post_init__(self) -> None:
        if not all(place in self.question for place in PLACES):
            raise ValueError(f"the judge's question must hold {', '.join(PLACES)}")

    def wins(
        self, questions: Sequence[str], before: Sequence[str], after: Sequence[str]
    ) -> np.ndarray:
        """See `PairJudge`."""
        asked = [self._ask(*texts) for texts in zip(questions, before, after, strict=True)]
        turned = [self._ask(*texts) for texts in zip(questions, after, before, strict=True)]
        both = list(dict.fromkeys(asked + turned))
        replies = dict(zip(both, self.model(both), strict=True))
        replies |= dict.fromkeys(getattr(self.model, "problems", {}), "")  # cut off or refused
        chosen = np.array([_choice(replies[task]) for task in asked + turned])
        self.unread = int(np.isnan(chosen).sum())
        orders = np.nan_to_num(chosen).reshape(2, -1)  # -1: the first answer, 1: the second
        choices, firsts = (orders != 0).sum(0), (orders < 0).sum(0)  # (n,)
        some = choices > 0
        self.first = bootstrap_mean(firsts[some] / choices[some]) if some.any() else None
        straight, turned_round = orders
        decided = (straight != 0) & (straight == turned_round)  # the same place in both orders
        self.order_decided = rate(decided) if len(decided) else None
        return np.where(straight == -turned_round, straight, 0)

    def _ask(self, question: str, first: str, second: str) -> str:
        return filled_in(self.question, dict(zip(PLACES, (question, first, second), strict=True)))


def _choice(reply: str) -> float:
    """-1 for A, 1 for B, 0 for a tie, NaN if the reply names none of them."""
    text = reply.strip().strip("().*\"'` \n").upper()
    if text == "TIE":
        return 0.0
    marked = re.findall(r"\[\[([ABT])\]\]", text)
    final = re.search(r"(?:ANSWER|VERDICT)\s*(?:IS)?\s*:\W*([ABT])\W*$", text)
    alone = re.match(r"(?:(?:ANSWER|OPTION)\W*)?([ABT])(?:$|[\s*]*[\n,.;)])(?!.*\b[ABT]\W)", text)
    found = marked[-1:] or [match[1] for match in (final, alone) if match]
    return {"A": -1.0, "B": 1.0, "T": 0.0}[found[0]] if found else float("nan")


@dataclass(frozen=True)
class Opinion:
    """A learned judge's verdict on corrections, and what is known of the judge."""

    net_win: Estimate  # of the corrections, in points: percent won minus percent lost
    counts: Counter[str] = field(default_factory=Counter)  # won, lost, tied, unchanged
    agreement: Estimate | None = None  # with labelled pairs; a tie is half of one
    first: Estimate | None = None  # how often it chose the answer shown first
    order_decided: Estimate | None = None  # pairs in which the order decided

    @property
    def verdict(self) -> str:
        """better, worse, or cannot tell: also where the judge is no better than a guess."""
        if self.agreement is None or self.agreement.low <= CHANCE:
            return "cannot tell"
        if self.order_decided is not None and self.order_decided.value >= BIASED:
            return "cannot tell"
        if self.net_win.low > 0:
            return "better"
        return "worse" if self.net_win.high < 0 else "cannot tell"

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {what}" for what, n in self.counts.items())
        lines = [f"verdict: {self.verdict}; net win {self.net_win} ({counts})"]
        agreed = self.agreement or "not measured: no labelled pairs"
        lines.append(f"the judge agrees with the labelled pairs: {agreed}")
        if self.first is not None:
            lines.append(f"it chose the answer shown first: {self.first}")
            lines.append(f"pairs in which the order decided, which are ties: {self.order_decided}")
        return "\n".join(lines)


def opinion(
    judge: PairJudge | Judge,
    questions: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    labelled: Sequence[Preference] = (),
) -> Opinion:
    """What a learned judge thinks of corrections, and how far it can be trusted.

    Equal texts tie by definition and are not shown to it. `labelled` are pairs of which it is known
    which is better; without any, the verdict is that one cannot tell. Raises ValueError for no
    answers.
    """
    if not before or not len(questions) == len(before) == len(after):
        sizes = f"{len(questions)} questions, {len(before)} answers, {len(after)} corrections"
        raise ValueError(f"nothing to compare: {sizes}")
    compare = _comparing(judge)
    changed = [i for i in range(len(before)) if before[i].split() != after[i].split()]
    wins, pick = np.zeros(len(before)), lambda texts: [texts[i] for i in changed]
    agreed = agreement(compare, labelled)
    if changed:
        wins[changed] = compare.wins(pick(questions), pick(before), pick(after))
    counts = Counter(won=int((wins > 0).sum()), lost=int((wins < 0).sum()))
    counts["tied"] = int((wins[changed] == 0).sum())
    counts["unchanged"] = len(before) - len(changed)
    about = []  # what is known of a judge that was shown pairs: these or, if none, the labelled
    if isinstance(compare, ModelJudge) and (changed or agreed is not None):
        about = [compare.first, compare.order_decided]
    if changed and getattr(compare, "unread", 0):
        counts["unread replies"] = compare.unread
    net_win = bootstrap_mean(100 * wins, "points")
    return Opinion(net_win, counts, agreed, *about)


def agreement(judge: PairJudge | Judge, labelled: Sequence[Preference]) -> Estimate | None:
    """How often a judge prefers the chosen text; a tie counts half, as much as a guess."""
    pairs = [pair for pair in labelled if pair.chosen.split() != pair.rejected.split()]
    if not pairs:
        return None
    texts = ([getattr(p, name) for p in pairs] for name in ("prompt", "rejected", "chosen"))
    return bootstrap_mean((_comparing(judge).wins(*texts) + 1) / 2)


def _comparing(judge: PairJudge | Judge) -> PairJudge:
    return judge if hasattr(judge, "wins") else ByScore(judge)
