"""How the code is kept: laid out by ruff, short functions, names told apart, imports one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ["alignlib", "experiments", "tests", "benchmarks", "scale", "site", "notebooks/src"]
OURS = sorted(chain(ROOT.glob("alignlib/**/*.py"), ROOT.glob("experiments/*.py")))
LONGEST = 40  # lines of a function
REAL = [*ROOT.glob("experiments/*everyday.py"), *ROOT.glob("experiments/real_*.py")]
LEDGER = [*ROOT.glob("experiments/claim*.py"), ROOT / "experiments" / "ledger.py"]
BUDGETS = {  # lines of all files; the library includes Tinytown
    "library": (14_350, [*ROOT.glob("alignlib/*.py"), *ROOT.glob("alignlib/tinytown/*.py")]),
    "course": (2300, list(ROOT.glob("alignlib/course/**/*.py"))),
    "experiments in Tinytown": (3400, [*{*ROOT.glob("experiments/*.py")} - {*REAL, *LEDGER}]),
    "experiments on real models": (800, REAL),
    "ledger of claims": (1420, LEDGER),
}


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_finds_nothing_to_change(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "ruff", *arguments, *CODE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_lines_of_javascript_are_no_longer_than_others() -> None:
    files = [*ROOT.glob("site/*.js"), *ROOT.glob("site/static/*.js"), *ROOT.glob("tests/*.js")]
    lines = [(file.name, line) for file in files for line in file.read_text("utf-8").splitlines()]
    assert len(files) > 6 and not [each for each in lines if len(each[1]) > 100]


def functions(file: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_no_function_is_long_and_no_file() -> None:
    long = [
        f"{file.relative_to(ROOT)}: {f.name}, {f.end_lineno - f.lineno + 1} lines"
        for file in OURS
        for f in functions(file)
        if f.end_lineno - f.lineno + 1 > LONGEST
    ]
    long += [f"{file.relative_to(ROOT)}" for file in OURS if lines_of(file) > 350]
    assert not long


def lines_of(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("name", BUDGETS)
def test_the_budget_of_lines_is_kept(name: str) -> None:
    budget, files = BUDGETS[name]
    assert sum(map(lines_of, files)) <= budget


def test_no_module_and_function_share_a_name() -> None:
    """`alignlib.x` would be the one or the other, depending on what was imported before."""
    modules = {file.stem for file in OURS}
    shared = [
        f"{file.relative_to(ROOT)}: {node.name}"
        for file in OURS
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name in modules
    ]
    assert not shared


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path, names: set[str]) -> set[str]:
    """Our modules that a file imports, at its top or within a function."""
    package = name_of(file) if file.stem == "__init__" else name_of(file).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & names - {name_of(file), "alignlib"}


def test_imports_go_one_way() -> None:
    """No module imports, be it within a function, one that imports it. (A cycle is an error.)"""
    names = {name_of(file) for file in OURS}
    order = list(TopologicalSorter({name_of(f): imported(f, names) for f in OURS}).static_order())
    assert len(order) >= len(OURS) - 1


ROOMS = ("alignlib", "alignlib.tinytown", "alignlib.course", "experiments")


def room_of(name: str) -> str:
    if name == "alignlib.__main__":  # nothing but the course's command line
        return "alignlib.course"
    return max((r for r in ROOMS if f"{name}.".startswith(f"{r}.")), key=len)


def test_rooms_import_downwards_only() -> None:
    """Experiments may import all; the course the library; the library neither of the two."""
    names = {name_of(file) for file in OURS}
    allowed = {
        "alignlib": {"alignlib", "alignlib.tinytown"},
        "alignlib.tinytown": {"alignlib", "alignlib.tinytown"},
        "alignlib.course": set(ROOMS) - {"experiments"},
        "experiments": set(ROOMS),
    }
    wrong = [
        f"{name_of(file)} imports {other}"
        for file in OURS
        for other in imported(file, names)
        if room_of(other) not in allowed[room_of(name_of(file))]
    ]
    assert not wrong
