"""Upstream models: anything that answers questions. An Aligner needs only their text (lesson 03).

Each is called with questions and a seed, and gives as many answers, in order: a model on this
machine, answers recorded in a file, or a model behind a server that speaks OpenAI's protocol.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from .records import read_records
from .texts import whole_characters


class UpstreamError(ValueError):
    """An upstream that gives no answer; the message says which, and what to do."""


class Upstream(Protocol):
    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]: ...


@dataclass
class Local:
    """A causal LM, asked in its own chat format if it has one; greedy at temperature 0.

    Reasoning before an answer is taken off. A question that fills the context has an empty answer,
    and is named in `problems`, as are answers that did not come to an end.
    """

    model: str | Path  # folder or hub id
    prompt: str = "{question} answer :"  # of a model without a chat format
    temperature: float = 0.0
    max_new_tokens: int = 100
    progress: str | None = None
    problems: dict[str, str] = field(default_factory=dict)  # of the last call, by question

    @property
    def identity(self) -> str:
        """All that an answer depends on, besides question and seed."""
        from .model_names import fingerprint

        settings = (self.prompt, self.temperature, self.max_new_tokens)
        digest = hashlib.sha256(fingerprint(self.model).encode()).hexdigest()
        return f"{digest[:16]} {settings}"

    @cached_property
    def _loaded(self):
        from .models import load_model

        return load_model(self.model)

    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]:
        from .generation import is_finished, sample
        from .replies import without_thought
        from .tokens import chat_ids, context_length, encode

        model, tokenizer = self._loaded
        if tokenizer.chat_template:
            prompts = [chat_ids(tokenizer, [{"role": "user", "content": q}]) for q in questions]
        else:
            texts = [self.prompt.replace("{question}", q) for q in questions]
            prompts = [encode(tokenizer, text) for text in texts]
        room = [context_length(model) - len(prompt) for prompt in prompts]
        limits = [max(0, min(self.max_new_tokens, space)) for space in room]
        fits = [i for i, limit in enumerate(limits) if limit]
        settings = {"max_new_tokens": [limits[i] for i in fits], "temperature": self.temperature}
        settings |= {"seed": seed, "progress": self.progress}
        found = sample(model, tokenizer, [prompts[i] for i in fits], **settings)
        answers, self.problems = [""] * len(prompts), {}
        for i, ids in zip(fits, found, strict=True):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            answers[i], _ = without_thought(text)
            if not is_finished(ids, model, tokenizer):
                self.problems[questions[i]] = "unfinished"
        too_long = (q for q, limit in zip(questions, limits) if not limit)
        self.problems |= dict.fromkeys(too_long, "too long for the context")
        return answers


@dataclass(frozen=True)
class Recorded:
    """Answers by question, of a model out of reach; `source` is named when one is missing."""

    answers: Mapping[str, str]
    source: str = "these answers"

    @property
    def identity(self) -> str:
        """All that an answer depends on, besides the question."""
        return hashlib.sha256(json.dumps(sorted(self.answers.items())).encode()).hexdigest()[:16]

    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]:
        missing = [q for q in questions if q not in self.answers]
        if missing:
            raise UpstreamError(
                f"{self.source}: no answer to {len(missing)} of {len(questions)} questions, "
                f"such as {missing[0][-80:]!r}; record them too"
            )
        return [self.answers[q] for q in questions]

    @classmethod
    def read(cls, path: str | Path) -> Recorded:
        """From a file with rows {question, answer}: a JSON list or JSON lines, gzipped or not."""
        found = {}
        for place, row in read_records(path):
            known = row if isinstance(row, dict) else {}
            if not all(isinstance(known.get(key), str) for key in ("question", "answer")):
                what = "no text under 'question' and 'answer'; write both, or delete the row"
                raise UpstreamError(f"{place}: {what}")
            question, answer = map(whole_characters, (row["question"], row["answer"]))
            if found.setdefault(question, answer) != answer:
                what = "a second answer to a question answered before; keep one of them"
                raise UpstreamError(f"{place}: {what}")
        return cls(found, str(path))
