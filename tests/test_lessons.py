"""Every lesson runs; what is committed is what the sources build; records and card fit the
weights.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from alignlib.aligner import Aligner
from alignlib.course.cli import _value
from alignlib.course.lessons import NOTEBOOKS, ROOT, lesson_numbers, notebook_of, read_source
from alignlib.course.sweep import (
    per_seed,
    read_results,
    recorded,
    recorded_difference,
    results_file,
)
from alignlib.data import read_qac, write_rows
from alignlib.hbat import IMPORTANCE
from alignlib.profiles import data_folder, profile
from alignlib.stats import prediction_interval
from alignlib.tinytown import sets
from alignlib.tinytown.pretrain import Recipe
from alignlib.tinytown.recorded import asked
from experiments import EXPERIMENTS, WARMUP_SHARE
from experiments.card import card_text
from experiments.hbat import AROUND, ahead, ahead_as_chosen, forgotten
from experiments.meet_controls import cell as control
from experiments.two_aims import METHODS

from .conftest import REAL, needs_real

LESSONS = lesson_numbers()
WANTED = {
    "00": {"base_helpful", "base_harmless", "base_honest", "base_overall", "tokens_to_copy"},
    "01": {"kept_pairs", "kept_annotated", "kept_rewrites", "funnel"},
    "02": {
        "net_win_helpful",
        "net_win_harmless",
        "net_win_honest",
        "net_win_overall_unseen",
        "fault_free_before",
        "fault_free_after",
        "copy_good",
        "copy_good_no_warmup",
        "control_shuffled_helpful",
        "control_shuffled_honest",
        "warmup_gain_unseen",
        "answering_vs_correcting",
        "best_warmup_share",
        "forget_copy",
    },
    "03": {
        "net_win/mixed",
        "net_win/rude",
        "net_win/4-gram",
        "net_win/large",
        "harm_below_fault_rate",
        "injection_rate",
        "w2s_sft",
        "w2s_dpo",
        *(
            f"baseline/{arm}"
            for arm in ("untouched", "aligner", "sft", "sft, twice the size", "dpo", "best of 10")
        ),
        *(f"{what}/{i}" for what in ("round", "stack") for i in (1, 2, 3)),
    },
    "04": {
        "steer_slope",
        "steer_slope_random_max",
        "steer_r2",
        "edit_precision",
        "probe_auc",
        "probe_auc_shuffled",
        "copy_head_ablation",
    },
    "05": {
        "good_minus_bad_logprob",
        "meet_vs_ctg_live",
        "scaling_slope/prompt",
        "scaling_slope/lora",
        "mix",
        "base_slope/meet_vs_sft",
        *(f"axis/{axis}" for axis in sets.AXES),
        *(
            f"meet_vs_{rival}/{on}"
            for rival in ("ctg", "coh", "sft", "dpo")
            for on in ("qa", "summary")
        ),
    },
    "06": {
        "forgetting/instruct",
        "gradient_cosine",
        *(f"{what}/{kind}" for what in ("overhead_time", "importance") for kind in IMPORTANCE),
        *(
            f"{method}_{by}/{aim}"
            for method in ("two_stage", "hbat")
            for by in ("dpo", "ppo")
            for aim in ("instruct", "preference")
        ),
        *(f"rouge_l/{method}" for method in METHODS),
    },
}


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "alignlib", *arguments], cwd=cwd, capture_output=True, text=True
    )


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def metrics_of(folder: Path, number: str) -> dict:
    return json.loads((folder / number / "metrics.json").read_text())


@pytest.mark.parametrize("number", LESSONS)
def test_the_lesson_runs_cold_by_one_command_and_keeps_the_metrics_contract(
    number: str, out: Path
) -> None:
    done = run("run", number, "--out", str(out))
    assert done.returncode == 0, done.stderr[-2000:]
    report = metrics_of(out, number)
    assert report.keys() == {
        "lesson",
        "profile",
        "seed",
        "world",
        "wall_s",
        "cold",
        "peak_mem_mb",
        "metrics",
    }
    assert (report["lesson"], report["profile"], report["seed"]) == (number, "tiny", 0)
    assert WANTED[number] <= report["metrics"].keys()
    for name, m in report["metrics"].items():
        assert m.keys() == {"value", "low", "high", "n", "unit", "source", "seeds"}, name
        assert m["low"] <= m["value"] <= m["high"], name
        assert (
            m["unit"]
            and m["source"] in ("live", "recorded")
            and (m["seeds"] == [0] or m["source"] == "recorded")
        ), name
    assert (
        report["cold"] or number == "04"
    )  # which trains nothing, if lesson 02's Aligner is in the cache
    assert report["wall_s"] > 3
    assert list((out / number).glob("*.png")) and list((out / number).glob("*.ipynb"))
    assert report["peak_mem_mb"] < 3000


@pytest.mark.parametrize("number", LESSONS)
def test_every_solution_passes_its_check(
    number: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """In a namespace that holds the lesson's imports and nothing else, so that no solution leans
    on what a cell before it left.
    """
    monkeypatch.chdir(tmp_path)
    cells = [c for c in read_source(number, "solutions").cells if c.cell_type == "code"]
    head = "".join(
        line + "\n"
        for c in cells
        for line in c.source.splitlines()
        if re.match(r"(from|import) ", line)
    )
    namespace: dict = {}
    exec(head, namespace)
    capsys.readouterr()
    for cell in cells:
        if {"solution", "check"} & {*cell.metadata.get("tags", [])}:
            exec(cell.source, namespace)
    told = capsys.readouterr().out.splitlines()
    assert len(told) >= 3 and all(line.endswith(": ok") for line in told), told


def test_the_edition_with_solutions_says_the_same_and_trains_nothing_anew(
    out: Path, tmp_path: Path
) -> None:
    if not (out / "02").exists():
        pytest.skip(
            "runs after the student edition of lesson 02, on the models that it left in the cache"
        )
    done = run("run", "02", "--solutions", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    notebook = nbformat.read(next((tmp_path / "02").glob("*.ipynb")), 4)
    assert not any(
        o.get("name") == "stderr" for c in notebook.cells for o in c.get("outputs", [])
    ), "progress bars on paper"
    first, again = (metrics_of(folder, "02") for folder in (out, tmp_path))
    assert again["metrics"] == first["metrics"]
    assert not again["cold"] and again["wall_s"] < first["wall_s"]


def test_lesson_05_shows_what_it_claims(out: Path) -> None:
    if not (out / "05").exists():
        pytest.skip("runs after lesson 05")
    assert metrics_of(out, "05")["metrics"]["good_minus_bad_logprob"]["low"] > 0


def test_lesson_06_shows_what_it_claims(out: Path) -> None:
    if not (out / "06").exists():
        pytest.skip("runs after lesson 06")
    m = metrics_of(out, "06")["metrics"]
    assert (
        m["forgetting/instruct"]["low"] > 0
        and m["hbat_dpo/instruct"]["low"] > m["two_stage_dpo/instruct"]["high"]
    )
    assert all(m[f"{method}_dpo/preference"]["low"] > 0.5 for method in ("two_stage", "hbat"))


def test_lesson_02_shows_what_it_claims(out: Path) -> None:
    if not (out / "02").exists():
        pytest.skip("runs after lesson 02")
    m = metrics_of(out, "02")["metrics"]
    for axis in ("helpful", "harmless", "honest"):
        assert m[f"net_win_{axis}"]["low"] > 10, axis
    assert m["fault_free_after"]["high"] >= 0.55 and m["fault_free_after"]["low"] <= 0.95
    assert m["fault_free_after"]["value"] - m["fault_free_before"]["value"] >= 0.15
    assert m["net_win_overall_unseen"]["low"] > 0
    assert m["copy_good"]["high"] >= 0.8
    assert m["control_shuffled_helpful"]["high"] <= 5 and m["control_shuffled_honest"]["high"] <= 5
    assert (
        m["value_of_answer"]["low"] > 0 >= m["value_of_swapped_answer"]["low"]
        and m["value_of_own_answer"]["low"] > 0
    )


@pytest.mark.parametrize("number", ["00", "01", "05", "06"])
def test_lessons_run_on_own_rows_and_say_what_no_judge_can_tell(
    number: str, tmp_path: Path
) -> None:
    given, rows = (
        ("PREFERENCES", sets.preferences(60))
        if number in ("05", "06")
        else ("QAC", sets.corrections(60))
    )
    write_rows(tmp_path / "own.jsonl", rows)
    done = run("run", number, "-p", given, "own.jsonl", "--out", "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    text = (tmp_path / "runs" / number / f"{notebook_of(number).stem}.ipynb").read_text(
        encoding="utf-8"
    )
    assert "60 rows read" in text and (number == "01" or "no judge for these data" in text)


@needs_real
@pytest.mark.parametrize(
    ("rows", "n"),
    [
        ("polite-instructions/instruction-data-with-preference.json", 300),
        ("hh-rlhf/harmless-base.test.jsonl.gz", 120),
    ],
)
def test_lesson_02_runs_on_real_text_with_a_real_model(rows: str, n: int, tmp_path: Path) -> None:
    """On a part of the rows, for time; the whole sets run by the same command."""
    write_rows(tmp_path / "some.jsonl", read_qac(REAL / rows).rows[:n])
    done = run(
        "run",
        "02",
        "-p",
        "MODEL",
        str(REAL / "tinystories-656k"),
        "-p",
        "QAC",
        "some.jsonl",
        "--out",
        "runs",
        cwd=tmp_path,
    )
    tmp_path = tmp_path / "runs"
    assert done.returncode == 0, done.stderr[-2000:]
    m = metrics_of(tmp_path, "02")["metrics"]
    assert m["value_of_swapped_answer"]["low"] <= 0
    if n >= 300:  # a dozen held-out dialogues cannot show it
        assert m["value_of_answer"]["low"] > 0 and m["value_of_own_answer"]["low"] > 0
    assert not any(name.startswith("net_win") for name in m), "no judge, no net win"
    text = "".join(
        str(c.get("outputs", ""))
        for c in nbformat.read(next((tmp_path / "02").glob("*.ipynb")), 4).cells
    )
    assert "rows read" in text and "no judge for these data" in text


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run", "77"], "no lesson '77'; there are 00"),
        (["run", "00", "--profile", "huge"], "no profile 'huge'; there are tiny, colab, gpu"),
        (["sweep", "nothing"], "no sweep 'nothing'; there are warmup"),
    ],
)
def test_a_wrong_command_says_what_there_is(arguments: list[str], part: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1 and part in done.stderr and "Traceback" not in done.stderr


def test_parameters_are_read_as_python_reads_them() -> None:
    assert list(map(_value, ["3", "0.5", "None", "True", "a/b.json"])) == [
        3,
        0.5,
        None,
        True,
        "a/b.json",
    ]


# --- what is committed
# ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", LESSONS)
def test_the_committed_notebook_is_what_its_source_builds(number: str) -> None:
    source, built = read_source(number), nbformat.read(notebook_of(number), 4)
    nbformat.validate(built)
    assert [(c.id, c.cell_type, c.source, dict(c.metadata)) for c in built.cells] == [
        (c.id, c.cell_type, c.source, dict(c.metadata)) for c in source.cells
    ]
    assert built.metadata == source.metadata


@pytest.mark.parametrize("number", LESSONS)
def test_the_committed_notebook_is_clean(number: str) -> None:
    place = notebook_of(number)
    text, notebook = place.read_text(encoding="utf-8"), nbformat.read(place, 4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert place.stat().st_size <= 400_000
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert any(c.outputs for c in code) and not any(
        o.output_type == "error" for c in code for o in c.outputs
    )
    assert not re.search(
        r"/(home|root|tmp|Users|work)/|C:\\\\|hf_[A-Za-z0-9]{20}|sk-[A-Za-z0-9]{20}", text
    )
    assert "widget" not in text
    assert [c.metadata.get("tags") for c in code].count(["parameters"]) == 1
    prose = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    assert not re.search(r"\b[A-Z]+_[A-Z]+\b", "".join(prose)), "a gap left to fill"
    lines = sorted(len(c.source.splitlines()) for c in code)
    assert lines[len(lines) // 2] <= 10 and lines[-1] <= 40
    assert len(prose) >= 1.3 * len(code)


def test_no_notebook_is_without_a_source() -> None:
    assert {p.stem for p in NOTEBOOKS.glob("*.ipynb")} == {
        p.stem for p in (NOTEBOOKS / "src").glob("*.py")
    }


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_record_names_this_world_and_base_and_has_every_seed_of_every_cell(name: str) -> None:
    seeds: dict[str, set[int]] = {json.dumps(p): set() for p in EXPERIMENTS[name].cells}
    for cell in read_results(name)["cells"]:
        seeds[json.dumps(cell["params"])].add(cell["seed"])  # a cell of no experiment is a KeyError
    assert all(set(EXPERIMENTS[name].seeds) <= found for found in seeds.values()), seeds


def test_the_records_pass_the_gates_that_the_world_was_frozen_on() -> None:
    head, warm, steer, forgot = map(read_results, ("headroom", "warmup", "steer", "forgetting"))
    here = {"level": sets.LEVEL, "corrections": profile("tiny").corrections}
    headline = {"share": WARMUP_SHARE, "corrections": profile("tiny").corrections}
    before, after = (recorded(head, when, **here).value for when in ("before", "after"))
    assert 0.55 <= after <= 0.95 and after - before >= 0.15
    assert recorded(warm, "kept_seen", **headline).value >= 0.8
    assert recorded(warm, "net_win_overall_unseen", "points", **headline).low > 0
    for better, worse in (("good", "none"), ("none", "bad")):
        assert (
            recorded_difference(steer, "overall", {"control": better}, {"control": worse}).low > 0
        )
    then = {"arm": "then"}
    assert (
        recorded_difference(
            forgot, "drop", {"interference": 1.0, **then}, {"interference": 0.0, **then}
        ).low
        > 0
    )
    assert (
        max(per_seed(forgot, "content_after", interference=1.0, **then).values()) < 0.8
    )  # not the manner alone is lost
    for wanted in ("followed_after", "warm_after"):  # a model of this size can have both
        assert min(per_seed(forgot, wanted, interference=1.0, arm="joint").values()) > 0.9


LESSONS_OWN = {"step": Recipe().steps, "share": WARMUP_SHARE}  # what lesson 02 trained above
RERUN = {
    "warmup": (
        {"share": WARMUP_SHARE, "corrections": profile("tiny").corrections},
        "fault_free_seen",
    ),
    "correctable": (LESSONS_OWN, "fault_free_seen"),
    "learning": ({"steps": 50}, "fault_free_seen"),
    "inside": (LESSONS_OWN, "says_right_aligner"),
    "dial": ({"taught": 3, "rate": 0.2}, "fault_free"),
    "factors": (AROUND, "instruct"),
}


@pytest.mark.parametrize("name", RERUN)
def test_a_recorded_cell_run_again_lies_in_its_prediction_interval(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the headline alone: of many numbers one in twenty falls outside by chance on another
    machine.
    """

    class Cached(Aligner):
        """An Aligner that an earlier test has trained, by the same settings on the same rows, is
        not trained again.
        """

        @classmethod
        def train(cls, *given: object, progress: bool, **settings: object) -> Aligner:
            return Aligner.cached(*given, **settings)

    asked()  # the upstreams' questions, kept before the sets are cut down
    every = sets.test_sets
    monkeypatch.setattr(
        sets, "test_sets", lambda n, split="test": {"seen": every(n, split)["seen"]}
    )
    monkeypatch.setattr("experiments.aligner.Aligner", Cached)
    params, metric = RERUN[name]
    low, high = prediction_interval(list(per_seed(read_results(name), metric, **params).values()))
    again = EXPERIMENTS[name].run(params, 0)
    assert low <= again[metric] <= high
    if name == "correctable":
        assert again["copying"] > 0.99 and again["induction"] > 0.3


