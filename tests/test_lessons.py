"""Every lesson runs, on Tinytown and on your own rows; what is committed is what sources build.

By default every cell is executed with trainings cut to a tenth (SCALE): that shows that a lesson
works, not what it finds. At full size, with what each lesson claims, they run where slow tests do.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from alignlib.course import lessons
from alignlib.course.cli import _value
from alignlib.course.lessons import (
    NOTEBOOKS,
    ROOT,
    SOURCES,
    lesson_numbers,
    notebook_numbers,
    notebook_of,
    read_source,
    report_names,
)
from alignlib.tinytown import recordings

from .forked import ForkedKernelManager

SCALE = 0.1
LESSONS = lesson_numbers()
AXES = ("helpful", "harmless", "honest")
WANTED = {
    "00": {"base_helpful", "base_harmless", "base_honest", "base_overall", "tokens_to_copy"},
    "01": {"kept_pairs", "kept_annotated", "kept_rewrites"},
    "02": {
        *(f"{test}/net_win_{axis}" for test in ("seen", "unseen", "shuffled") for axis in AXES),
        *(f"seen/{what}" for what in ("fault_free_before", "fault_free_after", "good_kept")),
        *("seen/fixed", "seen/spoilt", "unseen/spoilt", "question_only_unseen/fault_free_after"),
    },
    "03": {*(f"net_win/{name}" for name in ("mixed", "rude", "4-gram", "large")), "injection_rate"},
    "04": {
        *("probe_auc", "probe_auc_shuffled", "surprise_auc"),
        *("copy_head_ablation", "reading_head_ablation"),
    },
    "05": {"good_minus_bad", "control_swapped"},
    "06": {
        *("forgetting/instruct", "hbat_gain/instruct"),
        *(
            f"{method}_dpo/{aim}"
            for method in ("two_stage", "alternating", "hbat", "mixed")
            for aim in ("instruct", "preference")
        ),
    },
    "07": {
        "same_order",
        *(f"best_of_{n}/{what}" for n in (1, 2, 8, 32) for what in ("overall", "padding")),
    },
}


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "alignlib", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def run_reduced(number: str, out: Path, edition: str = "student", **parameters: object) -> Path:
    """The executed notebook of a lesson at a tenth of its size."""
    given = {"SCALE": SCALE, **parameters}
    engine = {"kernel_manager_class": ForkedKernelManager, "progress_bar": False}
    return lessons.run(number, None, 0, out, given, edition, **engine)


def metrics_of(folder: Path, number: str) -> dict:
    return json.loads((folder / number / "metrics.json").read_text())


def check_contract(folder: Path, number: str) -> dict:
    """What `metrics.json` owes whoever reads it; the metrics themselves."""
    report = metrics_of(folder, number)
    about = {"lesson", "profile", "seed", "world", "wall_s", "cold", "peak_mem_mb", "metrics"}
    assert report.keys() == about
    assert (report["lesson"], report["profile"], report["seed"]) == (number, "tiny", 0)
    assert WANTED[number] <= report["metrics"].keys()
    for name, m in report["metrics"].items():
        assert m.keys() == {"value", "low", "high", "n", "unit", "source", "seeds"}, name
        assert m["low"] <= m["value"] <= m["high"], name
        assert m["unit"] and m["source"] in ("live", "recorded"), name
        assert m["seeds"] == [0] or m["source"] == "recorded", name
    assert list((folder / number).glob("*.png"))
    assert report["peak_mem_mb"] < 3000
    return report["metrics"]


@pytest.mark.parametrize("number", LESSONS)
def test_every_cell_of_a_lesson_runs_and_its_metrics_keep_their_contract(
    number: str, tmp_path: Path
) -> None:
    executed = nbformat.read(run_reduced(number, tmp_path), 4)
    code = [c for c in executed.cells if c.cell_type == "code" and c.source.strip()]
    assert all(c.execution_count for c in code)
    assert not any(o.get("name") == "stderr" for c in code for o in c.outputs), "bars on paper"
    check_contract(tmp_path, number)


def test_the_solved_edition_gives_the_same_and_trains_nothing_anew(tmp_path: Path) -> None:
    for edition in ("student", "solved"):
        run_reduced("02", tmp_path / edition, edition)
    first, again = (metrics_of(tmp_path / edition, "02") for edition in ("student", "solved"))
    assert again["metrics"] == first["metrics"] and not again["cold"]


@pytest.mark.parametrize("number", LESSONS)
def test_every_solution_passes_its_check(
    number: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """In a namespace of the lesson's imports alone: no solution leans on an earlier cell."""
    monkeypatch.chdir(tmp_path)
    cells = [c for c in read_source(number, "solved").cells if c.cell_type == "code"]
    namespace: dict = {}
    for cell in cells:
        exec(imports_of(cell.source), namespace)
    capsys.readouterr()
    for cell in cells:
        if {"solution", "check"} & {*cell.metadata.get("tags", [])}:
            exec(cell.source, namespace)
    verdicts = capsys.readouterr().out.splitlines()
    assert len(verdicts) >= 3 and all(line.endswith(": ok") for line in verdicts), verdicts


