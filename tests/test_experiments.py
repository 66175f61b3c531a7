"""The experiments of lessons 03, 05 and 06: each arm gets the rows and settings that it names."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import combinations, cycle, product
from pathlib import Path

import numpy as np
import pytest
import torch

import alignlib.hbat
import alignlib.stages
from alignlib import mixed
from alignlib.controls import Mix
from alignlib.course.lessons import source_of
from alignlib.course.sweep import per_seed, read_results
from alignlib.data import QAC
from alignlib.judges import TownJudge
from alignlib.meet import Meet
from alignlib.mixed import instruction_loss
from alignlib.models import load_model
from alignlib.prompts import TOWN
from alignlib.settings import SFTSettings
from alignlib.tinytown import recordings, sets
from alignlib.tinytown.boards import Board
from alignlib.tinytown.oracle import instructions_to_follow, pairs_to_prefer
from alignlib.tinytown.pretrain import Recipe
from alignlib.tokens import example
from experiments import (
    QUESTIONS,
    baselines,
    common,
    hbat,
    headlines,
    meet,
    meet_controls,
    meet_methods,
    two_aims,
    upstreams,
    uses,
)
from experiments.aligner import evaluate
from experiments.baselines import BEST, CLEARLY, TRIALS, judged_pairs, pairs_of
from experiments.registry import EXPERIMENTS
from experiments.upstreams import (
    STYLES,
    UNESCAPED,
    asked_for,
    data_amount,
    has_style,
    in_style,
    injected,
    taken_over,
)


@pytest.fixture(scope="module")
def rows() -> list[QAC]:
    return sets.corrections(60, "test")


def test_three_upstreams_take_turns_at_the_training_questions() -> None:
    rows = recordings.taught()
    assert [r.question for r in rows] == recordings.asked()["train"]
    for i, name in enumerate(recordings.TAUGHT):
        assert rows[i].answer == recordings.recorded_answers(name)([rows[i].question])[0]
        assert (
            recordings.taught(1)[i].answer
            == recordings.recorded_answers(recordings.TAUGHT[0])([rows[i].question])[0]
        )
    assert (
        TownJudge()
        .scores([r.question for r in rows], [r.correction for r in rows])["fault_free"]
        .mean()
        > 0.99
    )


def test_only_the_unescaped_template_lets_an_injected_prompt_through(
    rows: list[QAC],
) -> None:
    bad = injected(rows)[0]
    assert bad.answer.startswith(rows[0].answer) and bad.answer.endswith(
        f"{rows[1].question} answer : {rows[1].answer}"
    )
    assert bad.correction == rows[0].correction
    assert (
        UNESCAPED.prompt(bad.question, bad.answer).count(" answer :") == 2
        and TOWN.prompt(bad.question, bad.answer).count(" answer :") == 1
    )
    assert TOWN.split(TOWN.prompt(bad.question, bad.answer)) == (bad.question, bad.answer)


def test_taken_over_is_who_answers_the_next_question_better_than_its_own(rows: list[QAC]) -> None:
    right = [r.correction for r in rows]
    assert (
        not taken_over(rows, right).any() and not taken_over(rows, [r.answer for r in rows]).any()
    )
    assert taken_over(rows, right[1:] + right[:1]).mean() > 0.9


@pytest.mark.parametrize("style", STYLES)
def test_a_request_is_granted_without_a_fault_and_stands_where_it_is_made(
    style: str, rows: list[QAC]
) -> None:
    granted = [in_style(r.correction, style, random.Random(0)) for r in rows]
    assert all(has_style(text, style) for text in granted)
    assert not all(has_style(r.correction, style) for r in rows)
    assert TownJudge().scores([r.question for r in rows], granted)["fault_free"].all()
    for where, other in (("question", "answer"), ("answer", "question")):
        for requested, row in zip(asked_for(rows, style, where), rows, strict=True):
            assert getattr(requested, where) == f"{getattr(row, where)} {style} ."
            assert getattr(requested, other) == getattr(row, other)
            assert has_style(requested.correction, style)


def test_wrong_corrections_are_other_rows_and_as_many_as_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[list[QAC]] = []
    monkeypatch.setattr(upstreams, "lesson_aligner", lambda seed, rows: given.append(rows))
    monkeypatch.setattr(upstreams, "evaluate", lambda aligner, tests: {"tests": len(tests)})
    assert data_amount({"corrections": 200, "wrong": 0.5}, 0) == {"tests": 3}
    right = sets.corrections(200)
    assert sum(a.correction != b.correction for a, b in zip(given[0], right)) == 100
    assert Counter(r.correction for r in given[0]) == Counter(r.correction for r in right)
    assert [(r.question, r.answer) for r in given[0]] == [(r.question, r.answer) for r in right]


def test_pairs_prefer_the_correction_and_leave_out_what_was_good(rows: list[QAC]) -> None:
    pairs = pairs_of(rows)
    assert 0 < len(pairs) == sum(r.answer != r.correction for r in rows) < len(rows)
    assert all(p.prompt.endswith(" answer :") and p.chosen != p.rejected for p in pairs)
    assert {p.chosen for p in pairs} <= {r.correction for r in rows}


def test_of_two_answers_the_judge_prefers_the_better_and_ties_are_no_pair(
    rows: list[QAC], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, spoilt = {r.question: r.correction for r in rows}, {r.question: r.answer for r in rows}

    def answers(upstream: str, questions: tuple[str, ...], decoding: str, seed: int) -> list[str]:
        draw = seed // 100  # the first or the second
        return [(good if (i + draw) % 2 else spoilt)[q] for i, q in enumerate(questions)]

    monkeypatch.setattr(baselines, "training_questions", lambda n: tuple(good))
    monkeypatch.setattr(baselines, "own_answers", answers)
    pairs = judged_pairs(60, 0)
    faulty = TownJudge().scores(list(spoilt), list(spoilt.values()))["overall"] < 1
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

    assert uses._passes(Adds(), rows[:1]) == [
        [f"{rows[0].answer} +"],
        [f"{rows[0].answer} + +"],
        [f"{rows[0].answer} + + +"],
    ]


def test_the_learning_rate_in_use_was_best_of_as_many_trials_for_every_method() -> None:
    record = read_results("tuning")
    metric = {arm: "ordered" if arm == "best of n" else "fault_free" for arm in TRIALS}
    assert len({len(rates) for rates in TRIALS.values()}) == 1
    for arm, rates in TRIALS.items():
        scores = {rate: per_seed(record, metric[arm], arm=arm, rate=rate)[0] for rate in rates}
        assert max(scores.values()) - scores[BEST[arm]] < CLEARLY, arm


def test_every_question_has_an_experiment_that_answers_it_in_the_same_order() -> None:
    assert list(EXPERIMENTS) == list(QUESTIONS)


class Annotator:
    """An Aligner that gives the corrections of the rows."""

    def __init__(self, rows: Sequence[QAC]) -> None:
        self.corrections = {(r.question, r.answer): r.correction for r in rows}

    def correct(self, questions: Sequence[str], answers: Sequence[str]) -> list[str]:
        return [self.corrections[row] for row in zip(questions, answers, strict=True)]


def test_a_perfect_aligner_gets_every_metric_that_the_records_hold() -> None:
    tests = sets.test_sets(20)
    metrics = evaluate(Annotator([r for rows in tests.values() for r in rows]), tests)
    assert metrics.keys() == read_results("edit_or_rewrite")["cells"][0]["metrics"].keys()
    for name in tests:
        assert metrics[f"fault_free_{name}"] == metrics.get(f"kept_{name}", 1) == 1
        assert metrics[f"before_{name}"] < 1 and metrics[f"edit_ratio_{name}"] > 0
        assert metrics[f"net_win_overall_{name}"] == pytest.approx(
            100 * (1 - metrics[f"before_{name}"])
        )


def test_every_metric_of_an_upstream_is_named_as_in_the_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recordings, "names", lambda: ["mixed"])
    annotator = Annotator(recordings.answered("mixed"))
    monkeypatch.setattr(upstreams, "upstream_aligner", lambda number, seed: annotator)
    metrics = upstreams.every_upstream({"taught": 3}, 0)
    names = read_results("upstreams")["cells"][0]["metrics"]
    assert metrics.keys() == {name for name in names if name.endswith("/mixed")}
    assert metrics["of_ceiling/mixed"] > 0.95 and metrics["made_worse/mixed"] == 0


def test_only_choices_and_repetitions_rest_on_fewer_than_three_seeds() -> None:
    assert [name for name, experiment in EXPERIMENTS.items() if len(experiment.seeds) < 3] == [
        "tuning",
        "meet_tuning",
        "coverage",
        "everyday_aims_tuning",
    ]


# --- lesson 05 ------------------------------------------------------------------------------------


@pytest.fixture
def in_small(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lesson 05's experiments on an untrained model, with few rows and steps."""
    for module in (common, meet, meet_methods):
        monkeypatch.setattr(module, "TINY", replace(module.TINY, base=str(tiny_model)))
    small = {"NUM_PAIRS": 24, "STEPS": 4, "CONTROL_STEPS": 2, "NUM_PROMPTS": 4}
    for name, value in small.items():
        monkeypatch.setattr(meet_methods, name, value)
    meet.other_judges.cache_clear()
    yield
    meet.other_judges.cache_clear()


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What `Meet.train` is given; nothing is trained."""
    given: list[dict] = []

    def train(base: str, rows: dict, **settings: object) -> Mute:
        given.append({"base": base, "rows": rows, **settings})
        return Mute()

    monkeypatch.setattr(Meet, "train", train)
    return given


class Mute:
    """A model whose use raises `Asked`, for tests of how it is trained."""

    class Asked(Exception):
        pass

    def generate(self, *_: object, **__: object) -> list[str]:
        raise Mute.Asked

    logprob = generate


def test_pairs_end_where_the_text_begins_and_the_preferred_one_has_the_higher_marks() -> None:
    for task in meet.TASKS:
        some = meet_methods.pairs(task, 30, "test")
        good = meet_methods.scores(task, some, [p.chosen for p in some])
        bad = meet_methods.scores(task, some, [p.rejected for p in some])
        assert all(p.prompt.endswith(" answer :") for p in some)
        assert good["sound"].all() and (good["overall"] == 1).all()
        assert not bad["sound"].any() and (bad["overall"] < 1).all()


def test_of_the_summaries_to_train_on_a_quarter_is_mislabelled_and_of_nothing_else() -> None:
    rows, right = meet_methods.pairs("summary", 400), sets.preferences(400, task="summaries")
    turned = [
        (p.chosen, p.rejected) == (q.rejected, q.chosen) for p, q in zip(rows, right, strict=True)
    ]
    assert 0.2 < sum(turned) / len(turned) < 0.3
    assert all(
        t or (p.chosen, p.rejected) == (q.chosen, q.rejected)
        for t, p, q in zip(turned, rows, right)
    )
    questions = [p.chosen for p in meet_methods.pairs("qa", 50)]
    assert questions == [p.chosen for p in sets.preferences(50)]


def test_a_chain_of_hindsight_shows_the_better_and_the_worse_alone_and_behind_one_another() -> None:
    [p, q] = meet_methods.pairs("qa", 2)
    chain = meet_methods.chained([p, q])
    assert [text for _, text in chain] == [
        p.chosen,
        p.chosen,
        p.rejected,
        p.rejected,
        q.chosen,
        q.chosen,
        q.rejected,
        q.rejected,
    ]
    assert [prompt.split("question :")[1].count(" answer :") for prompt, _ in chain] == [1, 2] * 4
    assert [prompt.split()[-3] for prompt, _ in chain[:4]] == ["better", "better", "worse", "worse"]
    assert (
        f"worse answer : {p.rejected} better answer :" in chain[1][0]
        and f"better answer : {p.chosen} worse answer :" in chain[3][0]
    )
    assert (
        meet_methods.with_word("bulletin : it rained . tl;dr answer :", "better")
        == "bulletin : it rained . tl;dr better answer :"
    )


def test_a_method_that_says_what_is_preferred_beats_one_that_says_what_is_not(
    in_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {p.prompt: p for task in meet.TASKS for p in meet_methods.pairs(task, 4, "test")}
    says = {
        "meet, prompt": "chosen",
        "meet, lora": "chosen",
        "sft": "rejected",
        "untouched": "rejected",
    }

    def stub(side):
        return lambda *_, **__: lambda prompts, t, seed: [getattr(known[p], side) for p in prompts]  # noqa: E731

    stubs = {name: stub(side) for name, side in says.items()}
    monkeypatch.setattr(meet, "BASELINES", {"untouched": stubs.pop("untouched")})
    monkeypatch.setattr(meet, "METHODS", stubs)
    for task in meet.TASKS:
        found = meet.rivals_of_meet({"task": task}, 1)
        assert (
            found["meet, prompt_over_sft_0"] == found["meet, lora_over_untouched_1"] == 100
            and found["meet, lora_over_meet, prompt_1"] == 0
        )
        assert found["sound_1/meet, lora"] == 1 and found["overall_0/sft"] < 1
        assert {t for t in (0.0, 0.4, 0.8, 1.0, 1.2) if f"words_{t:g}/sft" in found} == set(
            meet.TEMPERATURES[task]
        )
        longer = [
            len(known[p.prompt].chosen.split()) - len(known[p.prompt].rejected.split())
            for p in meet_methods.pairs(task, 4, "test")
        ]
        assert found.get("meet, lora_over_sft_counts words") == (
            100 * np.mean(np.sign(longer)) if task == "qa" else None
        )


def test_a_smaller_base_is_pretrained_and_all_methods_start_from_it(
    in_small: None, trained: list[dict], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, loaded, spent, asked = [], [], [], []
    monkeypatch.setattr(
        meet,
        "pretrain_base",
        lambda folder, recipe: read.append((folder.name, recipe)) or tiny_model,
    )
    for module in (common, meet):
        monkeypatch.setattr(
            module, "load_model", lambda base: loaded.append(base) or load_model(tiny_model)
        )
    monkeypatch.setattr(
        common,
        "sft",
        lambda model, tokenizer, rows, how: spent.append((how.steps, how.learning_rate)),
    )

    def measure(task, made, seed, temperatures):
        return asked.append(temperatures) or {m: make() for m, make in made.items()}  # noqa: E731

    monkeypatch.setattr(meet, "side_by_side", measure)
    for width in meet.BASES:
        found = meet.base_size({"width": width}, 1)
        [(name, recipe)] = read[-1:]
        assert name == f"width-{width}" and (recipe.hidden, recipe.steps) == (
            width,
            Recipe().steps // 2,
        )
        assert (
            found.keys()
            == {"untouched", "sft, half", *meet.KINDS, "one token", "sft", "parameters"}
            and found["parameters"] > 1000
        )
    assert (
        loaded == [tiny_model] * 8
        and {given["base"] for given in trained} == {tiny_model}
        and asked == [(0.0, 1.0)] * 2
    )
    rate = meet.tuned("sft")["rate"]
    assert spent == [(2, rate), (4, rate)] * 2
    for given, method in zip(trained[:3], (*meet.KINDS, "one token"), strict=True):
        assert (given["first"].learning_rate, given["then"].learning_rate) == (
            meet.tuned(method)["controls"],
            meet.tuned(method)["rate"],
        )


def test_all_methods_get_as_many_texts(
    in_small: None, monkeypatch: pytest.MonkeyPatch, trained: list[dict]
) -> None:
    texts: list[int] = []
    for module, name, each in ((common, "sft", 1), (meet_methods, "dpo", 2)):

        def count(*given: object, each: int = each, **_: object) -> None:
            texts.append(each * given[3].steps * given[3].batch_size)

        monkeypatch.setattr(module, name, count)
    for method, trials in meet.TRIALS.items():
        for trial in trials:
            texts.clear()
            meet.METHODS[method](meet_methods.pairs("qa", 24), 1, **trial)
            if method in meet.KINDS or method == "one token":
                given = trained[-1]
                texts += [given[step].steps * given[step].batch_size for step in ("first", "then")]
                assert given["first"].seed == given["then"].seed == given["control"].seed == 1
                assert (given["first"].learning_rate, given["then"].learning_rate) == (
                    trial["controls"],
                    trial["rate"],
                )
                assert given["first"].steps == (0 if method == "one token" else 2) and (
                    given["control"].size == 1
                ) == (method == "one token")
            assert sum(texts) == 4 * 32, method


def test_the_choice_on_validation_is_the_best_of_as_many_trials_for_each_method() -> None:
    record = read_results("meet_tuning")
    assert {len(trials) for trials in meet.TRIALS.values()} == {4}
    for task, method in product(meet.TASKS, meet.METHODS):
        scores = [
            per_seed(record, "overall", task=task, method=method, **trial)[0]
            for trial in meet.TRIALS[method]
        ]
        assert meet.BEST[task, method] == scores.index(max(scores)), (task, method, scores)


def test_the_learned_judges_see_the_same_texts_and_part_only_on_wordy_and_terse_ones(
    in_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[list] = []
    monkeypatch.setattr(meet, "train_reward", lambda rows, settings: shown.append(rows))
    assert list(meet.other_judges()) == ["fair", "likes length", "counts words"]
    fair, biased = shown
    words = lambda text: len(text.split())  # noqa: E731
    assert [{p.chosen, p.rejected} for p in fair] == [{p.chosen, p.rejected} for p in biased]
    assert fair[:16] == biased[:16] and len(fair) == 24
    assert all(words(p.chosen) > words(p.rejected) for p in biased[16:]) and any(
        words(p.chosen) < words(p.rejected) for p in fair[16:]
    )
    assert meet.other_judges()["counts words"]([], ["a b c", "a"]).tolist() == [3, 1]


def test_controls_of_every_size_and_order_are_trained_as_their_cell_says(
    trained: list[dict], in_small: None
) -> None:
    for params in (
        *meet_controls.SIZES,
        *meet_controls.ARMS,
        *meet_controls.STARTS,
        *meet_controls.FASTER,
    ):
        with pytest.raises(Mute.Asked):
            meet_controls.which_control(params, 1)
        given, arm = trained.pop(), params["arm"]
        assert not trained and given["control"].seed == given["then"].seed == 1
        steps = given["first"].steps, given["then"].steps
        assert steps == {"step 1 alone": (4, 0), "step 2 alone": (0, 4), "joint": (0, 4)}.get(
            arm, (2, 2)
        )
        assert given["freeze_controls"] == (arm == "step 2 alone")
        assert (given["control"].kind, given["control"].size, given["control"].start) == (
            params["kind"],
            params["size"],
            params["start"],
        )
        assert {"targets": given["control"].targets, "layers": given["control"].layers} == {
            "targets": "all-linear",
            "layers": (),
            **meet_controls.TARGETS[params["targets"]],
        }
        assert params["start"] != "text" or dict(given["control"].texts)["bad"].split()[0] == "a"
        shared = {r.prompt for r in given["rows"]["good"]} & {
            r.prompt for r in given["rows"]["bad"]
        }
        assert len(given["rows"]["good"]) == len(given["rows"]["bad"]) == 24 and bool(shared) == (
            arm != "no pairs"
        )
        rates = meet.tuned(f"meet, {params['kind']}")
        assert (given["first"].learning_rate, given["then"].learning_rate) == (
            rates["controls"],
            rates["rate"] * (3 if arm == "faster model" else 1),
        )


def test_a_control_is_measured_at_both_ends_and_the_usual_ones_in_between(
    in_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def says(self, prompts, control, **how):
        return asked.append((control, how["temperature"])) or ["nothing ."] * len(prompts)  # noqa: E731

    monkeypatch.setattr(Meet, "generate", says)
    usual = meet_controls.which_control(meet_controls.cell("prompt"), 0)
    ends = [("good", 0.0), ("good", 1.0), ("bad", 0.0), ("bad", 1.0)]
    assert asked == ends + [(Mix(good=w, bad=1 - w), 1.0) for w in meet_controls.DIAL]
    assert {
        "good_minus_bad_logprob",
        "overall_1_bad",
        "sound_0_good",
        "sound_at_0.25",
        "sound_at_1.5",
    } <= usual.keys()
    asked.clear()
    small = meet_controls.which_control(meet_controls.cell("prompt", size=1), 0)
    assert asked == ends and small["share"] < usual["share"]


def test_axes_are_asked_for_one_by_one_and_together(in_small: None, trained: list[dict]) -> None:
    for method in ("meet, lora", "one token"):
        with pytest.raises(Mute.Asked):
            meet_controls.several_axes({"method": method}, 1)
    rows = trained[-1]["rows"]
    assert {len(some) for some in rows.values()} == {8} and list(rows) == [
        f"{a}{end}" for a in sets.AXES for end in "+-"
    ]

    def score(axis, end):
        return np.mean(
            [
                sets.axis_score(Board.parse(r.prompt.removesuffix(" answer :")), r.completion, axis)  # noqa: E731
                for r in rows[f"{axis}{end}"]
            ]
        )

    assert all(score(axis, "+") > score(axis, "-") + 0.3 for axis in sets.AXES)


def test_on_boards_with_room_an_axis_that_is_obeyed_shows_the_most_there_is(
    in_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = {f"{p.prompt} answer :": p for p in sets.preferences(4, "test", axis="detail", seed=10)}
    obeys = lambda self, prompts, control, **_: [  # noqa: E731
        getattr(pairs[p], "rejected" if control and "detail-" in control else "chosen")
        for p in prompts
    ]
    monkeypatch.setattr(Meet, "train", lambda *_, **__: Meet.__new__(Meet))
    monkeypatch.setattr(Meet, "generate", obeys)
    found = meet_controls.several_axes({"method": "meet, lora"}, 0)
    assert (
        found["detail/detail+"] - found["detail/detail-"] == pytest.approx(found["most/detail"])
        and found["most/detail"] > 0.2
    )
    assert found["tone/detail+"] == found["tone/none"]
    assert {
        "length/detail-",
        "detail/tone+ detail- length+",
        "sound/tone- detail- length-",
    } <= found.keys()


# --- lesson 06 ------------------------------------------------------------------------------------


@pytest.fixture
def aims_in_small(tiny_model: Path, in_small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lesson 06's experiments on an untrained model, with few rows and steps."""
    for module in (two_aims, hbat):
        monkeypatch.setattr(module, "start_model", lambda task, seed: str(tiny_model))
    monkeypatch.setattr(
        two_aims,
        "training_rows",
        lambda task, seed: (
            instructions_to_follow(seed=seed, n=24),
            pairs_to_prefer(seed=seed, n=24),
        ),
    )
    for name, value in {"TEACH": 6, "PREFER": 4, "PAIRS": 2, "NUM_PROMPTS": 4}.items():
        monkeypatch.setattr(two_aims, name, value)
    monkeypatch.setattr(hbat, "TEMPERATURES", (0.0, 1.0))
    for options in two_aims.METHODS.values():
        if "rounds" in options:
            monkeypatch.setitem(options, "rounds", min(2, options["rounds"]))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many steps `sft`, `dpo` and `ppo` are asked for, all of which go on to train."""
    spent: dict[str, list[int]] = {"sft": [], "dpo": [], "ppo": []}
    for module, (method, counted) in product((mixed, alignlib.stages), spent.items()):
        name = "train_ppo" if method == "ppo" else method
        real = getattr(module, name)

        def counting(
            *given: object, real: Callable = real, counted: list[int] = counted, **more: object
        ) -> object:
            counted.append(getattr(given[-1], "iterations", None) or given[-1].steps)
            return real(*given, **more)

        monkeypatch.setattr(module, name, counting)
    return spent


@pytest.mark.parametrize(
    ("by", "method"), [(by, method) for by, methods in hbat.TRIALS.items() for method in methods]
)
def test_however_they_are_arranged_every_method_gets_as_many_steps(
    by: str,
    method: str,
    aims_in_small: None,
    steps: dict[str, list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixed_in: list[int] = []
    order = mixed.batches
    monkeypatch.setattr(
        mixed, "batches", lambda *given: (mixed_in.append(i) or i for i in order(*given))
    )
    with two_aims.temporary_cache(0):
        two_aims.final_model(method, 0, by=by, **hbat.TRIALS[by][method][0])
    mixed_steps = len(mixed_in) / 32  # instructions mixed into the preferences, in batches
    assert sum(steps["sft"]) + mixed_steps == 6 and sum(steps[by]) == 4
    assert not steps["ppo" if by == "dpo" else "dpo"]
    assert len(steps["sft"]) == two_aims.METHODS[method].get("rounds", 1)


def test_mixing_adds_the_loss_on_instructions_so_many_times(
    aims_in_small: None, tiny_model: Path
) -> None:
    model, tokenizer = load_model(tiny_model)
    rows = [example(tokenizer, r.prompt, r.completion) for r in instructions_to_follow(n=40)]
    settings = SFTSettings(steps=1, batch_size=8)
    once, thrice = (
        float(instruction_loss(rows, tokenizer.pad_token_id, settings, weight, 8)(model).detach())
        for weight in (1.0, 3.0)
    )
    assert thrice == pytest.approx(3 * once, rel=1e-5) and once > 0


@pytest.mark.parametrize("task", ["manners", *meet.TASKS])
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_both_objectives_are_evaluated_on_every_task(
    task: str, side: str, aims_in_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    manners = task == "manners"
    pairs = pairs_to_prefer("test", n=4) if manners else meet_methods.pairs(task, 4, "test")
    texts = [r.completion for r in instructions_to_follow("test", n=4)]
    texts += [getattr(p, side) for p in pairs]
    monkeypatch.setattr(two_aims, "generate", lambda *_, **__: texts)
    metrics = two_aims.evaluate((None, None), task)
    assert metrics["instruct"] == metrics["content"] == metrics["rouge_l"] == 1
    assert metrics["spilled"] == 0
    assert (metrics["preference"] == 1) == (side == "chosen")
    if manners:
        assert metrics["preference"] == metrics["warm"] == (side == "chosen")
        assert metrics["right"] == 1


def record_of(*cells: tuple[str, str, int, dict[str, float]]) -> dict:
    """A record with these cells: method, DPO or PPO, seed and metrics."""
    return {
        "cells": [
            {"params": {"method": method, "by": by}, "seed": seed, "metrics": metrics}
            for method, by, seed, metrics in cells
        ]
    }


def on_validation(instruct: float, preference: float, **more: float) -> dict[str, float]:
    return {"instruct_validation": instruct, "preference_validation": preference} | more


def on_test(preference: float, instruct: float) -> dict[str, float]:
    return {"preference_test": preference, "instruct_test": instruct}


def test_the_chosen_trial_has_the_best_mean_of_both_aims() -> None:
    pairs = [(1.0, 0.65), (0.5, 0.95), (0.9, 0.8), (0.1, 1.0)]
    assert hbat.choose_trial([on_validation(*pair) for pair in pairs]) == 2
    assert hbat.choose_trial([on_validation(0.9, 0.2), on_validation(0.2, 0.8)]) == 0
    record = record_of(
        ("hbat", "dpo", 0, on_validation(0.5, 0.8, rate=1)),
        ("hbat", "dpo", 1, on_validation(0.7, 0.8, rate=1)),
        ("hbat", "dpo", 0, on_validation(0.6, 0.8, rate=2)),
        ("hbat", "dpo", 1, on_validation(0.4, 0.8, rate=2)),
        ("mixed", "dpo", 0, on_validation(0.9, 0.8, rate=3)),
    )
    chosen = hbat.chosen_metrics(record, "hbat")
    assert {seed: metrics["rate"] for seed, metrics in chosen.items()} == {0: 2, 1: 1}


def test_differences_are_paired_over_seeds_and_forgetting_is_over_all() -> None:
    points = {
        "hbat": [(0.7, 0.9), (0.7, 0.8), (0.7, 0.4)],
        "two-stage": [(0.7, 0.4), (0.7, 0.1), (0.5, 1.0)],
    }
    record = record_of(
        *(
            (method, "dpo", seed, {"instruct_before": 1.0, **on_validation(i, p), **on_test(p, i)})
            for method in points
            for seed, (p, i) in enumerate(points[method])
        )
    )
    as_chosen = hbat.difference_as_chosen(record, "two-stage", "instruct")
    assert as_chosen.value == pytest.approx((0.5 + 0.7 - 0.6) / 3)
    both = hbat.difference_as_chosen(record, "two-stage", "instruct", "preference")
    assert both.value == pytest.approx((0.5 / 2 + 0.7 / 2 + (0.2 - 0.6) / 2) / 3)
    swapped = hbat.difference_as_chosen(record, "hbat", "instruct", method="two-stage")
    assert swapped.value == pytest.approx(-as_chosen.value)
    forgotten = hbat.forgotten(record)
    assert (forgotten.value, forgotten.seeds) == (pytest.approx(0.5), (0, 1, 2))


def test_two_stages_forget_and_hbat_does_better_in_little_more_time() -> None:
    """What lesson 06 must show, of the records as they are."""
    both = ("instruct", "preference")
    for name, seeds in (("headlines", 5), ("fronts", 5), ("fronts_ppo", 3)):
        record = read_results(name)
        lead = hbat.difference_as_chosen(record, "two-stage", *both)
        assert len(lead.seeds) == seeds and lead.low > 0, (name, lead)
    assert hbat.forgotten(read_results("fronts")).low > 0
    assert np.mean(list(per_seed(read_results("overhead"), "time_movement").values())) <= 1.15


@pytest.mark.parametrize("methods", [*hbat.TRIALS.values(), headlines.AIMS], ids=list)
def test_every_method_has_as_many_trials(methods: dict[str, tuple]) -> None:
    assert len({len(trials) for trials in methods.values()}) == 1


def test_a_method_as_it_is_taken_apart_is_one_of_its_trials() -> None:
    for method, trials in hbat.TRIALS["dpo"].items():
        assert hbat.TUNED[method] in trials


def test_hbat_as_it_is_taken_apart_and_as_the_lesson_runs_it_is_the_one_that_is_compared() -> None:
    tiny, prefer = two_aims.TINY, two_aims.by_dpo(0, hbat.TUNED["hbat"]["rate"], [])
    assert (tiny.teach, tiny.prefer) == (two_aims.teaching_settings(0), prefer.settings)
    for steps, of_all in zip(hbat.OVERHEAD["steps"], (two_aims.TEACH, two_aims.PREFER)):
        assert steps / hbat.OVERHEAD["rounds"] == of_all / two_aims.ROUNDS
    assert hbat.BASELINE == {
        **two_aims.METHODS["hbat"],
        "strength": hbat.TUNED["hbat"]["strength"],
        "importance": "movement",
    }


def test_the_lesson_runs_one_of_the_trials_of_each_method_and_in_the_same_way() -> None:
    lesson = source_of("06").read_text(encoding="utf-8")
    call = r"train_both\(rounds=(\S+), strength=(\S+), preference_rate=(\S+)\)"
    arms = {"two_stages": "two-stage", "alternating": "in turns", "hbat": "hbat"}
    for name, arm in arms.items():
        rounds, strength, rate = re.search(rf"^{name} = {call}", lesson, re.M).groups()
        whole = [two_aims.METHODS[arm] | trial for trial in headlines.AIMS[arm]]
        assert (float(strength), float(rate)) in {(m["strength"], m["rate"]) for m in whole}
        assert rounds == {1: "1", two_aims.ROUNDS: "two.rounds"}[whole[0]["rounds"]]
    rate = float(re.search(r"prefer = replace\(two.prefer, learning_rate=(\S+)\)", lesson)[1])
    weight = float(re.search(r"return (\S+) \* loss", lesson)[1])
    assert {"rate": rate, "weight": weight} in headlines.AIMS["mixed"]
    assert lesson.count(f"preference_rate), {two_aims.BETA}") == 1
    assert f"beta={two_aims.BETA}" in lesson


def test_what_is_before_the_preferences_is_measured_too_where_they_come_second(
    aims_in_small: None,
) -> None:
    found = {
        m: set(hbat.fronts({"method": m, "by": "dpo", **hbat.TUNED[m]}, 0))
        for m in ("two-stage", "hbat")
    }
    assert found["two-stage"] - found["hbat"] == {
        name.replace("_test", "_before") for name in found["hbat"] if name.endswith("_test")
    }
    assert {"instruct_validation", "preference_validation", "rouge_l_test"} <= found["hbat"]
    assert {"instruct_0", "preference_1"} <= set(
        hbat.aims_met({"method": "hbat", "by": "dpo", "task": "manners"}, 0)
    )


def test_the_cost_of_ewc_is_compared_with_a_run_before_and_one_after(
    aims_in_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, runs = hbat.train_stages, []
    monkeypatch.setattr(hbat, "IMPORTANCE", ("movement", "fisher"))
    monkeypatch.setitem(hbat.OVERHEAD, "steps", (3, 3))

    def slow_at_first_and_then_slower_and_slower(*given: object, **options: object) -> list:
        runs.append(options.get("importance", "none"))
        seconds = float(len(runs)) if len(runs) > 1 else 100.0
        return [replace(stage, seconds=seconds) for stage in real(*given, **options)]

    monkeypatch.setattr(hbat, "train_stages", slow_at_first_and_then_slower_and_slower)
    metrics = hbat.overhead({}, 0)
    assert runs == ["none", "none", "movement", "none", "fisher", "none"]
    assert metrics["time_movement"] == metrics["time_fisher"] == 1
    assert metrics["copies_movement"] < 1.2 < 1.9 < metrics["copies_fisher"] < 2.1
    names = read_results("overhead")["cells"][0]["metrics"]
    assert metrics.keys() == {
        f"{what}_{kind}" for what in ("time", "copies") for kind in hbat.IMPORTANCE
    }
    assert metrics.keys() < names.keys()


def test_the_angle_is_that_between_the_aims_and_its_control_that_within_one(
    aims_in_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = cycle([(1.0, 0.0), (1.0, 1.0)])  # the instructions' gradient on half of the prompts

    def gradients(loaded: tuple, *rows: object) -> tuple[dict, dict]:
        names = [name for name, _ in loaded[0].named_parameters()]
        instructions, preferences = torch.tensor(next(halves)), torch.tensor([-1.0, 0.0])
        return dict.fromkeys(names, instructions), dict.fromkeys(names, preferences)

    monkeypatch.setattr(hbat, "_gradients", gradients)
    found = hbat.pulls({"method": "hbat"}, 0)
    for i in range(5):
        assert (
            found[f"cosine_{i}"]
            == pytest.approx(found[f"cosine_layers.1_{i}"])
            == pytest.approx(-(1 + 0.5**0.5) / 2)
        )
        assert (found[f"cosine_instructions_{i}"], found[f"cosine_preferences_{i}"]) == (
            pytest.approx(0.5**0.5),
            pytest.approx(1),
        )


def test_along_a_run_every_stage_is_looked_into(
    aims_in_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hbat.pulls({"method": "hbat"}, 0)
    assert {f"cosine_{i}" for i in range(5)} <= set(found) and "cosine_5" not in found
    assert all(-1 <= value <= 1 for name, value in found.items() if name.startswith("cosine"))
    assert all(
        1 <= found[f"rests_on_released_{i}"] < 1.5 < found[f"rests_on_{i}"] <= 20
        for i in range(1, 5)
    )
    assert {f"moved_embed_tokens_weight_{i}" for i in range(1, 5)} <= set(found) and found[
        "moved_layers.0_mlp_3"
    ] > 0


# --- headlines ------------------------------------------------------------------------------------


def test_a_headlines_seed_draws_rows_and_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[int, list] = {}

    def note(seed: int, *texts: object) -> None:
        drawn.setdefault(seed, []).append(texts)

    def evaluate_sets(aligner: int, tests: dict, blind: bool = False) -> dict[str, float]:
        note(aligner, *(row.question for rows in tests.values() for row in rows[:5]))
        return {"blind": float(blind)}

    def train(share: float, rows: tuple, seed: int) -> int:
        note(seed, *(row.question for row in rows[0][:5]))
        return seed

    monkeypatch.setattr(headlines, "train_aligner", train)
    monkeypatch.setattr(headlines, "evaluate", evaluate_sets)
    for seed in (20, 21):
        for cell in headlines.CELLS[:3]:
            found = headlines.run_cell(cell, seed)
            assert found["blind"] == (cell["arm"] == "answers hidden")
    for first, second in zip(drawn[20], drawn[21], strict=True):
        assert not {*first} & {*second}


def test_both_aims_of_a_headline_are_measured_on_prompts_of_its_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(headlines, "final_model", lambda method, seed, **trial: (method, trial))
    monkeypatch.setattr(headlines, "before_preferences", lambda *given, **options: {})

    def measure(loaded: tuple, split: str, drawn: int) -> dict[str, float]:
        asked.append((split, drawn))
        return {"instruct": 1.0, "rate": loaded[1]["rate"]}

    monkeypatch.setattr(headlines, "evaluate_aims", measure)
    monkeypatch.setattr(headlines, "temporary_cache", lambda seed: nullcontext())
    found = headlines.run_cell(
        {"part": "aims", "method": "hbat", "rate": 2e-4, "strength": 0.1}, 22
    )
    assert asked == [("validation", 22), ("test", 22)]
    assert found == {
        f"{name}_{split}": value
        for split in ("validation", "test")
        for name, value in (("instruct", 1.0), ("rate", 2e-4))
    }
    every = [two_aims.test_rows("manners", "test", seed) for seed in (None, 20, 21)]
    prompts = [{row.prompt for rows in some for row in rows} for some in every]
    assert not any(a & b for a, b in combinations(prompts, 2))


def test_settings_are_chosen_by_the_best_mean_and_ties_go_to_the_first() -> None:
    found = [{"a": 0.2, "b": 0.9, "c": 9.0}, {"a": 0.6, "b": 0.6}, {"a": 0.9, "b": 0.3}]
    assert common.best_mean(found, "a", "b") == 1
    assert common.best_mean(found, "a") == 2 and common.best_mean(found, "b") == 0
