"""The rows that methods are trained on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QAC:
    """One row of an Aligner's data. `faults` (Tinytown only) names what is wrong in the answer."""

    question: str
    answer: str
    correction: str
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preference:
    """Two completions of a prompt, of which the first is preferred."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Instruction:
    """A prompt with the completion to learn."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Marked:
    """A completion with its mark: 1 or 0 for thumbs up and down, or a rating."""

    prompt: str
    completion: str
    mark: float
