"""What the experiments of lessons 03, 05 and 06 are made of: the rows each arm gets are the ones
it says.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path

import numpy as np
import pytest
import torch

import alignlib.hbat
from alignlib.controls import Mix
from alignlib.course.sweep import per_seed, read_results
from alignlib.data import QAC
from alignlib.judges import TownJudge
from alignlib.models import load_model
from alignlib.prompts import TOWN
from alignlib.tinytown import recorded, sets
from alignlib.tinytown.boards import Board
from alignlib.tinytown.oracle import instructions_to_follow, pairs_to_prefer
from alignlib.tinytown.pretrain import Recipe
from alignlib.tokens import example
from experiments import QUESTIONS, baselines, hbat, meet, meet_controls, two_aims, uses
from experiments.baselines import BEST, CLEARLY, TRIALS, compared, pairs_of
from experiments.registry import EXPERIMENTS
from experiments.upstreams import (
    MANNERS,
    UNESCAPED,
    asked_for,
    data_amount,
    in_manner,
    in_that_manner,
    injected,
    taken_over,
)


@pytest.fixture(scope="module")
def rows() -> list[QAC]:
    return sets.corrections(60, "test")


def test_three_upstreams_take_turns_at_the_training_questions() -> None:
    rows = recorded.taught()
    assert [r.question for r in rows] == recorded.asked()["train"]
    for i, name in enumerate(recorded.TAUGHT):
        assert rows[i].answer == recorded.recorded_answers(name)([rows[i].question])[0]
        assert (
            recorded.taught(1)[i].answer
            == recorded.recorded_answers(recorded.TAUGHT[0])([rows[i].question])[0]
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


@pytest.mark.parametrize("manner", MANNERS)
def test_a_wish_is_granted_without_a_fault_and_stands_where_it_is_asked(
    manner: str, rows: list[QAC]
) -> None:
    granted = [in_manner(r.correction, manner, random.Random(0)) for r in rows]
    assert all(in_that_manner(text, manner) for text in granted) and not all(
        in_that_manner(r.correction, manner) for r in rows
    )
    assert TownJudge().scores([r.question for r in rows], granted)["fault_free"].all()
    for where in ("question", "answer"):
        asked = asked_for(rows, manner, where)
        assert all(
            getattr(a, where) == f"{getattr(r, where)} {manner} ." for a, r in zip(asked, rows)
        )
        other = {"question": "answer", "answer": "question"}[where]
        assert all(
            getattr(a, other) == getattr(r, other) and in_that_manner(a.correction, manner)
            for a, r in zip(asked, rows)
        )


def test_wrong_corrections_are_other_rows_and_as_many_as_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[list[QAC]] = []
    monkeypatch.setattr("experiments.upstreams.lesson", lambda seed, rows: given.append(rows))
    monkeypatch.setattr(
        "experiments.upstreams.measured",
        lambda aligner, tests: {"tests": len(tests)},
    )
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

    def texts(folder, questions, how, seed):
        return [(good if (i + seed) % 2 else spoilt)[q] for i, q in enumerate(questions)]  # noqa: E731

    monkeypatch.setattr(baselines, "made", lambda name: name)
    monkeypatch.setattr(baselines, "training_questions", lambda n: tuple(good))
    monkeypatch.setattr(
        baselines,
        "own_answers",
        lambda folder, questions, how, seed: texts(folder, questions, how, seed // 100),
    )
    pairs = compared(60, 0)
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
    assert {name: e.question for name, e in EXPERIMENTS.items()} == QUESTIONS
    assert list(EXPERIMENTS) == list(QUESTIONS)


def test_only_choices_rest_on_fewer_than_three_seeds() -> None:
    assert [name for name, experiment in EXPERIMENTS.items() if len(experiment.seeds) < 3] == [
        "tuning",
        "meet_tuning",
    ]


# --- lesson 05
# ------------------------------------------------------------------------------------------


@pytest.fixture
def in_small(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lesson 05's experiments on an untrained model, a few rows and steps: for plumbing, not for
    quality.
    """
    monkeypatch.setattr(meet, "TINY", replace(meet.TINY, base=str(tiny_model)))
    for module, (name, value) in product(
        (meet, meet_controls), {"N": 24, "STEPS": 4, "FIRST": 2, "TESTED": 4}.items()
    ):
        monkeypatch.setattr(module, name, value)
    meet.other_judges.cache_clear()
    yield
    meet.other_judges.cache_clear()


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What `Meet.train` is given; nothing is trained, and what it gives back can say nothing."""
    given: list[dict] = []
    monkeypatch.setattr(
        meet.Meet,
        "train",
        lambda base, rows, **more: given.append({"base": base, "rows": rows, **more}) or Mute(),
    )
    return given


class Mute:
    """A model whose first use ends a test that wants to know no more than how it was made."""

    class Asked(Exception):
        pass

    def generate(self, *_: object, **__: object) -> list[str]:
        raise Mute.Asked

    logprob = generate


def test_pairs_end_where_the_text_begins_and_the_preferred_one_has_the_higher_marks() -> None:
    for task in meet.TASKS:
        some = meet.pairs(task, 30, "test")
        good, bad = (
            meet.scores(task, some, texts)
            for texts in ([p.chosen for p in some], [p.rejected for p in some])
        )
        assert all(p.prompt.endswith(" answer :") for p in some)
        assert (
            good["sound"].all()
            and (good["overall"] == 1).all()
            and not bad["sound"].any()
            and (bad["overall"] < 1).all()
        )


def test_of_the_summaries_to_train_on_a_quarter_is_mislabelled_and_of_nothing_else() -> None:
    rows, right = meet.pairs("summary", 400), sets.preferences(400, task="summaries")
    turned = [
        (p.chosen, p.rejected) == (q.rejected, q.chosen) for p, q in zip(rows, right, strict=True)
    ]
    assert 0.2 < sum(turned) / len(turned) < 0.3
    assert all(
        t or (p.chosen, p.rejected) == (q.chosen, q.rejected)
        for t, p, q in zip(turned, rows, right)
    )
    assert [p.chosen for p in meet.pairs("qa", 50)] == [p.chosen for p in sets.preferences(50)]


def test_a_chain_of_hindsight_shows_the_better_and_the_worse_alone_and_behind_one_another() -> None:
    [p, q] = meet.pairs("qa", 2)
    chain = meet.chained([p, q])
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
        meet.with_word("bulletin : it rained . tl;dr answer :", "better")
        == "bulletin : it rained . tl;dr better answer :"
    )


def test_a_method_that_says_what_is_preferred_beats_one_that_says_what_is_not(
    in_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {p.prompt: p for task in meet.TASKS for p in meet.pairs(task, 4, "test")}
    says = {
        "meet, prompt": "chosen",
        "meet, lora": "chosen",
        "sft": "rejected",
        "untouched": "rejected",
    }

    def stub(side):
        return lambda *_, **__: lambda prompts, t, seed: [getattr(known[p], side) for p in prompts]  # noqa: E731

    for table in ("METHODS", "BESIDE"):
        monkeypatch.setattr(
            meet,
            table,
            {
                name: stub(side)
                for name, side in says.items()
                if (name == "untouched") == (table == "BESIDE")
            },
        )
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
            for p in meet.pairs(task, 4, "test")
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
    monkeypatch.setattr(
        meet, "load_model", lambda base: loaded.append(base) or load_model(tiny_model)
    )
    monkeypatch.setattr(
        meet,
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
    for name, each in (("sft", 1), ("dpo", 2)):

        def count(*given, each=each, **_):
            return texts.append(each * given[3].steps * given[3].batch_size)  # noqa: E731

        monkeypatch.setattr(meet, name, count)
    for method, trials in meet.TRIALS.items():
        for trial in trials:
            texts.clear()
            meet.METHODS[method](meet.pairs("qa", 24), 1, **trial)
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
    monkeypatch.setattr(meet, "_learned", lambda rows: shown.append(rows))
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

    monkeypatch.setattr(meet.Meet, "generate", says)
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
    monkeypatch.setattr(meet.Meet, "train", lambda *_, **__: meet.Meet(None, None))
    monkeypatch.setattr(meet.Meet, "generate", obeys)
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


# --- lesson 06
# ------------------------------------------------------------------------------------------


@pytest.fixture
def aims_in_small(tiny_model: Path, in_small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lesson 06's experiments likewise."""
    for module in (two_aims, hbat):
        monkeypatch.setattr(module, "start", lambda task, seed: str(tiny_model))
    monkeypatch.setattr(
        two_aims,
        "told",
        lambda task, seed: (
            instructions_to_follow(seed=seed, n=24),
            pairs_to_prefer(seed=seed, n=24),
        ),
    )
    for name, value in {"TEACH": 6, "PREFER": 4, "PAIRS": 2, "ASKED": 4}.items():
        monkeypatch.setattr(two_aims, name, value)
    monkeypatch.setattr(hbat, "TEMPERATURES", (0.0, 1.0))
    for of in two_aims.METHODS.values():
        if "rounds" in of:
            monkeypatch.setitem(of, "rounds", min(2, of["rounds"]))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many steps `sft`, `dpo` and `ppo` are asked for, all of which go on to train."""
    spent: dict[str, list[int]] = {"sft": [], "dpo": [], "ppo": []}
    for module, (method, counted) in product((two_aims, alignlib.hbat), spent.items()):
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
    order = two_aims.batches
    monkeypatch.setattr(
        two_aims, "batches", lambda *given: (mixed_in.append(i) or i for i in order(*given))
    )
    with two_aims.own_cache(0):
        two_aims.final_model(method, 0, by=by, **hbat.TRIALS[by][method][0])
    also = len(mixed_in) / 32  # rows of instructions beside preferences, in batches
    assert (
        sum(steps["sft"]) + also == 6
        and sum(steps[by]) == 4
        and not steps["ppo" if by == "dpo" else "dpo"]
    )
    assert len(steps["sft"]) == two_aims.METHODS[method].get("rounds", 1)


def test_mixing_adds_the_loss_on_instructions_so_many_times(
    aims_in_small: None, tiny_model: Path
) -> None:
    model, tokenizer = load_model(tiny_model)
    rows = [example(tokenizer, r.prompt, r.completion) for r in instructions_to_follow(n=40)]
    once, thrice = (
        float(two_aims.also(model, tokenizer, rows, 0, weight, n=8)(model).detach())
        for weight in (1.0, 3.0)
    )
    assert thrice == pytest.approx(3 * once, rel=1e-5) and once > 0


def test_both_aims_are_measured_on_every_task(
    aims_in_small: None, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_model(tiny_model)
    for task, side in (
        ("manners", "chosen"),
        ("manners", "rejected"),
        ("qa", "chosen"),
        ("summary", "chosen"),
    ):
        pairs = pairs_to_prefer("test", n=4) if task == "manners" else meet.pairs(task, 4, "test")
        texts = [r.completion for r in instructions_to_follow("test", n=4)] + [
            getattr(p, side) for p in pairs
        ]
        monkeypatch.setattr(two_aims, "generate", lambda *_, texts=texts, **__: texts)
        found = two_aims.measured(model, tokenizer, task)
        assert (found["instruct"], found["content"], found["rouge_l"], found["spilled"]) == (
            1,
            1,
            1,
            0,
        )
        assert found["preference"] == (side == "chosen"), task
        if task == "manners":
            assert (found["warm"], found["right"]) == (side == "chosen", 1)


def test_the_trial_compared_is_the_best_among_those_that_meet_the_preference() -> None:
    def mark(instruct, preference):
        return {
            "instruct_validation": instruct,
            "preference_validation": preference,
        }  # noqa: E731

    assert (
        hbat.chosen([mark(1.0, 0.65), mark(0.5, 0.95), mark(0.9, hbat.MATCHED), mark(0.1, 1.0)])
        == 2
    )
    assert hbat.chosen([mark(0.9, 0.7), mark(0.85, 0.8)]) == 1
    assert hbat.chosen([mark(1.0, 0.2), mark(0.8, 0.6), mark(0.9, 0.5)]) == 1
    cell = lambda seed, rate, instruct, by="dpo": {  # noqa: E731
        "params": {"method": "hbat", "by": by, "rate": rate},
        "seed": seed,
        "metrics": mark(instruct, 0.8) | {"rate": rate},
    }
    record = {
        "cells": [
            cell(0, 1, 0.5),
            cell(1, 1, 0.7),
            cell(0, 2, 0.6),
            cell(1, 2, 0.4),
            cell(0, 3, 0.9, "ppo"),
        ]
    }
    assert {seed: found["rate"] for seed, found in hbat.compared(record, "hbat").items()} == {
        0: 2,
        1: 1,
    }


def test_at_equal_preference_a_method_is_read_off_the_trials_that_no_other_one_beats() -> None:
    cell = lambda seed, p, i: {  # noqa: E731
        "params": {"method": "hbat", "by": "dpo"},
        "seed": seed,
        "metrics": {"preference_test": p, "instruct_test": i},
    }
    record = {
        "cells": [
            cell(0, 0.4, 0.0),
            cell(0, 0.6, 1.0),
            cell(0, 0.8, 0.5),
            cell(0, 0.7, 0.4),
            cell(1, 0.3, 0.9),
            cell(1, 0.5, 0.8),
        ]
    }
    assert hbat.at_preference(record, "hbat", 0.7) == {
        0: pytest.approx(0.75)
    }  # seed 1 does not go so far
    assert hbat.at_preference(record, "hbat", 0.5) == {
        0: 1.0,
        1: pytest.approx(0.8),
    }  # in seed 0 its best trial goes further, for nothing
    assert hbat.at_preference(record, "hbat", 0.4) == {0: 1.0, 1: pytest.approx(0.85)}


def test_the_lead_is_paired_over_the_seeds_in_which_both_go_so_far_and_forgetting_over_all() -> (
    None
):
    cell = lambda method, seed, p, i: {  # noqa: E731
        "params": {"method": method, "by": "dpo"},
        "seed": seed,
        "metrics": {"instruct_before": 1.0}
        | {
            f"{aim}_{on}": x
            for aim, x in (("preference", p), ("instruct", i))
            for on in ("validation", "test")
        },
    }
    ours = [cell("hbat", 0, 0.7, 0.9), cell("hbat", 1, 0.7, 0.8), cell("hbat", 2, 0.7, 0.4)]
    theirs = [
        cell("two-stage", 0, 0.7, 0.4),
        cell("two-stage", 1, 0.7, 0.1),
        cell("two-stage", 2, 0.5, 1.0),
    ]
    lead = hbat.ahead({"cells": ours + theirs}, "two-stage")
    assert (lead.value, lead.seeds) == (pytest.approx(0.6), (0, 1))
    assert hbat.ahead_as_chosen({"cells": ours + theirs}, "two-stage").value == pytest.approx(
        (0.5 + 0.7 - 0.6) / 3
    )
    assert (hbat.forgotten({"cells": theirs}).value, hbat.forgotten({"cells": theirs}).seeds) == (
        pytest.approx(0.5),
        (0, 1, 2),
    )


def test_two_stages_forget_and_hbat_keeps_more_in_little_more_time() -> None:
    """What lesson 06 must show, of the records as they are."""
    by_dpo, by_ppo = read_results("fronts"), read_results("fronts_ppo")
    drop, leads = (
        hbat.forgotten(by_dpo),
        [hbat.ahead(by_dpo, than) for than in ("two-stage", "restarted")],
    )
    assert all(len(e.seeds) == 5 and e.low > 0 for e in (drop, *leads)), (drop, leads)
    assert all(hbat.ahead_as_chosen(by_dpo, than).low > 0 for than in ("two-stage", "restarted"))
    for lead in (
        hbat.ahead(by_ppo, "two-stage", by="ppo"),
        hbat.ahead_as_chosen(by_ppo, "two-stage", by="ppo"),
    ):
        assert lead.low > 0 and len(lead.seeds) == 3
    assert np.mean(list(per_seed(read_results("overhead"), "time_movement").values())) <= 1.15


@pytest.mark.parametrize("by", hbat.TRIALS)
def test_every_method_has_as_many_trials(by: str) -> None:
    assert len({len(trials) for trials in hbat.TRIALS[by].values()}) == 1


def test_a_method_as_it_is_tuned_is_the_trial_that_was_chosen_in_the_first_seed() -> None:
    record = read_results("fronts")
    for method, trials in hbat.TRIALS["dpo"].items():
        scores = [
            {
                aim: per_seed(record, aim, method=method, by="dpo", **trial)[0]
                for aim in ("instruct_validation", "preference_validation")
            }
            for trial in trials
        ]
        assert hbat.TUNED[method] == trials[hbat.chosen(scores)], (method, scores)


def test_hbat_as_it_is_taken_apart_and_as_the_lesson_runs_it_is_the_one_that_is_compared() -> None:
    tiny, prefer = two_aims.TINY, two_aims.by_dpo(0, hbat.TUNED["hbat"]["rate"], [])
    assert (tiny.teach, tiny.prefer, tiny.beta, tiny.penalty_strength) == (
        two_aims.teach(0),
        prefer.settings,
        prefer.beta,
        hbat.TUNED["hbat"]["strength"],
    )
    assert hbat.AROUND == {
        **two_aims.METHODS["hbat"],
        "strength": tiny.penalty_strength,
        "importance": "movement",
    }


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


def test_the_cost_of_holding_is_told_beside_a_run_before_and_one_after(
    aims_in_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, runs = hbat.stages, []

    def slowest_at_first_and_then_slower_and_slower(*given: object, **more: object) -> list:
        runs.append(1)
        return [
            replace(stage, seconds=float(len(runs)) if len(runs) > 1 else 100.0)
            for stage in real(*given, **more)
        ]

    monkeypatch.setattr(hbat, "stages", slowest_at_first_and_then_slower_and_slower)
    found = hbat.overhead({}, 0)
    assert all(found[f"time_{kind}"] == 1 for kind in alignlib.hbat.IMPORTANCE)
    assert {
        f"{what}_{kind}" for what in ("time", "copies") for kind in alignlib.hbat.IMPORTANCE
    } == set(found)
    assert found["copies_movement"] < 1.2 < 1.9 < found["copies_fisher"] < 2.1


def test_the_angle_is_that_between_the_aims_and_its_control_that_within_one(
    aims_in_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def towards(model, x, y):
        return {name: torch.tensor([x, y]) for name, _ in model.named_parameters()}  # noqa: E731

    halves = cycle(
        [(1.0, 0.0), (1.0, 1.0)]
        # what the instructions ask for, by half of the prompts; the preferences always ask for (-1,
        # 0)
    )
    monkeypatch.setattr(
        hbat,
        "_pulled",
        lambda model, *_: (towards(model, *next(halves)), towards(model, -1.0, 0.0)),
    )
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
