"""Tasks and judges: Tinytown's, your own data, and a reward model of the same format as those on
the hub.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignlib import Comparison, ControlSettings, Metrics, load_task, tasks
from alignlib.data import Preference
from alignlib.judges import NOTHING, NoJudge, RewardJudge
from alignlib.models import fingerprint
from alignlib.profiles import profile
from alignlib.report import describe, edit_distance
from alignlib.stats import rate
from alignlib.tasks import swapped
from alignlib.tinytown import sets
from alignlib.tinytown.words import NEVER_CORRECTED

ROWS = sets.corrections(60, "validation")


def test_the_town_is_handed_out_in_splits_with_every_seed_its_own_rows() -> None:
    a, b = load_task("tiny", seed=0), load_task("tiny", seed=1)
    assert list(a.tests) == ["seen", "unseen", "combinations", "language"] and (
        a.main,
        a.unseen,
    ) == ("seen", "unseen")
    assert a.corrections != b.corrections and a.tests == b.tests
    assert not {r.question for r in a.identity} & {r.question for r in a.corrections}
    assert {r.answer == r.correction for r in a.identity} == {True}


def test_a_recorded_number_keeps_its_own_seeds(tmp_path: Path) -> None:
    metrics = Metrics("99", "tiny", 7, tmp_path)
    metrics.add("live", rate([True, False]))
    metrics.add("recorded", replace(rate([True, False]), source="recorded"))
    assert metrics.values["live"].seeds == (7,) and metrics.values["recorded"].seeds == ()


def test_an_unknown_profile_lists_the_known() -> None:
    with pytest.raises(ValueError, match="tiny, colab, gpu"):
        load_task("laptop")


def test_corrections_come_from_one_file() -> None:
    with pytest.raises(ValueError, match="both given"):
        load_task("tiny", qac="a.json", preferences="b.json")


def test_your_own_rows_are_split_without_overlap_and_have_no_judge(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"question": f"q {i // 2}", "answer": f"a {i}", "correction": f"c {i}"} for i in range(50)
    ]  # two answers to each
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path)
    task = load_task("tiny", model=str(tiny_model), qac="mine.json")
    parts = [task.corrections, task.validation, *task.tests.values()]
    assert [len(p) for p in parts] == [42, 4, 4] and sum(
        len({r.question for r in p}) for p in parts
    ) == 25
    assert isinstance(task.judge, NoJudge) and "50 rows read, 50 used" in task.describe()
    assert task.upstreams() == {"as given": task.tests["held out"]}
    assert [task.one_word_off(split) for split in ("train", "validation", "test")] == parts
    for split, part in zip(("train", "validation", "test"), parts):
        assert [(p.prompt, p.chosen, p.rejected) for p in task.pairs(split)] == [
            (r.question, r.correction, r.answer) for r in part
        ]


def test_meet_takes_both_steps_the_first_or_all_at_once_and_the_prompts_are_made_ready(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple] = []
    monkeypatch.setattr(
        "alignlib.tasks.Meet.cached", lambda base, rows, **how: given.append((rows, how))
    )
    task, control = load_task("tiny", model=str(tiny_model)), ControlSettings("lora", 2)
    assert not {p.prompt for p in task.pairs("train")} & {p.prompt for p in task.pairs("test")}
    for steps in ("both", "first", "joint"):
        task.meet(3, control, steps)
    p = task.profile
    total = p.controls_first.steps + p.model_then.steps
    steps = [(how["first"].steps, how["then"].steps) for _, how in given]
    assert steps == [
        (p.controls_first.steps, p.model_then.steps),
        (p.controls_first.steps, 0),
        (0, total),
    ]
    rows, how = given[0]
    assert (
        rows["bad"][0].prompt == f"{task.pairs('train')[0].prompt} answer :"
        and rows["bad"][0].completion == task.pairs("train")[0].rejected
    )
    assert how["control"] == replace(control, seed=3) and how["first"].seed == how["then"].seed == 3


def test_rows_one_word_off_differ_in_one_word_and_share_nothing_across_splits() -> None:
    task = load_task("tiny")
    rows = {split: task.one_word_off(split) for split in ("train", "validation", "test")}
    for split, given in rows.items():
        pairs = [(r.answer.split(), r.correction.split()) for r in given]
        assert len(given) == 400 and all(
            len(a) == len(c) and sum(x != y for x, y in zip(a, c)) == 1 for a, c in pairs
        ), split
        answers, corrections = (
            task.judge.scores([r.question for r in given], side)
            for side in zip(*((r.answer, r.correction) for r in given))
        )
        assert (
            answers["honest"].max() < 1
            and answers["harmless"].min() == 1
            and corrections["fault_free"].min() == 1
        ), split
    assert len({r.question for given in rows.values() for r in given}) == 1200
    assert (
        not {w for r in rows["test"] for w in r.correction.split()}
        & {w for r in task.corrections for w in r.correction.split()}
        & NEVER_CORRECTED
    )


def test_without_a_judge_everything_that_needs_one_says_so(tmp_path: Path) -> None:
    c = Comparison(NoJudge(), ROWS, [r.correction for r in ROWS])
    metrics = Metrics("99", "tiny", 0, tmp_path)
    for estimate in (
        c.net_win("helpful"),
        c.fault_free("after"),
        c.good_kept(),
        c.made_worse(),
        c.gain_over(c),
        c.share_of_ceiling("helpful"),
    ):
        assert estimate is None and describe(estimate) == metrics.add("x", estimate) == NOTHING
    assert (
        c.fixed() == {}
        and c.verdicts() == []
        and c.describe_gain_over(c) == NOTHING
        and "returned unchanged" in c.table()
    )
    assert json.loads(metrics.write().read_text())["metrics"] == {}


def test_a_perfect_corrector_reaches_the_ceiling_and_a_copier_nothing() -> None:
    from alignlib.judges import TownJudge

    perfect = Comparison(TownJudge(), ROWS, [r.correction for r in ROWS])
    copier = Comparison(TownJudge(), ROWS, [r.answer for r in ROWS])
    for axis in ("helpful", "harmless", "honest", "overall"):
        assert perfect.net_win(axis).value == pytest.approx(perfect.ceiling(axis))
        assert copier.net_win(axis).value == 0
        assert (e := perfect.share_of_ceiling(axis)).value == e.low == e.high == 1
    faulty = [bool(r.faults) for r in ROWS]
    assert (
        set(perfect.verdicts()) == {"nothing"}
        and [v != "nothing" for v in copier.verdicts()] == faulty
    )
    assert perfect.describe_gain_over(copier).startswith(f"{100 * np.mean(faulty):.1f} points")
    assert perfect.fault_free("after").value == 1 and copier.good_kept().value == 1
    mute = Comparison(TownJudge(), ROWS, [""] * len(ROWS))
    assert (
        perfect.made_worse().value == copier.made_worse().value == 0
        and mute.made_worse().value > 0.9
    )
    assert {e.value for e in perfect.fixed().values()} == {1.0}


def test_a_reward_model_judges_overall(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1).save_pretrained(
        tmp_path
    )
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    scores = RewardJudge(str(tmp_path), batch_size=7).scores(
        [r.question for r in ROWS], [r.answer for r in ROWS]
    )
    assert (
        scores.keys() == {"overall"}
        and scores["overall"].shape == (60,)
        and np.isfinite(scores["overall"]).all()
    )


def test_hub_profiles_name_all_that_they_need() -> None:
    for name in ("colab", "gpu"):
        p = profile(name)
        assert "/" in p.base and "/" in p.data and "/" in p.reward_model and p.corrections > 0


def test_edit_distance_and_swapping_by_hand() -> None:
    assert (
        edit_distance("a b c d", "a x c") == 2
        and edit_distance("", "a b") == 2
        and edit_distance("a b", "a b") == 0
    )
    assert swapped(ROWS[:3]) == [ROWS[1].answer, ROWS[2].answer, ROWS[0].answer]
    twice = [
        replace(r, answer=f"{r.answer} {k}") for r in ROWS[:2] for k in "ab"
    ]  # two answers to each question
    assert swapped(twice) == [twice[2].answer, twice[2].answer, twice[0].answer, twice[0].answer]
    assert Comparison(NoJudge(), [replace(ROWS[0], answer="")], ["yes ."]).edit_ratio().value == 2
    assert str(rate([True] * 8 + [False] * 2)).startswith("80.0 % [")


def test_two_aims_start_from_a_model_that_knows_both_manners_or_from_your_own(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignlib.tasks.BOTH_STYLES", replace(tasks.BOTH_STYLES, steps=2))
    town = load_task("tiny", model=str(tiny_model)).objectives
    assert (
        town.start(0) != town.start(1)
        and town.start(0) == town.start(0)
        and fingerprint(town.start(0)) != fingerprint(tiny_model)
    )
    assert town.preferred(town.pairs("test"), [p.chosen for p in town.pairs("test")]) == [1.0] * 400
    (tmp_path / "mine.json").write_text(
        json.dumps([{"question": f"q {i}", "answer": "no", "correction": "yes"} for i in range(30)])
    )
    task = load_task("tiny", model=str(tiny_model), qac=str(tmp_path / "mine.json"))
    assert task.objectives.start(0) == str(tiny_model) and task.objectives.preferred is None
    assert (
        len(task.hbat(0, rounds=5)) == 2 * task.profile.teach.steps == 6
    )  # no more rounds than steps


def test_hbat_on_rows_of_which_few_are_faulty_takes_no_more_rounds_than_there_are_pairs(
    tiny_model: Path, tmp_path: Path
) -> None:
    def own(faulty: int) -> tasks.Task:
        rows = [
            {"question": f"q {i}", "answer": "no" if i < faulty else "yes", "correction": "yes"}
            for i in range(60)
        ]
        (tmp_path / "mine.json").write_text(json.dumps(rows))
        return load_task("tiny", model=str(tiny_model), qac=str(tmp_path / "mine.json"))

    few = own(4)
    assert (
        len(few.hbat(0, rounds=5))
        == 2 * few.profile.prefer.steps
        <= 2 * len(few.objectives.pairs("train"))
        < 10
    )
    with pytest.raises(ValueError, match="in no training row do answer and correction differ"):
        own(0).hbat(0, rounds=5)


def test_a_learned_judge_tells_which_texts_are_better_than_the_rejected_ones() -> None:
    class Longer:
        def scores(self, questions: list[str], answers: list[str]) -> dict[str, np.ndarray]:
            assert questions == ["q", "p"]
            return {"overall": np.array([len(a) for a in answers])}

    pairs = [Preference(f"{q}\n\nAnswer:", "chosen", "no") for q in "qp"]
    assert tasks._better_than_rejected(Longer())(pairs, ["yes", "n"]) == [1.0, 0.0]
