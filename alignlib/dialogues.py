"""Records as dialogues: their texts, their turns, and the one text that a prompt's turns become.

Of a single question that is the question itself, of several turns `Human: ...` and
`Assistant: ...`, with the system's text in front of either.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .place import DataError, Place
from .texts import whole_characters

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"  # as in HH-RLHF
USER_ROLES = ("user", "human", "prompter")
MODEL_ROLES = ("assistant", "gpt", "chatgpt", "model", "bot", "ai")
SYSTEM_ROLES = ("system", "developer")
PROMPTS = ("question", "prompt", "instruction", "query", "input")
SYSTEMS = ("system", "system_prompt", "system_message")
EXTRAS = ("input", "context")  # what a prompt is about
DIALOGUES = ("messages", "conversations", "conversation")
EMPTY = "an empty field"
_MESSAGES = re.compile(r"\s*\[?\s*\{\s*['\"](role|from|content|value)['\"]\s*:")


class Dropped(Exception):
    """Raised where a record turns out to be no row; its text is the reason."""


@dataclass(frozen=True)
class Turn:
    """One turn of a dialogue. `role`: "user", "assistant" or "system"."""

    role: str
    text: str


@dataclass
class Record:
    """A record with its place; `changed` counts what had to be changed in its texts."""

    fields: dict[str, Any]
    at: Place
    changed: Counter[str] = field(default_factory=Counter)

    def first(self, keys: Sequence[str]) -> str | None:
        """The first of these keys that the record has, be it null where it has no other."""
        there = [key for key in keys if key in self.fields]
        return next((key for key in there if self.fields[key] is not None), next(iter(there), None))

    def text(self, key: str) -> str:
        """The text under a key. Raises Dropped if it is empty, DataError if it is no text."""
        value = self.fields.get(key)
        if value is not None and value == value and not isinstance(value, str):
            fix = "write the text itself"
            raise DataError(f"{self.at}: field {key!r} is {_kind(value)}, not text; {fix}")
        if not isinstance(value, str) or not value.strip():  # null, or pandas' NaN
            raise Dropped(EMPTY)
        return self.clean(value)

    def optional(self, key: str) -> str:
        """The text under a key that may be absent, null or empty."""
        value = self.fields.get(key)
        is_empty = value is None or value != value or not str(value).strip()  # pandas' NaN, too
        return "" if is_empty else self.text(key)

    def clean(self, text: str) -> str:
        """The text, in which halves of characters (lone surrogates) are replaced and counted."""
        whole = whole_characters(text)
        if whole != text:
            self.changed["half a character (a lone surrogate) replaced"] += 1
        return whole

    def turns(self, key: str) -> list[Turn] | None:
        """The messages under a key; None if there is a plain text. Raises Dropped or DataError."""
        value = self.fields[key]
        if isinstance(value, str) and _MESSAGES.match(value):
            value = self.unquoted(key, value)
        if value is None or isinstance(value, str):
            return None
        messages = [value] if isinstance(value, dict) else value
        if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
            fix = "write the text itself, or a list of messages with 'role' and 'content'"
            raise DataError(f"{self.at}: field {key!r} is {_kind(value)}, not text; {fix}")
        if not messages:
            raise Dropped(EMPTY)
        return [self._turn(key, message) for message in messages]

    def unquoted(self, key: str, text: str) -> Any:
        """Messages that a table holds as text, in JSON or as Python prints them."""
        for read in (json.loads, ast.literal_eval):
            try:
                return read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
        what = f"field {key!r} looks like messages or turns, but cannot be read as such"
        raise DataError(f"{self.at}: {what}; export the rows as JSON lines")

    def _turn(self, key: str, message: dict[str, Any]) -> Turn:
        role = message.get("role", message.get("from"))
        content = message.get("content", message.get("value"))
        kinds = {"user": USER_ROLES, "assistant": MODEL_ROLES, "system": SYSTEM_ROLES}
        name = str(role).lower()
        kind = next((kind for kind, names in kinds.items() if name in names), None)
        if role is None:
            what = f"a message in field {key!r} has no 'role' (it has {', '.join(message)})"
            raise DataError(f"{self.at}: {what}; write 'role' and 'content'")
        if kind is None:
            raise Dropped(f"a turn of {role!r}, who is neither user, assistant nor system")
        if isinstance(content, list):
            content = "".join(self._part(part) for part in content)
        if content is None and kind == "system":
            content = ""
        if not isinstance(content, str) or (not content.strip() and kind != "system"):
            raise Dropped("a turn without text")
        return Turn(kind, self.clean(content))

    def _part(self, part: Any) -> str:
        if isinstance(part, str):
            return part
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise Dropped("a turn with a part that is no text (a picture, say)")
        return part["text"]


def _kind(value: object) -> str:
    return type(value).__name__


def as_text(turns: Sequence[Turn]) -> str:
    """A prompt's turns as one text. Raises Dropped if the user has not the last word."""
    system = [turn.text.strip() for turn in turns if turn.role == "system" and turn.text.strip()]
    system = list(dict.fromkeys(system))  # the same may stand in a field and in a turn
    rest = [turn for turn in turns if turn.role != "system"]
    if not rest or rest[-1].role != "user":
        raise Dropped("a prompt that does not end with the user's turn")
    names = {"user": HUMAN.strip(), "assistant": ASSISTANT.strip()}
    spoken = [f"{names[turn.role]} {turn.text.strip()}" for turn in rest]
    return "\n\n".join([*system, *(spoken if len(rest) > 1 else [rest[0].text])])


