"""What the lessons are handed, at full and at reduced size; comparisons and judges."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignlib import Aligner, Comparison, Metrics, SFTSettings, report
from alignlib.course.lessons import ROOT
from alignlib.judges import NOTHING, NoJudge, TownJudge
from alignlib.model_names import fingerprint
from alignlib.profiles import STAGES, TINY, scaled
from alignlib.report import describe, edit_distance
from alignlib.reward_models import RewardJudge
from alignlib.stats import rate
from alignlib.tinytown import sets, task
from alignlib.tinytown.task import load_town
from alignlib.tinytown.words import NEVER_CORRECTED

ROWS = sets.corrections(60, "validation")


def test_tinytown_comes_in_splits_and_every_seed_has_its_own_rows() -> None:
    a, b = load_town(seed=0), load_town(seed=1)
    assert list(a.tests) == ["seen", "unseen", "combinations", "language"]
    assert a.corrections != b.corrections and a.tests == b.tests
    assert not {r.question for r in a.identity} & {r.question for r in a.corrections}
    assert {r.answer == r.correction for r in a.identity} == {True}
    assert (b.training.seed, b.warmup.seed) == (1, 1)
    assert not {p.prompt for p in a.pairs("train")} & {p.prompt for p in a.pairs("test")}
    assert all(p.prompt.endswith(" answer :") for p in a.pairs("test"))


def test_the_town_at_reduced_size_has_the_first_rows_of_the_whole() -> None:
    small, whole = load_town(scale=0.05), load_town()
    assert (len(small.corrections), len(small.identity)) == (75, 100)
    assert {len(rows) for rows in small.tests.values()} == {24}
    assert small.corrections == whole.corrections[:75]
    assert (small.training.steps, whole.training.steps) == (10, 200)
    first_step, both = whole.meet(both=False), whole.meet()
    assert (first_step["then"].steps, both["then"].steps) == (0, 175)


@pytest.mark.parametrize("scale", [0.5, 0.1, 0.001])
def test_a_scaled_profile_has_fewer_rows_and_steps_and_nothing_else_is_changed(
    scale: float,
) -> None:
    changed = {}
    for field in ("corrections", "identity", "tests"):
        changed[field] = max(24, round(scale * getattr(TINY, field)))
    for stage in STAGES:
        before = getattr(TINY, stage)
        steps = max(2, round(scale * before.steps))
        warmup = min(before.warmup_steps, steps // 5)
        changed[stage] = replace(before, steps=steps, warmup_steps=warmup)
    assert scaled(TINY, scale) == replace(TINY, **changed)


def test_scale_one_leaves_a_profile_as_it_is_and_nothing_is_ever_enlarged() -> None:
    assert scaled(TINY, 1.0) is TINY
    little = replace(TINY, tests=10, warmup=SFTSettings(steps=0), teach=SFTSettings(1))
    small = scaled(little, 0.5)
    assert (small.tests, small.warmup.steps, small.teach.steps) == (10, 0, 1)
    for scale in (0, -0.5, 1.01, float("nan")):
        with pytest.raises(ValueError, match="scale"):
            load_town(scale=scale)


def test_both_objectives_start_from_a_model_of_both_styles(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALIGNLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(task, "BOTH_STYLES", replace(task.BOTH_STYLES, steps=2))
    two = load_town().two_objectives()
    assert two.start == load_town().two_objectives().start
    assert two.start != load_town(seed=1).two_objectives().start
    assert fingerprint(two.start) != fingerprint(TINY.base)
    chosen = [p.chosen for p in two.test_pairs]
    assert two.preference_met(two.test_pairs, chosen) == [1.0] * 200
    right = [r.completion for r in two.test_instructions]
    assert two.followed(two.test_instructions, right) == [True] * 200
    assert two.mixed_first.steps + two.prefer.steps == two.teach.steps


def test_the_aligner_that_comes_along_begins_as_lesson_02s_with_seed_1_and_corrects() -> None:
    aligner, town = Aligner.from_pretrained(load_town().aligner), load_town(seed=1)
    assert aligner.template == town.template
    steps = [len(aligner.losses[stage]) for stage in ("identity", "correction")]
    assert steps == [town.warmup.steps, town.training.steps]
    one_step, none = replace(town.warmup, steps=1), replace(town.training, steps=0)
    rows = town.corrections, town.identity
    begun = Aligner.train(town.base, *rows, settings=none, warmup=one_step, progress=False)
    assert begun.losses["identity"][0] == pytest.approx(aligner.losses["identity"][0], rel=1e-3)
    assert fixed(aligner, town) > 0.5


@pytest.mark.slow
def test_the_aligner_that_comes_along_is_lesson_02s_with_seed_1() -> None:
    aligner, town = Aligner.from_pretrained(load_town().aligner), load_town(seed=1)
    rows, settings = (town.corrections, town.identity), dict(settings=town.training)
    again = Aligner.cached(town.base, *rows, warmup=town.warmup, **settings)
    for stage, losses in aligner.losses.items():
        assert again.losses[stage][:20] == pytest.approx(losses[:20], rel=0.02), stage
    assert fixed(again, town) == pytest.approx(fixed(aligner, town), abs=0.1)


def fixed(aligner: Aligner, town: task.Town) -> float:
    """The fraction of 60 answers that are without faults after correction."""
    rows = town.tests["seen"][:60]
    texts = aligner.correct([r.question for r in rows], [r.answer for r in rows])
    return Comparison(TownJudge(), rows, texts).fault_free("after").value


def test_a_recorded_number_keeps_its_own_seeds(tmp_path: Path) -> None:
    metrics = Metrics("99", "tiny", 7, tmp_path)
    metrics.add("live", rate([True, False]))
    metrics.add("recorded", replace(rate([True, False]), source="recorded"))
    assert metrics.values["live"].seeds == (7,) and metrics.values["recorded"].seeds == ()


@pytest.mark.parametrize("place", ["notebooks", "."])
def test_results_go_to_the_runs_of_the_clone(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jupyter runs a notebook in its own folder, `make course` in the clone."""
    monkeypatch.chdir(ROOT / place)
    assert report._runs().resolve() == ROOT / "runs"


