"""Question-answer-correction rows from your own prompts.

questions -> upstream model -> annotator -> filters -> a file of rows, and a data card beside it.

Work is kept as it is done: answers of a local model in `NAME.answers.jsonl`, replies of a server in
its cache. The same call after a stop goes on from there and pays for nothing twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from .data import QAC, write_rows
from .dialogues import DIALOGUES, PROMPTS, Dropped, Record, as_text, context, without_mark
from .place import DataError, Place
from .records import data_path, read_lines, read_records
from .similar import near_duplicates
from .texts import filled_in, longest_common, whole_characters, words_of
from .upstream import Upstream

INSTRUCTION = """Correct the answer to the question below. Change only what is wrong, impolite, \
unsafe or superfluous, keep everything else word for word, and return a good answer unchanged. \
Reply with the corrected answer alone.

Question: {question}

Answer: {answer}"""
PLACES = ("{question}", "{answer}")
CHUNK = 64  # questions that a local model answers before they are written down
# texts for questions and answers; an empty one where the annotator's reply is of no use
Annotator = Callable[[Sequence[str], Sequence[str]], list[str]]


@dataclass(frozen=True)
class Filters:
    """Which rows are kept. Edit ratio: words inserted or deleted, per word of the answer."""

    max_unchanged: float = 0.5  # of the rows kept; the others' surplus is left out
    max_words: int = 400  # of answer and of correction
    max_edit_ratio: float = 1.0
    max_similarity: float = 0.8  # of two rows; from there on they are one (`similar.py`)


class Unfinished(ValueError):
    """A file that somebody still has to fill in."""


@dataclass(frozen=True)
class ByModel:
    """A stronger model as annotator, asked with an instruction that holds {question}, {answer}.

    A reply that was cut off counts as none. Raises ValueError for another instruction.
    """

    model: Upstream
    instruction: str = INSTRUCTION

    def __post_init__(self) -> None:
        if not all(place in self.instruction for place in PLACES):
            raise ValueError(f"the instruction must hold {' and '.join(PLACES)}")

    def __call__(self, questions: Sequence[str], answers: Sequence[str]) -> list[str]:
        asked = [self.ask(*pair) for pair in zip(questions, answers, strict=True)]
        replies = self.model(asked)
        problems = getattr(self.model, "problems", {})
        return [
            "" if task in problems else reply.strip()
            for task, reply in zip(asked, replies, strict=True)
        ]

    def ask(self, question: str, answer: str) -> str:
        """The instruction with both texts; braces in them stay as they are."""
        return filled_in(self.instruction, dict(zip(PLACES, (question, answer), strict=True)))


@dataclass(frozen=True)
class ByHand:
    """A person as annotator, who fills in the field `correction` of every row of a file."""

    path: Path

    def __call__(self, questions: Sequence[str], answers: Sequence[str]) -> list[str]:
        pairs = list(zip(questions, answers, strict=True))
        found = dict.fromkeys(pairs, "")
        if self.path.exists():
            for place, row in read_records(self.path):
                if not isinstance(row, dict):
                    fix = "write question, answer and correction, or delete the line"
                    raise DataError(f"{place}: no row; {fix}")
                pair = row.get("question"), row.get("answer")
                found[pair] = (row.get("correction") or "").strip()
        write_rows(self.path, [QAC(*pair, correction) for pair, correction in found.items()])
        empty = sum(not found[pair] for pair in pairs)
        if empty:
            raise Unfinished(
                f"{self.path}: {empty} of {len(pairs)} corrections are empty; write each into the "
                "field 'correction' (the answer itself where it is good), then run this again"
            )
        return [found[pair] for pair in pairs]


def read_questions(path: str | Path) -> list[str]:
    """One question per line of text, or the prompts of records in any shape (`shapes.py`)."""
    if Path(path).suffix == ".txt":
        questions = map(whole_characters, read_lines(path))
    else:
        questions = [_question(place, row) for place, row in read_records(path)]
    return list(dict.fromkeys(filter(None, map(str.strip, questions))))


def _question(place: Place, row: object) -> str:
    if isinstance(row, str):
        return whole_characters(row)
    if not isinstance(row, dict) or not any(key in row for key in (*PROMPTS, *DIALOGUES)):
        fix = "write the text under 'question', or use a .txt file with one per line"
        raise DataError(f"{place}: no field 'question' or 'prompt'; {fix}")
    try:
        return without_mark(as_text(context(Record(row, place))))
    except Dropped as reason:
        raise DataError(f"{place}: {reason}; write a question, or delete the row") from None


def build_rows(
    questions: Sequence[str],
    upstream: Upstream,
    annotator: Annotator,
    out: str | Path,
    filters: Filters = Filters(),
    about: str = "",
) -> Counter[str]:
    """Write rows to `out` (JSON lines) and a data card to `out` with `.md`.

    Returns how many rows were kept, and how many left out by reason. `about` goes into the card:
    which models answered and corrected.
    """
    rows = make_rows(questions, upstream, annotator, out)
    return write_filtered(rows, out, filters, about)


def make_rows(
    questions: Sequence[str], upstream: Upstream, annotator: Annotator, out: str | Path
) -> list[QAC]:
    """A row of each question, none left out; its answer or correction may be empty."""
    answers = _answers(questions, upstream, data_path(out).with_suffix(".answers.jsonl"))
    answered = {q: answer for q, answer in zip(questions, answers, strict=True) if answer}
    texts = annotator(list(answered), list(answered.values()))
    corrections = dict(zip(answered, texts, strict=True))
    return [QAC(q, a, corrections.get(q, "")) for q, a in zip(questions, answers)]


def write_filtered(
    rows: Sequence[QAC], out: str | Path, filters: Filters, about: str
) -> Counter[str]:
    """Write those rows that are kept, and the data card; how many were kept, and left out."""
    out = data_path(out)
    kept, outcomes = filtered(rows, filters)
    write_rows(out, kept)
    card = whole_characters(_card(out, outcomes, kept, filters, about))
    out.with_suffix(".md").write_text(card, encoding="utf-8")
    return outcomes


def _answers(questions: Sequence[str], upstream: Upstream, place: Path) -> list[str]:
    """The upstream's answers; those that are in the file already are not asked for.

    An answer that was cut off or refused counts as none. `identity` of an upstream names all that
    its answers depend on.
    """
    name = str(getattr(upstream, "identity", type(upstream).__name__))
    known = {}
    if place.exists():
        known = {row["question"]: row["answer"] for row in _whole_lines(place) if row["by"] == name}
    waiting = iter([q for q in questions if q not in known])
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("a", encoding="utf-8", newline="\n") as stream:
        while chunk := list(islice(waiting, CHUNK)):
            answers = upstream(chunk)
            problems = getattr(upstream, "problems", {})
            for question, answer in zip(chunk, answers, strict=True):
                known[question] = "" if question in problems else answer
                row = {"question": question, "answer": known[question], "by": name}
                stream.write(json.dumps(row) + "\n")
            stream.flush()
    return [known[question] for question in questions]


def _whole_lines(place: Path) -> Iterator[dict[str, str]]:
    """The rows of a file whose last line may be cut off; that line is removed from it."""
    data = place.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        place.write_bytes(whole)
    yield from map(json.loads, whole.decode("utf-8").split("\n")[:-1])


def filtered(rows: Sequence[QAC], filters: Filters) -> tuple[list[QAC], Counter[str]]:
    """The rows to keep, and how many were kept and left out by reason."""
    outcomes, kept, seen = Counter[str](), [], set()
    texts = [f"{row.question} {row.answer}" for row in rows]
    for row, group in zip(rows, near_duplicates(texts, filters.max_similarity), strict=True):
        reason = _reason(row, filters) or ("near-duplicate" if group in seen else "")
        outcomes[reason or "kept"] += 1
        if not reason:
            seen.add(group)
            kept.append(row)
    changed = [row for row in kept if row.correction != row.answer]
    share = filters.max_unchanged
    most = len(kept) if share >= 1 else int(share * len(changed) / (1 - share))
    unchanged = [row for row in kept if row.correction == row.answer][:most]
    surplus = len(kept) - len(changed) - len(unchanged)
    outcomes.update({"kept": -surplus, "too many unchanged": surplus})
    chosen = {id(row) for row in changed + unchanged}
    return [row for row in kept if id(row) in chosen], +outcomes


def _reason(row: QAC, filters: Filters) -> str:
    """Why a row is left out, "" if it is not."""
    if not row.answer.strip() or not row.correction.strip():
        return "empty or cut off"
    answer, correction = words_of(row.answer), words_of(row.correction)
    if max(len(answer), len(correction)) > filters.max_words:
        return "too long"
    common = longest_common(answer, correction)
    edits = len(answer) + len(correction) - 2 * common
    most = filters.max_edit_ratio * max(1, len(answer))
    return "rewritten, not corrected" if edits > most else ""


def _card(
    out: Path, outcomes: Counter[str], kept: Sequence[QAC], filters: Filters, about: str
) -> str:
    unchanged = sum(row.answer == row.correction for row in kept)
    lengths = [len(words_of(row.answer)) for row in kept] or [0]
    counts = "\n".join(f"| {reason} | {n} |" for reason, n in outcomes.items())
    return f"""# {out.name}

Rows of question, answer and correction, for training an Aligner. {about}

| outcome | rows |
|---|---|
{counts}

Of the rows kept {unchanged} are unchanged: the answer was good. Answers have
{sum(lengths) / len(lengths):.0f} words on average.
Filters: {", ".join(f"{name} {value}" for name, value in asdict(filters).items())}.
"""
