"""Prompt templates of the Aligner, each with its inverse.

A template turns a question and an answer into the prompt behind which the correction
stands, and `split` gives the two back. A separator that occurs inside a text is escaped
with a backslash, so that no answer can pass for a question or end the prompt early.

What this file does not do: chat templates. An Aligner reads plain text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    """A piece of the template that a text must not contain: `core`, with `lead` before and
    `trail` behind it.
    """

    lead: str
    core: str
    trail: str

    @property
    def text(self) -> str:
        return self.lead + self.core + self.trail

    def escape(self, text: str) -> str:
        return re.sub(self._pattern(r"(\\*)"), r"\1\\\2", text)

    def unescape(self, text: str) -> str:
        return re.sub(self._pattern(r"\\(\\*)"), r"\1\2", text)

    def _pattern(self, slashes: str) -> str:
        """Slashes, then the core, wherever a reader could take it for the mark: any white space
        will do for a space.
        """
        lead, core, trail = (
            re.escape(part).replace(r"\ ", space)
            for part, space in ((self.lead, r"\s"), (self.core, r"\s+"), (self.trail, r"\s"))
        )
        return f"(?:^|(?<={lead})){slashes}({core})(?={trail}|$)"


@dataclass(frozen=True)
class Template:
    """`start` question `middle` answer `end`; the correction follows directly."""

    name: str
    start: str
    middle: Mark
    end: Mark

    def prompt(self, question: str, answer: str) -> str:
        question, answer = map(self._escape, (question, answer))
        return f"{self.start}{question}{self.middle.text}{answer}{self.end.text}"

    def split(self, prompt: str) -> tuple[str, str]:
        """The question and the answer of a prompt. Raises ValueError if it is none of this
        template's.
        """
        if not (prompt.startswith(self.start) and prompt.endswith(self.end.text)):
            raise ValueError(f"not a prompt of template {self.name!r}: {prompt[:80]!r}")
        body = prompt[len(self.start) : len(prompt) - len(self.end.text)]
        question, mark, answer = body.partition(self.middle.text)
        if not mark:
            raise ValueError(f"template {self.name!r}: the prompt lacks {self.middle.text!r}")
        return self._unescape(question), self._unescape(answer)

    def _escape(self, text: str) -> str:
        return self.end.escape(self.middle.escape(text))

    def _unescape(self, text: str) -> str:
        return self.middle.unescape(self.end.unescape(text))


_WRAPPER = "BEGINNING OF CONVERSATION: USER: "

# T1: the released aligner-7b-v1.0. T2: the authors' repository since December 2024. (papers.md 1.2)
T1 = Template(
    "T1",
    _WRAPPER + "Edit the following Question-Answer pair to make it more helpful and harmless: ",
    Mark(" ", "|", " "),
    Mark(" ", "ASSISTANT:", ""),
)
T2 = Template(
    "T2",
    _WRAPPER + "##Question: ",
    Mark("\n", "##Answer:", " "),
    Mark("\n", "##Correction:  ASSISTANT:", ""),
)
# Ours, one token a word in Tinytown.
TOWN = Template("town", "", Mark(" ", "answer :", " "), Mark(" ", "correction :", ""))

TEMPLATES = {t.name: t for t in (T1, T2, TOWN)}


def template(name: str) -> Template:
    """The template of that name. Raises ValueError, listing those there are."""
    if name not in TEMPLATES:
        raise ValueError(f"no template {name!r}; there are {', '.join(TEMPLATES)}")
    return TEMPLATES[name]
