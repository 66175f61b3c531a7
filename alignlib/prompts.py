"""Prompt templates of the Aligner, and their inverse.

A template turns a question and an answer into the prompt that the correction follows; `split` turns
the prompt back into both. A separator that occurs inside a text is escaped with a backslash, so
that an answer can neither pass for a question nor end the prompt early.

A template with `chat` is the user's message in the chat template of the model's own tokenizer,
which `tokens.chat_ids` puts around it; the others are plain text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# forms of a prompt that is alone: as it is, with a word where the answer begins, or as the user's
# message in the chat template of the model's tokenizer
AS_IS, ANSWER, IN_CHAT = "{}", "{}\n\nAnswer:", "chat"


@dataclass(frozen=True)
class Separator:
    """The text between two parts of a prompt: `core`, with `lead` before and `trail` after it."""

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
        """Slashes and the core, wherever a reader could take them for the separator.

        Any white space counts as a space.
        """
        lead = re.escape(self.lead).replace(r"\ ", r"\s")
        core = re.escape(self.core).replace(r"\ ", r"\s+")
        trail = re.escape(self.trail).replace(r"\ ", r"\s")
        return f"(?:^|(?<={lead})){slashes}({core})(?={trail}|$)"


@dataclass(frozen=True)
class Template:
    """`start`, the question, `middle`, the answer, `end`; the correction follows directly.

    With `chat` all of it is what the user says, and the correction is the model's turn.
    """

    name: str
    start: str
    middle: Separator
    end: Separator
    chat: bool = False

    def prompt(self, question: str, answer: str) -> str:
        question, answer = self._escape(question), self._escape(answer)
        return f"{self.start}{question}{self.middle.text}{answer}{self.end.text}"

    def split(self, prompt: str) -> tuple[str, str]:
        """Question and answer of a prompt. Raises ValueError if the template did not make it."""
        if not (prompt.startswith(self.start) and prompt.endswith(self.end.text)):
            raise ValueError(f"not a prompt of template {self.name!r}: {prompt[:80]!r}")
        body = prompt[len(self.start) : len(prompt) - len(self.end.text)]
        question, separator, answer = body.partition(self.middle.text)
        if not separator:
            raise ValueError(f"template {self.name!r}: the prompt lacks {self.middle.text!r}")
        return self._unescape(question), self._unescape(answer)

    @classmethod
    def from_saved(cls, saved: dict | str) -> Template:
        """The template that `dataclasses.asdict` made a dict of; a name means a built-in one."""
        if isinstance(saved, str):
            return template(saved)
        middle, end = Separator(**saved["middle"]), Separator(**saved["end"])
        restored = cls(saved["name"], saved["start"], middle, end, saved.get("chat", False))
        built_in = TEMPLATES.get(restored.name)
        return built_in if built_in == restored else restored

    def _escape(self, text: str) -> str:
        return self.end.escape(self.middle.escape(text))

    def _unescape(self, text: str) -> str:
        return self.middle.unescape(self.end.unescape(text))


_WRAPPER = "BEGINNING OF CONVERSATION: USER: "
_EDIT = "Edit the following Question-Answer pair to make it more helpful and harmless: "

# T1: the released aligner-7b-v1.0. T2: the authors' repository since December 2024.
# CHAT: ours, for models with a chat template.
# TOWN: ours; each of its words is one token of Tinytown's vocabulary.
T1 = Template("T1", _WRAPPER + _EDIT, Separator(" ", "|", " "), Separator(" ", "ASSISTANT:", ""))
T2 = Template(
    "T2",
    _WRAPPER + "##Question: ",
    Separator("\n", "##Answer:", " "),
    Separator("\n", "##Correction:  ASSISTANT:", ""),
)
CHAT = Template(
    "chat",
    "Correct the answer to the question. Change only what is wrong.\n\n##Question: ",
    Separator("\n", "##Answer:", " "),
    Separator("\n", "##Correction:", ""),
    chat=True,
)
TOWN = Template("town", "", Separator(" ", "answer :", " "), Separator(" ", "correction :", ""))

TEMPLATES = {t.name: t for t in (T1, T2, CHAT, TOWN)}


def template(name: str) -> Template:
    """The template of that name. Raises ValueError, listing the known names, if there is none."""
    if name not in TEMPLATES:
        raise ValueError(f"no template {name!r}; there are {', '.join(TEMPLATES)}")
    return TEMPLATES[name]
