"""What the experiments of lesson 03 are made of: the rows each arm gets are the ones it says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from alignlib.course.experiments import EXPERIMENTS, baselines, meet, uses
from alignlib.course.experiments.baselines import BEST, CLEARLY, TRIALS, compared, pairs_of
from alignlib.course.experiments.upstreams import MANNERS, UNESCAPED, asked_for, data, in_manner, in_that_manner, injected, taken_over
from alignlib.course.sweep import per_seed, read_results
from alignlib.data import QAC
from alignlib.judges import TownJudge
from alignlib.prompts import TOWN
from alignlib.tinytown import recorded, sets


@pytest.fixture(scope="module")
def rows() -> list[QAC]:
    return sets.corrections(60, "test")


def test_three_upstreams_take_turns_at_the_training_questions() -> None:
    rows = recorded.taught()
    assert [r.question for r in rows] == recorded.asked()["train"]
    for i, name in enumerate(recorded.TAUGHT):
        assert rows[i].answer == recorded.recorded(name)([rows[i].question])[0]
        assert recorded.taught(1)[i].answer == recorded.recorded(recorded.TAUGHT[0])([rows[i].question])[0]
    assert TownJudge().marks([r.question for r in rows], [r.correction for r in rows])["fault_free"].mean() > 0.99


def test_an_injected_answer_holds_the_next_rows_prompt_and_only_the_unescaped_template_lets_it_through(rows: list[QAC]) -> None:
    bad = injected(rows)[0]
    assert bad.answer.startswith(rows[0].answer) and bad.answer.endswith(f"{rows[1].question} answer : {rows[1].answer}")
    assert bad.correction == rows[0].correction
    assert UNESCAPED.prompt(bad.question, bad.answer).count(" answer :") == 2 and TOWN.prompt(bad.question, bad.answer).count(" answer :") == 1
    assert TOWN.split(TOWN.prompt(bad.question, bad.answer)) == (bad.question, bad.answer)


def test_taken_over_is_who_answers_the_next_question_better_than_its_own(rows: list[QAC]) -> None:
    right = [r.correction for r in rows]
    assert not taken_over(rows, right).any() and not taken_over(rows, [r.answer for r in rows]).any()
    assert taken_over(rows, right[1:] + right[:1]).mean() > 0.9


@pytest.mark.parametrize("manner", MANNERS)
def test_a_wish_is_granted_without_a_fault_and_stands_where_it_is_asked(manner: str, rows: list[QAC]) -> None:
    granted = [in_manner(r.correction, manner, random.Random(0)) for r in rows]
    assert all(in_that_manner(text, manner) for text in granted) and not all(in_that_manner(r.correction, manner) for r in rows)
    assert TownJudge().marks([r.question for r in rows], granted)["fault_free"].all()
    for where in ("question", "answer"):
        asked = asked_for(rows, manner, where)
        assert all(getattr(a, where) == f"{getattr(r, where)} {manner} ." for a, r in zip(asked, rows))
        other = {"question": "answer", "answer": "question"}[where]
        assert all(getattr(a, other) == getattr(r, other) and in_that_manner(a.correction, manner) for a, r in zip(asked, rows))


def test_wrong_corrections_are_other_rows_and_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[QAC]] = []
    monkeypatch.setattr("alignlib.course.experiments.upstreams.lesson", lambda seed, rows: given.append(rows))
    monkeypatch.setattr("alignlib.course.experiments.upstreams.measured", lambda aligner, tests: {"tests": len(tests)})
    assert data({"corrections": 200, "wrong": 0.5}, 0) == {"tests": 3}
    right = sets.corrections(200)
    assert sum(a.correction != b.correction for a, b in zip(given[0], right)) == 100
    assert Counter(r.correction for r in given[0]) == Counter(r.correction for r in right)
    assert [(r.question, r.answer) for r in given[0]] == [(r.question, r.answer) for r in right]


def test_pairs_prefer_the_correction_and_leave_out_what_was_good(rows: list[QAC]) -> None:
    pairs = pairs_of(rows)
    assert 0 < len(pairs) == sum(r.answer != r.correction for r in rows) < len(rows)
    assert all(p.prompt.endswith(" answer :") and p.chosen != p.rejected for p in pairs)
    assert {p.chosen for p in pairs} <= {r.correction for r in rows}


def test_of_two_answers_the_judge_prefers_the_better_and_ties_are_no_pair(rows: list[QAC], monkeypatch: pytest.MonkeyPatch) -> None:
    good, spoilt = {r.question: r.correction for r in rows}, {r.question: r.answer for r in rows}
    texts: Callable = lambda folder, questions, how, seed: [(good if (i + seed) % 2 else spoilt)[q] for i, q in enumerate(questions)]  # noqa: E731
    monkeypatch.setattr(baselines, "made", lambda name: name)
    monkeypatch.setattr(baselines, "training_questions", lambda n: tuple(good))
    monkeypatch.setattr(baselines, "own_answers", lambda folder, questions, how, seed: texts(folder, questions, how, seed // 100))
    pairs = compared(60, 0)
    faulty = TownJudge().marks(list(spoilt), list(spoilt.values()))["overall"] < 1
    assert len(pairs) == faulty.sum() and {p.chosen for p in pairs} <= set(good.values())


def test_coin_flips_turn_about_half_of_the_pairs_round(rows: list[QAC]) -> None:
    straight, flipped = pairs_of(rows), pairs_of(rows, random.Random(0))
    turned = [a != b for a, b in zip(straight, flipped, strict=True)]
    assert 0.25 < sum(turned) / len(turned) < 0.75
    assert [{p.chosen, p.rejected} for p in straight] == [{p.chosen, p.rejected} for p in flipped]


def test_each_pass_corrects_what_the_last_one_left(rows: list[QAC]) -> None:
    class Adds:
        def correct(self, questions, answers):
            return [f"{a} +" for a in answers]

    assert uses._passes(Adds(), rows[:1]) == [[f"{rows[0].answer} +"], [f"{rows[0].answer} + +"], [f"{rows[0].answer} + + +"]]


def test_no_learning_rate_was_clearly_better_on_validation_than_the_one_in_use_and_every_method_had_as_many_trials() -> None:
    record = read_results("tuning")
    metric = {arm: "ordered" if arm == "best of n" else "fault_free" for arm in TRIALS}
    assert len({len(rates) for rates in TRIALS.values()}) == 1
    for arm, rates in TRIALS.items():
        marks = {rate: per_seed(record, metric[arm], arm=arm, rate=rate)[0] for rate in rates}
        assert max(marks.values()) - marks[BEST[arm]] < CLEARLY, arm


def test_only_choices_rest_on_fewer_than_three_seeds() -> None:
    assert [name for name, experiment in EXPERIMENTS.items() if len(experiment.seeds) < 3] == ["tuning", "meet_tuning"]


# --- lesson 05 ------------------------------------------------------------------------------------------


@pytest.fixture
def in_small(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lesson 05's experiments on an untrained model, a few rows and steps: for plumbing, not for quality."""
    for name, value in {"TINY": replace(meet.TINY, base=str(tiny_model)), "N": 24, "STEPS": 4, "FIRST": 2, "TESTED": 4}.items():
        monkeypatch.setattr(meet, name, value)
    monkeypatch.setitem(meet.TARGETS, "values of two layers", {"targets": ("v_proj",), "layers": (0,)})  # it has but two
    monkeypatch.setattr(meet, "BEST", {(task, method): 1 for task in meet.TASKS for method in meet.METHODS})


