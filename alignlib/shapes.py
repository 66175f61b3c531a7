"""What a record means: the shapes that people's rows have, each read as one of ours.

What cannot be a row of the kind asked for raises `Dropped` with its reason; a file that has no such
rows is refused with the fix. Texts and turns are read by `dialogues.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from .dialogues import (
    ASSISTANT,
    DIALOGUES,
    EMPTY,
    HUMAN,
    PROMPTS,
    Dropped,
    Record,
    Turn,
    as_text,
    context,
    history,
    reply,
    system_turns,
    without_mark,
    without_prompt,
)
from .place import DataError
from .rows import QAC, Instruction, Marked, Preference

COMPLETIONS = ("completion", "response", "output", "answer")
MARKS = ("label", "thumbs_up", "thumbs", "kto_tag", "feedback")
RATINGS = ("score", "rating", "overall_score", "stars", "reward")


def pair_of(record: Record, chosen: str, rejected: str) -> Preference:
    """Prompt, chosen and rejected text of a record with these two keys."""
    dialogue = record.turns(chosen)
    before = context(record, with_dialogue=dialogue is None or len(dialogue) == 1)
    if not before and dialogue is None:
        if record.first(PROMPTS) is not None and ASSISTANT not in record.text(chosen):
            raise Dropped(EMPTY)
        return _hh_pair(record, chosen, rejected)
    (turns, good), (others, bad) = (reply(record, key, before) for key in (chosen, rejected))
    if turns != others:
        raise Dropped("chosen and rejected do not answer the same prompt")
    prompt = without_mark(as_text(turns))
    return Preference(prompt, *without_prompt(record, prompt, [good, bad]))


def _hh_pair(record: Record, chosen: str, rejected: str) -> Preference:
    """Whole dialogues, as in HH-RLHF: the last turn is the answer, what precedes it the prompt."""
    texts = [record.text(key).replace("\r\n", "\n") for key in (chosen, rejected)]
    turns = [text.rpartition(ASSISTANT) for text in texts]
    (prompt, mark, good), (other, _, bad) = turns
    if not mark:
        what = f"no prompt beside {chosen!r} and {rejected!r}, and no turn '\\n\\nAssistant:' in it"
        fix = "add the field 'prompt'; if a field of another name holds it, rename that"
        raise DataError(f"{record.at}: {what}; {fix}")
    if any(HUMAN in answer for answer in (good, bad)):
        raise Dropped("an answer that goes on with a turn of the human")
    if prompt != other:
        raise Dropped("chosen and rejected do not answer the same prompt")
    if not good.strip() or not bad.strip():
        raise Dropped("the last turn is empty")
    return Preference(*map(record.clean, (prompt.strip(), good.strip(), bad.strip())))


def rejected_response(record: Record) -> Preference:
    """A dialogue whose last turn is preferred to `rejected_response`."""
    key = record.first(DIALOGUES)
    before, good = _dialogue(record, key)
    prompt = as_text([*system_turns(record), *history(record), *before])
    return Preference(prompt, good, record.text("rejected_response"))


def preferred_output(record: Record) -> Preference:
    """OpenAI's form: `input` with messages, `preferred_output`, `non_preferred_output`."""
    given = record.fields["input"]
    messages = given.get("messages") if isinstance(given, dict) else given
    before = Record({"messages": messages}, record.at, record.changed).turns("messages")
    texts = [reply(record, f"{kind}preferred_output", [])[1] for kind in ("", "non_")]
    return Preference(as_text(before or [Turn("user", str(messages))]), *texts)


def better_response(record: Record) -> Preference:
    """Two responses and `better_response_id`, the number of the better one."""
    better = record.fields["better_response_id"]
    if better not in (0, 1, "0", "1"):
        raise Dropped("no response is better")
    return pair_of(record, f"response_{int(better)}", f"response_{1 - int(better)}")


def _dialogue(record: Record, key: str) -> tuple[list[Turn], str]:
    """A dialogue's turns before the last one, and that one's text."""
    before, text = reply(record, key, [])
    if not before:
        raise Dropped("a prompt that does not end with the user's turn")
    return before, text


def whole_dialogue(record: Record) -> Instruction:
    """Prompt and completion of a dialogue: all turns but the last, and that one."""
    before, text = _dialogue(record, record.first(DIALOGUES))
    return Instruction(as_text([*system_turns(record), *history(record), *before]), text)


def prompt_completion(record: Record) -> Instruction:
    """Prompt and completion, whatever the two are called."""
    key = _completion_key(record)
    turns, text = reply(record, key, context(record))
    prompt = without_mark(as_text(turns))
    if HUMAN in text:
        [text] = without_prompt(record, prompt, [text])
    return Instruction(prompt, text)


def _completion_key(record: Record) -> str:
    asked = record.first(PROMPTS)
    return next(k for k in COMPLETIONS if k in record.fields and k != asked)