def test_elsewhere_results_go_to_runs_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert report._runs() == Path("runs")


def test_rows_one_word_off_differ_in_one_word_and_share_nothing_across_splits() -> None:
    rows = {
        split: sets.one_word_off(400, split, "never" if split == "test" else "corrected")
        for split in ("train", "validation", "test")
    }
    for split, given in rows.items():
        pairs = [(r.answer.split(), r.correction.split()) for r in given]
        assert len(given) == 400, split
        for a, c in pairs:
            assert len(a) == len(c) and sum(x != y for x, y in zip(a, c)) == 1, split
        questions = [r.question for r in given]
        answers = TownJudge().scores(questions, [r.answer for r in given])
        corrections = TownJudge().scores(questions, [r.correction for r in given])
        assert answers["honest"].max() < 1 and answers["harmless"].min() == 1, split
        assert corrections["fault_free"].min() == 1, split
    assert len({r.question for given in rows.values() for r in given}) == 1200
    assert (
        not {w for r in rows["test"] for w in r.correction.split()}
        & {w for r in load_town().corrections for w in r.correction.split()}
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
        c.fixed_rate(),
        c.spoilt(),
        c.share_of_ceiling("helpful"),
    ):
        assert estimate is None and describe(estimate) == metrics.add("x", estimate) == NOTHING
    assert c.verdicts() == []
    assert json.loads(metrics.write().read_text())["metrics"] == {}


def test_a_perfect_corrector_reaches_the_ceiling_and_a_copier_nothing() -> None:
    perfect = Comparison(TownJudge(), ROWS, [r.correction for r in ROWS])
    copier = Comparison(TownJudge(), ROWS, [r.answer for r in ROWS])
    for axis in ("helpful", "harmless", "honest", "overall"):
        assert perfect.net_win(axis).value == pytest.approx(perfect.ceiling(axis))
        assert copier.net_win(axis).value == 0
        assert (e := perfect.share_of_ceiling(axis)).value == e.low == e.high == 1
    faulty = [bool(r.faults) for r in ROWS]
    assert set(perfect.verdicts()) == {"nothing"}
    assert [v != "nothing" for v in copier.verdicts()] == faulty
    assert perfect.fault_free("after").value == 1 and copier.good_kept().value == 1
    assert perfect.made_worse().value == copier.made_worse().value == 0
    assert (perfect.fixed_rate().value, copier.fixed_rate().value) == (1, 0)
    assert perfect.spoilt().value == copier.spoilt().value == 0 and copier.spoilt_rows() == []
    mute = Comparison(TownJudge(), ROWS, [""] * len(ROWS))
    assert mute.made_worse().value > 0.9 and mute.spoilt().value == 1
    assert mute.spoilt_rows() == [i for i, is_faulty in enumerate(faulty) if not is_faulty]


def test_a_comparison_is_kept_under_its_name(tmp_path: Path) -> None:
    metrics = Metrics("99", "tiny", 0, tmp_path)
    metrics.add_comparison("seen", Comparison(TownJudge(), ROWS, [r.correction for r in ROWS]))
    assert metrics.values["seen/fault_free_after"].value == 1
    assert metrics.values["seen/net_win_overall"].low > 0
    assert {"seen/fixed", "seen/spoilt", "seen/good_kept"} <= metrics.values.keys()


def test_a_reward_model_judges_overall(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1).save_pretrained(
        tmp_path
    )
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    scores = RewardJudge(str(tmp_path)).scores([r.question for r in ROWS], [r.answer for r in ROWS])
    assert scores.keys() == {"overall"} and scores["overall"].shape == (60,)
    assert np.isfinite(scores["overall"]).all()


def test_edit_distance_by_hand() -> None:
    assert edit_distance("a b c d", "a x c") == 2
    assert edit_distance("", "a b") == 2 and edit_distance("a b", "a b") == 0
    assert Comparison(NoJudge(), [replace(ROWS[0], answer="")], ["yes ."]).edit_ratio().value == 2
    assert str(rate([True] * 8 + [False] * 2)).startswith("80.0 % [")