def system_turns(record: Record) -> list[Turn]:
    """The system's text, if there is one."""
    texts = [record.optional(key) for key in SYSTEMS if key in record.fields]
    return [Turn("system", text) for text in texts if text]


def context(record: Record, with_dialogue: bool = True) -> list[Turn]:
    """System text, earlier turns and prompt of a record, as far as it has them.

    A whole dialogue beside a prompt (or, without `with_dialogue`, any) is not read: where there are
    both, its last turn is mostly the answer.
    """
    turns = system_turns(record) + history(record)
    prompt, dialogue = record.first(PROMPTS), record.first(DIALOGUES)
    if prompt is not None and record.fields[prompt] is None:
        return turns
    if prompt is not None:
        asked = record.turns(prompt)
        if asked is None:
            extras = (key for key in EXTRAS if isinstance(record.fields.get(key), str))
            keys = [prompt, *(key for key in extras if key != prompt)]
            texts = list(filter(None, map(record.optional, keys)))
            if not texts:
                raise Dropped(EMPTY)
            asked = [Turn("user", "\n".join(texts))]
        turns += asked
    elif dialogue is not None and with_dialogue:
        turns += record.turns(dialogue) or [Turn("user", record.text(dialogue))]
    return turns


def history(record: Record) -> list[Turn]:
    """Earlier turns under `history`: pairs of question and answer, or messages."""
    earlier = record.fields.get("history") or []
    if isinstance(earlier, str):  # of a table
        earlier = record.unquoted("history", earlier) if earlier.strip() else []
    if earlier != earlier:  # pandas' NaN
        earlier = []
    if isinstance(earlier, list) and earlier and isinstance(earlier[0], dict):
        return record.turns("history") or []
    pairs = earlier if isinstance(earlier, list) else [earlier]
    if not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        fix = "write it as a list of [question, answer] or of messages"
        raise DataError(f"{record.at}: field 'history' is no list of earlier turns; {fix}")
    texts = [record.clean(str(text or "")) for pair in pairs for text in pair]
    return [Turn("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]


def reply(record: Record, key: str, before: Sequence[Turn]) -> tuple[list[Turn], str]:
    """The turns before a completion, and its text: a plain text, or a dialogue's last turn."""
    turns = record.turns(key)
    if turns is None:
        return list(before), record.text(key)
    if turns[-1].role != "assistant":
        raise Dropped("a dialogue that does not end with the assistant's turn")
    *earlier, last = turns
    return _followed_by(before, earlier), last.text


def _followed_by(before: Sequence[Turn], dialogue: Sequence[Turn]) -> list[Turn]:
    """Both lists of turns as one, without those that the second repeats of the first."""
    system = [turn for turn in (*before, *dialogue) if turn.role == "system"]
    first, second = (
        [turn for turn in turns if turn.role != "system"] for turns in (before, dialogue)
    )
    plain = [(turn.role, turn.text.split()) for turn in first]
    other = [(turn.role, turn.text.split()) for turn in second]
    starts = second and second[0].role == "user"
    if starts and any(other[i : i + len(plain)] == plain for i in range(len(other))):
        return [*system, *second]
    overlap = next(n for n in range(len(plain), -1, -1) if plain[len(plain) - n :] == other[:n])
    return [*system, *first[: len(first) - overlap], *second]


def without_mark(prompt: str) -> str:
    """A prompt in HH-RLHF's form without the mark of the turn that is to come."""
    text = prompt.strip()
    is_dialogue = text.startswith(HUMAN.strip()) and text.endswith(ASSISTANT.strip())
    return text.removesuffix(ASSISTANT.strip()).strip() if is_dialogue else prompt


def without_prompt(record: Record, prompt: str, texts: Sequence[str]) -> list[str]:
    """The texts without the prompt that all of them repeat; turns of the human are refused.

    An answer to "Hello" may well begin with it, and a recipe with its name: what is taken off is a
    whole sentence, or ends with the mark of the assistant's turn.
    """
    start = prompt.strip()
    rest = [text.strip().removeprefix(start) for text in texts]
    is_sentence = len(start.split()) >= 3 and start.endswith((".", "?", "!", ":"))
    is_whole = is_sentence or all(t.strip().startswith(ASSISTANT.strip()) for t in rest)
    if is_whole and all(t.strip().startswith(start) for t in texts) and all(map(str.strip, rest)):
        record.changed["prompt taken off the answers, which repeated it"] += 1
        texts = [text.strip().removeprefix(ASSISTANT.strip()).strip() for text in rest]
    if any(HUMAN in text for text in texts):
        raise Dropped("an answer that goes on with a turn of the human")
    return list(texts)
