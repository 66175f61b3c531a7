"""`data/everyday`: what is committed is what the program draws, and splits share nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from alignlib.data import QAC, read_qac
from alignlib.edits import is_fixed
from alignlib.everyday import SPLITS, rows_file
from alignlib.workbench import load_rows
from experiments.everyday import (
    KINDS,
    MAX_WORDS,
    TEST,
    Phrase,
    content_words,
    draw_rows,
    insert,
    kept_answers,
    phrases_of,
)
from experiments.make_everyday import all_prompts

SEEDS = (0, 1, 2)


def phrases_in(rows: list[QAC], kind: str) -> set[Phrase]:
    """Which phrases of a kind stand in the answers and not in the corrections."""
    return {
        phrase
        for phrase in phrases_of(kind)
        if any(phrase.text in r.answer and phrase.text not in r.correction for r in rows)
    }


def test_there_are_as_many_templates_prompts_and_phrases_as_the_card_says() -> None:
    asked = list(all_prompts())
    assert len({one.template for one in asked}) >= 80 and len(asked) >= 1500
    assert len({one.prompt for one in asked}) == len(asked)
    assert len(phrases_of("rude")) >= 120 and len(set(phrases_of("rude"))) == 161
    assert all(one.fact not in one.others for one in asked)


def test_the_files_are_what_the_program_draws_from_seed_0() -> None:
    drawn = draw_rows(0)
    assert {split: read_qac(rows_file(split)).rows for split in SPLITS} == {
        split: list(dict.fromkeys(rows)) for split, rows in drawn.items()
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_templates_and_phrases_of_one_split_are_in_no_other(seed: int) -> None:
    rows = draw_rows(seed)
    template_of = {one.prompt: one.template for one in kept_answers()}
    used = {split: {template_of[r.question] for r in some} for split, some in rows.items()}
    assert not used["train"] & used["test"] and not used["validation"] & used["test"]
    assert not used["train"] & used["validation"]
    unheard = [r for r in rows["test"] if r.faults == ("rude_unheard",)]
    new, known = phrases_in(unheard, "rude"), phrases_in(rows["train"], "rude")
    assert len(new) >= 40
    others = {word for phrase in known for word in content_words(phrase)}
    assert not any(content_words(phrase) & others for phrase in new)
    assert not phrases_in(rows["train"], "padding") & phrases_in(rows["test"], "padding")


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_are_as_many_as_they_should_be_and_the_judge_sees_each(seed: int) -> None:
    rows = draw_rows(seed)
    counts = Counter(" ".join(row.faults) or "good" for row in rows["test"])
    assert counts == TEST and counts.keys() == set(KINDS)
    train = rows["train"]
    assert abs(sum(len(r.faults) == 1 for r in train) / len(train) - 2 / 3) < 0.06
    assert abs(sum(len(r.faults) == 2 for r in train) / len(train) - 1 / 10) < 0.04
    for row in (*rows["train"], *rows["test"]):
        assert is_fixed(row, row.correction), row
        assert not row.faults or not is_fixed(row, row.answer), row
        assert len(row.correction.split()) <= MAX_WORDS + 1


def test_phrases_go_where_they_belong() -> None:
    text = "The sky is blue."
    assert insert(text, Phrase("open", "Wow.")) == "Wow. The sky is blue."
    assert insert(text, Phrase("lead", "Duh")) == "Duh, the sky is blue."
    assert insert("Paris is big.", Phrase("lead", "Duh")) == "Duh, Paris is big."
    assert insert(text, Phrase("mid", "genius")) == "The sky, genius, is blue."
    assert insert("Blue.", Phrase("mid", "genius")) == "Blue, genius."
    assert insert(text, Phrase("tail", "dork")) == "The sky is blue, dork."
    assert insert(text, Phrase("close", "Happy?")) == "The sky is blue. Happy?"


def test_the_notebooks_rows_are_of_every_kind_at_any_size() -> None:
    some = load_rows(None, 60)["test"]
    assert len(some) <= 60 and len({row.faults for row in some}) == len(KINDS)
