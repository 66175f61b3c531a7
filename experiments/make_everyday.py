"""The answers of `data/everyday`; `python -m alignlib everyday` makes them again.

A real model answers prompts that templates make of tables. An answer is kept if it holds the fact
that the prompt is about, once, and no more than MAX_WORDS words.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from alignlib.data import write_rows
from alignlib.edits import words_of
from alignlib.everyday import SPLITS, rows_file
from alignlib.upstream import Local

from .everyday import FOLDER, MAX_WORDS, Answer, draw_rows, kept_answers

INSTRUCTION = "Answer in one short, complete sentence."


def all_prompts() -> Iterator[Answer]:
    """Every template with every row of its table; the answers are still empty."""
    data = json.loads((FOLDER / "templates.json").read_text(encoding="utf-8"))
    for number, template in enumerate(data["templates"]):
        table = data["tables"][template["table"]]
        column = table["columns"].index(template["fact"])
        values = list(dict.fromkeys(row[column] for row in table["rows"]))
        for row in table["rows"]:
            prompt = template["text"].format(**dict(zip(table["columns"], row, strict=True)))
            fact = row[column]
            others = tuple(v for v in values if v != fact and not _holds(prompt, v))
            yield Answer(number, prompt, "", fact, others)


def make(model: str | Path) -> Counter[str]:
    """Ask the model, keep what is usable, draw the rows of seed 0. Returns what came of it."""
    asked = list(all_prompts())
    ask = Local(model, max_new_tokens=60, progress="answers")
    answers = ask([f"{one.prompt} {INSTRUCTION}" for one in asked])
    outcomes, kept = Counter(), []
    for one, text in zip(asked, answers, strict=True):
        text = _tidy(text)
        outcome = _outcome(one, text)
        outcomes[outcome] += 1
        if outcome == "kept":
            kept.append(Answer(**asdict(one) | {"answer": text, "others": one.others}))
    lines = [json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in kept]
    (FOLDER / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
    kept_answers.cache_clear()
    rows = draw_rows(0)
    for split in SPLITS:
        write_rows(rows_file(split), rows[split])
    return outcomes


def _tidy(text: str) -> str:
    """On one line, without quotes around it, ending as a sentence does."""
    text = " ".join(text.split()).strip('"')
    return text if text.endswith((".", "!", "?")) or not text else text + "."


def _outcome(one: Answer, text: str) -> str:
    """`kept`, or why an answer is not."""
    if not 3 <= len(words_of(text)) <= MAX_WORDS:
        return "too long or too short"
    count = len(re.findall(rf"(?<!\w){re.escape(one.fact)}(?!\w)", text, flags=re.I))
    if count != 1:
        return "without the fact" if count == 0 else "with the fact more than once"
    return "kept"


def _holds(text: str, value: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, flags=re.I) is not None