def test_pairs_end_where_the_text_begins_and_the_preferred_one_has_the_higher_marks() -> None:
    for task, mark in (("qa", "answer :"), ("summary", "tl;dr")):
        some = meet.pairs(task, 30, "test")
        good, bad = (meet.marks(task, some, texts) for texts in ([p.chosen for p in some], [p.rejected for p in some]))
        assert all(p.prompt.endswith(mark) for p in some)
        assert good["sound"].all() and (good["overall"] == 1).all() and not bad["sound"].any() and (bad["overall"] < 1).all()


def test_a_chain_of_hindsight_shows_the_better_and_the_worse_alone_and_behind_one_another() -> None:
    [p, q] = meet.pairs("qa", 2)
    chain = meet.chained([p, q])
    assert [text for _, text in chain] == [p.chosen, p.chosen, p.rejected, p.rejected, q.chosen, q.chosen, q.rejected, q.rejected]
    assert [prompt.split("question :")[1].count(" answer :") for prompt, _ in chain] == [1, 2] * 4
    assert [prompt.split()[-3] for prompt, _ in chain[:4]] == ["better", "better", "worse", "worse"]
    assert f"worse answer : {p.rejected} better answer :" in chain[1][0] and f"better answer : {p.chosen} worse answer :" in chain[3][0]
    assert meet.with_word("bulletin : it rained . tl;dr", "better")[0] == "bulletin : it rained . better tl;dr"


@pytest.mark.parametrize("task", meet.TASKS)
def test_every_method_of_lesson_05_is_tuned_and_compared(task: str, in_small: None) -> None:
    for method in meet.METHODS:
        trials = meet.TRIALS[method]
        assert len(trials) == 3
        found = meet.meet_tuning({"task": task, "method": method, "trial": 1}, 0)
        assert found["overall"] == (found["overall_0"] + found["overall_1"]) / 2
    found = meet.rivals_of_meet({"task": task}, 0)
    for t in meet.TEMPERATURES:
        assert {f"overall_{t:g}/{m}" for m in meet.METHODS} <= found.keys()
        assert {f"meet, lora_over_{m}_{t:g}" for m in meet.METHODS if m != "meet, lora"} <= found.keys()
        assert found[f"meet, lora_over_meet, prompt_{t:g}"] == -found[f"meet, prompt_over_meet, lora_{t:g}"]


def test_controls_of_every_size_start_and_order_of_training_are_measured(in_small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [meet.control_size(params, 0)["share"] for params in meet.SIZES]
    assert shares == sorted(shares[:5]) + sorted(shares[5:])
    arms = ("step 1 only", "step 2 only", "joint", "controls frozen in step 2", "no pairs")
    assert all("sound_1_bad" in meet.meet_steps({"kind": kind, "arm": arm}, 0) for kind in ("prompt", "lora") for arm in arms[:4])
    assert all("sound_0_good" in meet.control_start({"start": start}, 0) for start in ("random", "vocabulary", "unit", "text"))
    seen: list[dict] = []
    monkeypatch.setattr(meet, "meet", lambda rows, *_, **__: seen.append(rows))
    monkeypatch.setattr(meet, "steered", lambda model, seed: {})
    meet.meet_steps({"kind": "prompt", "arm": "no pairs"}, 0)
    assert len(seen[0]["good"]) == len(seen[0]["bad"]) == meet.N and not {r.prompt for r in seen[0]["good"]} & {r.prompt for r in seen[0]["bad"]}


def test_the_dial_and_the_axes_are_asked_for_one_by_one_and_together(in_small: None) -> None:
    assert {f"overall_{w:g}" for w in (-0.5, 0.5, 1.5)} <= meet.dial_of_controls({"kind": "lora"}, 0).keys()
    for kind in ("prompt", "lora", "one token"):
        found = meet.several_axes({"kind": kind}, 0)
        assert {"tone/tone+", "length/detail-", "detail/tone+ detail- length+", "sound/tone- detail- length-"} <= found.keys()
