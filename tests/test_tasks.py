"""Tasks and judges: Tinytown, your own data, and a reward model in the hub's format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignlib import Comparison, ControlSettings, Metrics, SFTSettings, load_task, tasks
from alignlib.aligner import Aligner
from alignlib.batching import batches
from alignlib.data import Preference, read_qac
from alignlib.judges import NOTHING, NoJudge, RewardJudge, TownJudge
from alignlib.models import fingerprint, load_model
from alignlib.profiles import PROFILES, STAGES, fit_stage, profile, scaled
from alignlib.report import describe, edit_distance
from alignlib.stats import rate
from alignlib.tinytown import sets
from alignlib.tinytown.words import NEVER_CORRECTED

ROWS = sets.corrections(60, "validation")


def own_rows(folder: Path, rows: list[dict]) -> str:
    """A file of these rows, by its name."""
    (folder / "mine.json").write_text(json.dumps(rows), encoding="utf-8")
    return str(folder / "mine.json")


def numbered(n: int, answer: str = "no", correction: str = "yes") -> list[dict]:
    """n rows, each with a question of its own."""
    texts = {"answer": answer, "correction": correction}
    return [{"question": f"q {i}", **texts} for i in range(n)]


def test_tinytown_comes_in_splits_and_every_seed_has_its_own_rows() -> None:
    a, b = load_task("tiny", seed=0), load_task("tiny", seed=1)
    assert list(a.tests) == ["seen", "unseen", "combinations", "language"]
    assert (a.main, a.unseen) == ("seen", "unseen")
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
    # two answers to each question
    rows = [
        {"question": f"q {i // 2}", "answer": f"a {i}", "correction": f"c {i}"} for i in range(50)
    ]
    own_rows(tmp_path, rows)
    monkeypatch.chdir(tmp_path)
    task = load_task("tiny", model=str(tiny_model), qac="mine.json")
    parts = [task.corrections, task.validation, *task.tests.values()]
    assert [len(p) for p in parts] == [42, 4, 4]
    assert sum(len({r.question for r in p}) for p in parts) == 25
    assert isinstance(task.judge, NoJudge) and "50 rows read, 50 used" in task.describe()
    assert task.upstreams() == {"as given": task.tests["held out"]}
    assert [task.one_word_off(split) for split in ("train", "validation", "test")] == parts
    for split, part in zip(("train", "validation", "test"), parts):
        assert [(p.prompt, p.chosen, p.rejected) for p in task.pairs(split)] == [
            (r.question, r.correction, r.answer) for r in part
        ]


def test_own_files_are_found_in_the_home_folder_and_a_number_is_refused(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    own_rows(tmp_path, numbered(30))
    for given in ({"qac": "~/mine.json"}, {"preferences": "~/mine.json"}):
        assert len(load_task("tiny", model=str(tiny_model), **given).corrections) == 24
    for number in (20240115, 0):
        with pytest.raises(ValueError, match=f"{number} is no path"):
            load_task("tiny", model=str(tiny_model), qac=number)
    metrics = Metrics("99", "tiny", 0, "~/runs")
    assert metrics.write() == tmp_path / "runs" / "metrics.json"


def row_of(words: int, i: int = 0) -> dict:
    """A row whose correction has so many words."""
    return {"question": f"q {i}", "answer": "no", "correction": "lamp " * words}


@pytest.mark.parametrize("long", [[20_000], [5000, 20_000, 9000], [20_000] * 20])
def test_rows_longer_than_a_step_are_left_out_of_every_split_and_counted(
    long: list[int], tmp_path: Path, tiny_model: Path
) -> None:
    rows = numbered(40) + [row_of(words, 100 + i) for i, words in enumerate(long)]
    file = own_rows(tmp_path, rows)
    subject = "1 row" if len(long) == 1 else f"{len(long)} rows"
    note = f"{subject} longer than 4096 tokens left out: too long for a step"
    for seed in range(4):  # whichever split they would fall into
        task = load_task("tiny", seed=seed, model=str(tiny_model), qac=file)
        parts = [task.corrections, task.identity, task.validation, *task.tests.values()]
        assert note in task.notes and note in task.describe()
        assert max(len(r.correction) for part in parts for r in part) < 10
        assert [len(part) for part in parts] == [32, 32, 4, 4]


def test_the_longest_row_kept_has_just_as_many_tokens_as_a_step_may_have(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROFILES, "tiny", replace(profile("tiny"), step_tokens=100))
    aligner = Aligner(*load_model(tiny_model), tasks.T2)
    rows = numbered(10) + [row_of(words, words) for words in range(60, 100)]
    file = own_rows(tmp_path, rows)
    lengths = [len(aligner.tokens(row)["input_ids"]) for row in read_qac(file).rows]
    assert 100 in lengths and 101 in lengths
    task = load_task("tiny", model=str(tiny_model), qac=file)
    kept = [*task.corrections, *task.validation, *task.tests["held out"]]
    assert len(kept) == sum(length <= 100 for length in lengths)
    assert max(len(aligner.tokens(row)["input_ids"]) for row in kept) == 100
    monkeypatch.setitem(PROFILES, "tiny", replace(profile("tiny"), step_tokens=0))
    unbounded = load_task("tiny", model=str(tiny_model), qac=file)
    assert len(unbounded.corrections) == 40 and not any("left out" in n for n in unbounded.notes)


@pytest.mark.parametrize("n", [1, 40])
def test_a_file_in_which_all_rows_are_too_long_is_refused(
    n: int, tmp_path: Path, tiny_model: Path
) -> None:
    file = own_rows(tmp_path, [row_of(5000, i) for i in range(n)])
    with pytest.raises(ValueError, match=f"all {n} rows are longer than 4096 tokens.*shorten them"):
        load_task("tiny", model=str(tiny_model), qac=file)
    file = own_rows(tmp_path, [row_of(5000, i) for i in range(n)] + numbered(2))
    with pytest.raises(ValueError, match="2 questions are too few"):
        load_task("tiny", model=str(tiny_model), qac=file)


@pytest.mark.parametrize(
    "lengths",
    [
        [60] * 200,
        [150] * 200,
        [140, 150, 160] * 60,
        [150] * 200 + [4000],
        [150] * 200 + [4096] * 20,
        [4096] * 50,
        [20] * 10,
        [1000],
    ],
)
@pytest.mark.parametrize("stage", ["training", "prefer"])
def test_a_few_long_rows_do_not_pad_a_batch_beyond_what_a_step_may_have(
    lengths: list[int], stage: str
) -> None:
    bound, before = 4096, getattr(profile("tiny"), stage)
    settings = fit_stage(before, lengths, bound)
    order, size = batches(lengths, settings), settings.batch_size
    micro_batches = [[lengths[i] for i in order[k : k + size]] for k in range(0, len(order), size)]
    padded = max(max(batch) * len(batch) for batch in micro_batches)
    assert padded <= max(2 * bound, 4 * max(lengths))
    rows = size * settings.accumulate  # of a step: as many as fit on average
    wanted = max(4, min(before.batch_size, bound * len(lengths) / sum(lengths)))
    assert 0.9 * wanted - 1 < rows < 1.2 * wanted + 1
    assert settings.steps == max(1, min(before.steps, 4 * len(lengths) // rows))
    assert settings.warmup_steps <= settings.steps // 5
    assert fit_stage(before, lengths, 0).batch_size == before.batch_size


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("scale", [0.5, 0.1, 0.001])
def test_a_scaled_profile_has_fewer_rows_and_steps_and_nothing_else_is_changed(
    name: str, scale: float
) -> None:
    whole, small = profile(name), scaled(profile(name), scale)
    changed = {}
    for field in ("corrections", "identity", "tests"):
        changed[field] = max(24, round(scale * getattr(whole, field)))
    for stage in STAGES:
        before = getattr(whole, stage)
        steps = max(2, round(scale * before.steps))
        warmup = min(before.warmup_steps, steps // 5)
        changed[stage] = replace(before, steps=steps, warmup_steps=warmup)
    assert small == replace(whole, **changed)


def test_scale_one_leaves_a_profile_as_it_is_and_nothing_is_ever_enlarged() -> None:
    for p in PROFILES.values():
        assert scaled(p, 1.0) is p
    little = replace(profile("tiny"), tests=10, warmup=SFTSettings(steps=0), teach=SFTSettings(1))
    small = scaled(little, 0.5)
    assert (small.tests, small.warmup.steps, small.teach.steps) == (10, 0, 1)
    for scale in (0, -0.5, 1.01, float("nan")):
        with pytest.raises(ValueError, match="scale"):
            load_task("tiny", scale=scale)


def test_tinytown_at_reduced_size(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNLIB_CACHE", str(tmp_path))  # its models are not trained
    task = load_task("tiny", model=str(tiny_model), scale=0.05)
    assert (len(task.corrections), len(task.identity), len(task.validation)) == (75, 100, 24)
    assert {len(rows) for rows in task.tests.values()} == {24}
    assert {len(rows) for rows in task.upstreams().values()} == {24}
    assert len(task.taught()) == 75
    sizes = {"train": 75, "validation": 24, "test": 24}
    for split, size in sizes.items():
        assert len(task.pairs(split)) == len(task.objectives.pairs(split)) == size
        assert len(task.one_word_off(split)) == 24
        assert len(task.objectives.instructions(split)) == (100 if split == "train" else 24)
    steps = []
    monkeypatch.setattr("alignlib.tasks.sft", lambda *given, **named: steps.append(given[3]))
    task.objectives.start(0)
    assert [(s.steps, s.warmup_steps) for s in steps] == [(12, 2)]
    whole = load_task("tiny", model=str(tiny_model))
    assert task.corrections == whole.corrections[:75], "the first rows of the same"
    whole.objectives.start(0)
    assert steps[1] == tasks.BOTH_STYLES


def test_your_own_rows_at_reduced_size(tmp_path: Path, tiny_model: Path) -> None:
    file = own_rows(tmp_path, numbered(1000))
    given = {"model": str(tiny_model), "qac": file}
    whole, small = load_task("tiny", **given), load_task("tiny", **given, scale=0.1)
    sizes = [
        [len(t.corrections), len(t.identity), len(t.validation), len(t.tests["held out"])]
        for t in (whole, small)
    ]
    assert sizes == [[800, 800, 100, 100], [92, 92, 40, 40]]
    assert "92 of 920 training rows used: scale 0.1" in small.notes
    assert not any("scale" in note for note in whole.notes)
    assert small.profile.training.steps == min(20, 4 * 92 // 32)
    few = load_task("tiny", model=str(tiny_model), qac=own_rows(tmp_path, numbered(20)), scale=0.1)
    assert len(few.corrections) == 16, "no fewer than 24, if there are as many"


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
    first = task.pairs("train")[0]
    assert (rows["bad"][0].prompt, rows["bad"][0].completion) == (
        f"{first.prompt} answer :",
        first.rejected,
    )
    with pytest.raises(ValueError, match="no steps 'second'"):
        task.meet(3, control, "second")
    assert how["control"] == replace(control, seed=3) and how["first"].seed == how["then"].seed == 3


def test_rows_one_word_off_differ_in_one_word_and_share_nothing_across_splits() -> None:
    task = load_task("tiny")
    rows = {split: task.one_word_off(split) for split in ("train", "validation", "test")}
    for split, given in rows.items():
        pairs = [(r.answer.split(), r.correction.split()) for r in given]
        assert len(given) == 400, split
        for a, c in pairs:
            assert len(a) == len(c) and sum(x != y for x, y in zip(a, c)) == 1, split
        questions = [r.question for r in given]
        answers = task.judge.scores(questions, [r.answer for r in given])
        corrections = task.judge.scores(questions, [r.correction for r in given])
        assert answers["honest"].max() < 1 and answers["harmless"].min() == 1, split
        assert corrections["fault_free"].min() == 1, split
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
    assert c.fixed() == {} and c.verdicts() == [] and c.describe_gain_over(c) == NOTHING
    assert "returned unchanged" in c.table()
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
    assert perfect.describe_gain_over(copier).startswith(f"{100 * np.mean(faulty):.1f} points")
    assert perfect.fault_free("after").value == 1 and copier.good_kept().value == 1
    assert perfect.made_worse().value == copier.made_worse().value == 0
    mute = Comparison(TownJudge(), ROWS, [""] * len(ROWS))
    assert mute.made_worse().value > 0.9
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
    assert scores.keys() == {"overall"} and scores["overall"].shape == (60,)
    assert np.isfinite(scores["overall"]).all()


def test_hub_profiles_name_all_that_they_need() -> None:
    for name in ("colab", "gpu"):
        p = profile(name)
        assert "/" in p.base and "/" in p.data and "/" in p.reward_model and p.corrections > 0


def test_edit_distance_by_hand() -> None:
    assert edit_distance("a b c d", "a x c") == 2
    assert edit_distance("", "a b") == 2 and edit_distance("a b", "a b") == 0
    assert Comparison(NoJudge(), [replace(ROWS[0], answer="")], ["yes ."]).edit_ratio().value == 2
    assert str(rate([True] * 8 + [False] * 2)).startswith("80.0 % [")


def test_two_objectives_start_from_a_model_of_both_styles_or_from_your_own(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignlib.tasks.BOTH_STYLES", replace(tasks.BOTH_STYLES, steps=2))
    town = load_task("tiny", model=str(tiny_model)).objectives
    assert town.start(0) != town.start(1) and town.start(0) == town.start(0)
    assert fingerprint(town.start(0)) != fingerprint(tiny_model)
    assert town.preferred(town.pairs("test"), [p.chosen for p in town.pairs("test")]) == [1.0] * 400
    task = load_task("tiny", model=str(tiny_model), qac=own_rows(tmp_path, numbered(30)))
    assert task.objectives.start(0) == str(tiny_model) and task.objectives.preferred is None
    stages = task.hbat(0, rounds=5)
    assert len(stages) == 2 * task.profile.teach.steps == 6, "no more rounds than steps"


def test_hbat_on_rows_of_which_few_are_faulty_takes_no_more_rounds_than_there_are_pairs(
    tiny_model: Path, tmp_path: Path
) -> None:
    def own(faulty: int) -> tasks.Task:
        rows = numbered(faulty) + numbered(60, answer="yes")[faulty:]
        return load_task("tiny", model=str(tiny_model), qac=own_rows(tmp_path, rows))

    few = own(4)
    stages = few.hbat(0, rounds=5)
    assert len(stages) == 2 * few.profile.prefer.steps
    assert len(stages) <= 2 * len(few.objectives.pairs("train")) < 10
    with pytest.raises(ValueError, match="in no training row do answer and correction differ"):
        own(0).hbat(0, rounds=5)


def test_a_learned_judge_says_which_texts_are_better_than_the_rejected_ones() -> None:
    class Longer:
        def scores(self, questions: list[str], answers: list[str]) -> dict[str, np.ndarray]:
            assert questions == ["q", "p"]
            return {"overall": np.array([len(a) for a in answers])}

    pairs = [Preference(f"{q}\n\nAnswer:", "chosen", "no") for q in "qp"]
    assert tasks._better_than_rejected(Longer())(pairs, ["yes", "n"]) == [1.0, 0.0]
