"""`data/everyday`: what is committed is what the program draws, and splits share nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from alignlib.course.sweep import read_results
from alignlib.data import QAC, read_qac
from alignlib.edits import is_fixed
from alignlib.everyday import (
    ONE_WORD,
    SPLITS,
    WARM,
    are_rude,
    one_word,
    read_aims,
    right_word,
    rows_file,
    style_pairs,
    warm,
    warmly_answered,
    warmth,
)
from alignlib.workbench import load_rows
from experiments.common import mean_words
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
from experiments.real_aims import SIZES, TRIALS, TUNED, TUNED_ON, best_trials, draw_aims
from experiments.real_styles import draw_pairs, draw_styles
from experiments.registry import EXPERIMENTS

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


# --- the tasks of notebooks 09 and 10 -------------------------------------------------------------


def test_the_files_of_both_objectives_are_what_the_program_draws_from_seed_0() -> None:
    assert {split: read_aims(split) for split in SPLITS} == draw_aims(0)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_prompt_is_in_two_splits_or_serves_two_objectives(seed: int) -> None:
    aims = draw_aims(seed)
    asked = [
        row.prompt.removesuffix(f" {ONE_WORD}")
        for some in aims.values()
        for row in (*some.instructions, *some.pairs)
    ]
    assert len(asked) == len(set(asked))
    for split, (words, plain, pairs) in SIZES.items():
        some = aims[split]
        assert len(some.pairs) == len(some.facts) == pairs
        assert Counter(r.prompt.endswith(ONE_WORD) for r in some.instructions) == Counter(
            {True: words} | ({False: plain} if plain else {})
        )


def test_an_instruction_is_followed_by_one_word_and_right_with_the_rows_own() -> None:
    rows = [row for row in read_aims("test").instructions]
    right = [row.completion for row in rows]
    assert all(one_word(right)) and all(right_word(rows, right))
    assert all(right_word(rows, [f"{text.upper()}." for text in right]))
    others = right[1:] + right[:1]
    assert all(one_word(others)) and sum(right_word(rows, others)) < 10
    assert one_word(["Lisbon.", "It's Lisbon", "", "New York"]) == [True, False, False, False]


def test_a_preference_is_met_by_the_opening_once_and_the_fact_in_a_short_answer() -> None:
    aims = read_aims("test")
    chosen, plain = [p.chosen for p in aims.pairs], [p.rejected for p in aims.pairs]
    assert all(warmly_answered(aims.facts, chosen)) and all(warm(chosen))
    for wrong in (
        plain,
        [WARM] * len(plain),  # and nothing else
        [f"{WARM} {text}" for text in chosen],  # twice
        [f"{WARM} {WARM} {WARM}" for _ in plain],
        [f"{text} {WARM}" for text in plain],  # at the end
        [f"{WARM} {text} {'so to say ' * 10}" for text in plain],  # too long
    ):
        assert not any(warmly_answered(aims.facts, wrong))
    elsewhere = [f"{WARM} {text}" for text in plain[1:] + plain[:1]]  # another prompt's fact
    assert sum(warmly_answered(aims.facts, elsewhere)) < 10


def test_the_share_of_the_opening_grows_word_by_word() -> None:
    words = WARM.split()
    shares = [warmth(" ".join(words[:n])) for n in range(len(words) + 1)]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert warmth(f"The answer is {WARM}") < 1, "it opens otherwise"


@pytest.mark.parametrize("split", SPLITS)
def test_the_program_tells_rude_answers_from_polite_ones(split: str) -> None:
    pairs = style_pairs(split)
    assert pairs == draw_pairs(0)[split] and len(pairs) >= 60
    assert all(are_rude([pair.rejected for pair in pairs]))
    assert not any(are_rude([pair.chosen for pair in pairs]))


def test_a_single_telling_word_is_not_rude_and_two_of_them_are() -> None:
    assert not any(are_rude([one.answer for one in kept_answers()]))
    texts = ["Bees make honey, dummy.", "Bees make honey, dummy, you blockhead.", "Bees make wax."]
    assert are_rude(texts) == [False, True, False]


def test_pairs_of_two_axes_share_no_prompt_with_the_test() -> None:
    texts, prompts = draw_styles(0)
    assert set(texts) == {"polite", "rude", "brief", "full"} and len(prompts) == 80
    trained = {row.prompt for some in texts.values() for row in some}
    assert not trained & set(prompts)
    assert mean_words([row.completion for row in texts["brief"]]) < 2
    assert mean_words([row.completion for row in texts["full"]]) > 4


def test_settings_of_all_methods_are_chosen_by_one_rule_on_a_seed_that_is_not_reported() -> None:
    record = read_results("everyday_aims_tuning")
    assert {cell["seed"] for cell in record["cells"]} == {TUNED_ON}
    assert len({len(trials) for trials in TRIALS.values()}) == 1
    assert TUNED_ON not in EXPERIMENTS["everyday_aims"].seeds
    chosen = best_trials(record)
    assert {method: TUNED[method] for method in chosen} == chosen
    cells = [cell_of(1, instructions=0.9, preference=0.0), cell_of(2, 0.5, 0.5)]
    assert best_trials({"cells": cells}) == {"m": {"rate": 2}}


def cell_of(rate: int, instructions: float, preference: float) -> dict:
    found = {"instructions_validation": instructions, "preference_validation": preference}
    return {"params": {"method": "m", "rate": rate}, "metrics": found}