@pytest.mark.parametrize("name", ["correctable", "inside"])
def test_a_checkpoint_that_is_not_there_names_the_command_that_leaves_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="00042 is missing; `make base`"):
        EXPERIMENTS[name].run({"step": 42, "share": 0.0}, 0)


def test_cells_are_paired_by_seed_within_a_record_and_across_two() -> None:
    cells = [
        {"params": {"arm": arm}, "seed": s, "metrics": {"x": s + more}}
        for arm, more in (("a", 0.5), ("b", 0.0))
        for s in (0, 1, 2)
    ]
    record = {"name": "one", "cells": cells}
    other = {
        "name": "two",
        "cells": [
            {"params": {"arm": "c"}, "seed": s, "metrics": {"x": s - 1.0}} for s in (1, 2, 7)
        ],
    }
    within = recorded_difference(record, "x", {"arm": "a"}, {"arm": "b"})
    across = recorded_difference(record, "x", {"arm": "a"}, {"arm": "c"}, other=other)
    assert (within.value, within.low, within.seeds) == (0.5, 0.5, (0, 1, 2)) and (
        across.value,
        across.seeds,
    ) == (1.5, (1, 2))


def test_a_record_of_another_base_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads(results_file("warmup").read_text()) | {"base": "another"}
    (tmp_path / "warmup.json").write_text(json.dumps(record))
    monkeypatch.setattr(
        "alignlib.course.sweep.results_file", lambda name: tmp_path / f"{name}.json"
    )
    with pytest.raises(ValueError, match="another"):
        read_results("warmup")