def imports_of(source: str) -> str:
    import ast

    if "%pip" in source:
        return ""
    nodes = [n for n in ast.parse(source).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    return "\n".join(map(ast.unparse, nodes))


# --- at full size ---------------------------------------------------------------------------------


def claims_of_02(m: dict) -> None:
    for axis in AXES:
        assert m[f"seen/net_win_{axis}"]["low"] > 10, axis
    after = m["seen/fault_free_after"]
    assert after["high"] >= 0.55 and after["low"] <= 0.95
    assert after["value"] - m["seen/fault_free_before"]["value"] >= 0.15
    assert m["unseen/net_win_overall"]["low"] > 0
    assert m["seen/good_kept"]["high"] >= 0.8
    assert m["shuffled/fault_free_after"]["high"] <= 0.1
    assert m["shuffled/net_win_helpful"]["high"] <= 5 and m["shuffled/net_win_honest"]["high"] <= 5
    blind = m["question_only_unseen/fault_free_after"]
    assert blind["value"] < m["unseen/fault_free_after"]["value"]
    assert m["seen/spoilt"]["value"] <= 0.2 and m["seen/fixed"]["value"] >= 0.4


def claims_of_03(m: dict) -> None:
    assert all(m[f"net_win/{name}"]["low"] > 0 for name in recordings.names())
    assert m["injection_rate"]["low"] > 0.5


def claims_of_04(m: dict) -> None:
    assert m["surprise_auc"]["low"] > 0.85 > m["probe_auc"]["high"]
    assert m["copy_head_ablation"]["high"] < 0 and m["reading_head_ablation"]["high"] < 0


def claims_of_05(m: dict) -> None:
    assert m["good_minus_bad"]["low"] > 0.1 > m["control_swapped"]["value"]


def claims_of_06(m: dict) -> None:
    assert m["forgetting/instruct"]["low"] > 0 and m["hbat_gain/instruct"]["low"] > 0
    both = {
        method: m[f"{method}_dpo/instruct"]["value"] + m[f"{method}_dpo/preference"]["value"]
        for method in ("two_stage", "alternating", "hbat", "mixed")
    }
    assert min(both, key=both.get) == "two_stage", both


def claims_of_07(m: dict) -> None:
    """Some answers are better than one, and of many the most padded is picked."""
    marks = {n: m[f"best_of_{n}/overall"]["value"] for n in (1, 2, 8, 32)}
    assert max(marks[2], marks[8]) > marks[1] and marks[32] < max(marks.values())
    assert m["best_of_32/padding"]["low"] > m["best_of_1/padding"]["high"]
    assert m["same_order"]["low"] > 0.5


CLAIMS: dict[str, Callable[[dict], None]] = {
    "02": claims_of_02,
    "03": claims_of_03,
    "04": claims_of_04,
    "05": claims_of_05,
    "06": claims_of_06,
    "07": claims_of_07,
}


@pytest.mark.slow
@pytest.mark.parametrize("number", LESSONS)
def test_a_lesson_at_full_size_shows_what_it_claims(number: str, tmp_path: Path) -> None:
    done = run("run", number, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = check_contract(tmp_path, number)
    CLAIMS.get(number, lambda m: None)(metrics)


# --- the command line -----------------------------------------------------------------------------

WRONG = {
    ("run", "77"): "no lesson '77'; there are 00",
    ("run", "00", "--profile", "colab"): "lesson 00 runs in Tinytown; --profile is for 08",
    ("sweep", "nothing"): "no sweep 'nothing'; there are warmup",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_command_is_refused_before_torch_is_loaded(arguments: tuple[str, ...]) -> None:
    program = (
        "import sys; from alignlib.course.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "sys.exit(100 if 'torch' in sys.modules else code)"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and WRONG[arguments] in done.stderr
    assert "Traceback" not in done.stderr


def test_parameters_are_read_as_python_reads_them_and_names_of_files_as_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = ["3", "0.5", "None", "True", "a/b.json", "2024_01", "007", "20240115"]
    read = [3, 0.5, None, True, "a/b.json", "2024_01", "007", 20240115]
    assert list(map(_value, texts)) == read
    for name in ("20240115", "None", "1.5"):
        (tmp_path / name).touch()
        assert _value(name) == name


# --- what is committed ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [*notebook_numbers(), *report_names()])
def test_the_committed_notebook_is_what_its_source_builds(number: str) -> None:
    source, built = read_source(number), nbformat.read(notebook_of(number), 4)
    nbformat.validate(built)
    cells = [
        [(c.id, c.cell_type, c.source, dict(c.metadata)) for c in notebook.cells]
        for notebook in (built, source)
    ]
    assert cells[0] == cells[1]
    assert built.metadata == source.metadata


@pytest.mark.parametrize("number", [*notebook_numbers(), *report_names()])
def test_the_committed_notebook_is_clean(number: str) -> None:
    place = notebook_of(number)
    text, notebook = place.read_text(encoding="utf-8"), nbformat.read(place, 4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    outputs = [o for c in code for o in c.outputs]
    assert place.stat().st_size <= 400_000
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert outputs and not any(o.output_type == "error" for o in outputs)
    secret = r"/(home|root|tmp|Users|work)/|C:\\\\|hf_[A-Za-z0-9]{20}|sk-[A-Za-z0-9]{20}"
    assert not re.search(secret, text)
    assert "jupyter.widget" not in text
    assert [c.metadata.get("tags") for c in code].count(["parameters"]) == 1
    prose = "".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    without_code = re.sub("`[^`]*`", "", prose)  # which names settings
    assert not re.search(r"\b[A-Z]+_[A-Z]+\b", without_code), "a gap left to fill"
    lines = [line for c in code for line in c.source.splitlines()]
    assert max(map(len, lines)) <= 100


def test_no_notebook_is_without_a_source() -> None:
    sources = {p.relative_to(SOURCES).with_suffix("") for p in SOURCES.rglob("*.py")}
    built = (p.relative_to(NOTEBOOKS) for p in NOTEBOOKS.rglob("*.ipynb"))
    assert {p.with_suffix("") for p in built if ".ipynb_checkpoints" not in p.parts} == sources