def corrected_answer(record: Record) -> QAC:
    """Question, answer and correction."""
    before = context(record)
    (turns, answer), (_, correction) = (
        reply(record, key, before) for key in ("answer", "correction")
    )
    prompt = without_mark(as_text(turns))
    texts = without_prompt(record, prompt, [answer, correction])
    faults = record.fields.get("faults")
    if not isinstance(faults, list):
        faults = []  # anything else is an extra key of somebody's own
    return QAC(prompt, *texts, tuple(map(str, faults)))


def marked(record: Record) -> Marked:
    """A completion with a thumb or a rating."""
    row = (whole_dialogue if record.first(DIALOGUES) else prompt_completion)(record)
    return Marked(row.prompt, row.completion, _mark(record, _mark_key(record)))


UP = "true yes up thumbs_up thumbsup good positive like desirable 👍 1 1.0".split()
DOWN = "false no down thumbs_down thumbsdown bad negative dislike undesirable 👎".split()
DOWN += ["0", "0.0", "-1", "-1.0"]


def _mark(record: Record, key: str) -> float:
    """The mark under a key. Raises Dropped if there is none, DataError if it is something else."""
    value = record.fields[key]
    if value is None or value == "":
        raise Dropped(f"no mark under {key!r}")
    mark = _as_mark(value, key)
    if mark is None:
        fix = "write true or false, up or down, or, as a score or rating, a number"
        raise DataError(f"{record.at}: field {key!r} is {value!r}, no mark; {fix}")
    if not math.isfinite(mark):
        raise Dropped(f"no mark under {key!r}")
    return mark


def _as_mark(value: object, key: str) -> float | None:
    """A value as a mark, None if it is none: a thumb or, under the name of a rating, a number."""
    word = "".join(str(value).lower().split())
    if key in RATINGS:
        try:
            return float(word)
        except ValueError:
            return None
    return float(word in UP) if word in UP or word in DOWN else None


Shape = Callable[[Record], QAC | Preference | Instruction | Marked]
# A kind's shapes, in the order in which they are tried: the keys that a record must have, each one
# of several, and how it is read.
Shapes = list[tuple[tuple[tuple[str, ...], ...], Shape]]
_MARKED: Shapes = [
    ((PROMPTS, COMPLETIONS, (*MARKS, *RATINGS)), marked),
    ((DIALOGUES, (*MARKS, *RATINGS)), marked),
]
PREFERENCES: Shapes = [
    ((("chosen",), ("rejected",)), partial(pair_of, chosen="chosen", rejected="rejected")),
    ((DIALOGUES, ("rejected_response",)), rejected_response),
    ((("preferred_output",), ("non_preferred_output",), ("input",)), preferred_output),
    ((PROMPTS, ("response_0",), ("response_1",), ("better_response_id",)), better_response),
    (
        (PROMPTS, ("response_j",), ("response_k",)),
        partial(pair_of, chosen="response_j", rejected="response_k"),
    ),
    *_MARKED,
]
CORRECTIONS: Shapes = [
    ((PROMPTS, ("answer",), ("correction",)), corrected_answer),
    *PREFERENCES,
]
INSTRUCTIONS: Shapes = [
    *_MARKED,
    ((PROMPTS, COMPLETIONS), prompt_completion),
    ((DIALOGUES,), whole_dialogue),
]


def shape_of(record: Record, shapes: Shapes, wanted: str) -> tuple[tuple[str, ...], Shape]:
    """The shape that a file's first record has, and the keys that all of its records need.

    Raises DataError, naming what is missing, if it has none. `wanted` names the fields of the
    plainest shape.
    """
    for groups, shape in shapes:
        keys = [record.first(group) for group in groups]
        if None not in keys and len(set(keys)) == len(keys) and _is_marked(record, shape):
            asked = record.first((*PROMPTS, *DIALOGUES))
            keys = keys[:-1] + [_mark_key(record)] if shape is marked else keys
            return tuple(dict.fromkeys([*filter(None, [asked]), *keys])), shape
    missing = next((k for k in wanted.split(", ") if k not in record.fields), wanted)
    has = f"it has {', '.join(map(str, record.fields)) or 'none'}"
    fix = f"each row needs {wanted}; rename the fields that hold them"
    raise DataError(f"{record.at}: no field {missing!r} ({has}); {fix}{_other_kind(record)}")


def _mark_key(record: Record) -> str:
    """The field that holds the mark: a label may say anything, so the first that can be one."""
    there = [key for key in (*MARKS, *RATINGS) if key in record.fields]
    readable = (key for key in there if _as_mark(record.fields[key], key) is not None)
    return next(readable, there[0])


def _is_marked(record: Record, shape: Shape) -> bool:
    """Whether a record has a mark, if marks are read."""
    if shape is not marked:
        return True
    key = _mark_key(record)
    return record.fields[key] in (None, "") or _as_mark(record.fields[key], key) is not None


def _other_kind(record: Record) -> str:
    """What a record would be instead, for a message."""
    kinds = {"preference pairs": PREFERENCES, "instructions": INSTRUCTIONS}
    for kind, shapes in kinds.items():
        for groups, _ in shapes:
            if all(record.first(group) for group in groups):
                return f" (these look like {kind})"
    return ""