def test_the_card_is_written_from_log_records_and_weights() -> None:
    assert (data_folder() / "base" / "README.md").read_text(encoding="utf-8") == card_text()


def test_the_readme_says_what_the_records_say() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    warm, arms, answering, edits = map(
        read_results, ("warmup", "warmup_arms", "answering", "edit_or_rewrite")
    )
    with_it, without = (
        {"share": share, "corrections": profile("tiny").corrections}
        for share in (WARMUP_SHARE, 0.0)
    )
    table = [
        recorded(warm, f"{m}_{t}", "points" if m.startswith("net") else "rate", **with_it)
        for m in ("fault_free", "kept", "net_win_overall")
        for t in sets.test_sets(1)
        if f"{m}_{t}" in warm["cells"][0]["metrics"]
    ]
    told = [
        recorded_difference(warm, "fault_free_seen", with_it, without),
        recorded_difference(warm, "net_win_overall_language", with_it, without, "points"),
        recorded_difference(
            arms,
            "net_win_overall_language",
            {"arm": "corrected words only"},
            with_it,
            "points",
            other=warm,
        ),
        *(
            recorded_difference(warm, f"fault_free_{t}", without, {}, other=answering)
            for t in ("seen", "unseen")
        ),
        recorded_difference(
            edits, "fault_free_combinations", {"corrections": "edits"}, {"corrections": "rewrites"}
        ),
        recorded(edits, "kept_seen", corrections="edits"),
        *(
            recorded_difference(
                read_results("correctable"),
                "net_win_overall_unseen",
                {"step": step, "share": WARMUP_SHARE},
                {"step": step, "share": 0.0},
                "points",
            )
            for step in (375, Recipe().steps)
        ),
        *(
            recorded(read_results("upstreams"), f"net_win_overall/{name}", "points", taught=3)
            for name in ("refusing", "4-gram")
        ),
        *(
            recorded(read_results("rivals"), "fault_free_greedy_seen", arm=arm)
            for arm in ("aligner", "sft")
        ),
        recorded_difference(
            read_results("rivals"), "fault_free_sampled_unseen", {"arm": "aligner"}, {"arm": "sft"}
        ),
        recorded(read_results("rivals"), "fault_free_best_of_10_seen", arm="best of n"),
        *(
            recorded(read_results("rivals"), "fault_free_sampled_seen", arm=arm)
            for arm in ("aligner", "dpo")
        ),
        recorded(read_results("rounds"), "net_win_sampled_round_3", "points", answers="fresh"),
        *(
            recorded(read_results("weak_to_strong"), "net_win_sampled_seen", "points", arm=arm)
            for arm in ("sft", "sft, own answers")
        ),
        *(recorded(read_results("labels"), f"after_{which}") for which in ("known", "new")),
        *(
            recorded(read_results("hijacked"), "taken_over_escaped", shown=shown)
            for shown in (False, True)
        ),
        *(
            recorded(read_results("looking"), metric, "AUC")
            for metric in ("surprise", "probe_read")
        ),
        *(recorded(read_results("looking"), f"patched_at_{layer}") for layer in (2, 3)),
        *(
            recorded(
                read_results("controls"), f"sound_1_{end}", **control("lora", arm="step 1 alone")
            )
            for end in ("good", "bad")
        ),
        *(
            recorded_difference(
                read_results("controls"),
                "sound_1_good",
                control("prompt", **one),
                control("prompt", **other),
            )
            for one, other in (
                ({}, {"arm": "joint"}),
                ({}, {"size": 1}),
                ({}, {"arm": "step 1 alone"}),
                ({"arm": "faster model"}, {"arm": "faster model", "size": 1}),
            )
        ),
        *(
            recorded(
                read_results("rivals_of_meet"), f"meet, lora_over_{rival}_1", "points", task="qa"
            )
            for rival in ("one token", "sft", "dpo")
        ),
        recorded(read_results("base_size"), "meet, lora_over_sft_1", "points", width=80),
        forgotten(read_results("fronts")),
        ahead_as_chosen(read_results("fronts"), "two-stage"),
        ahead_as_chosen(read_results("fronts_ppo"), "two-stage", by="ppo"),
        *(ahead(read_results("fronts"), than) for than in ("in turns", "mixed")),
        ahead(read_results("fronts"), "two-stage", method="in turns"),
    ]
    assert not [str(e) for e in table + told if str(e) not in text]
