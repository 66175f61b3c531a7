"""What lessons are built from: exercise checks, and editions of one source."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from alignlib.course.checks import NO_RETURN, OK, UNTOUCHED, Check
from alignlib.course.handouts import build_class, build_slides
from alignlib.course.lessons import (
    ROOT,
    LessonError,
    lesson_numbers,
    notebook_of,
    read_source,
    report_names,
    source_of,
)

LESSONS = lesson_numbers()
MODULES = {n: importlib.import_module(f"alignlib.course.checks.lesson{n}") for n in LESSONS}
CHECKS = {
    f"{number}/{name}": check
    for number, module in MODULES.items()
    for name, check in vars(module).items()
    if isinstance(check, Check)
}


def stub(*_):
    """A docstring, as in the lessons."""
    ...  # your code here


def not_implemented(*_):
    raise NotImplementedError


def without_return(*case):
    _ = list(case)


# --- checks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_knows_the_right_answer_and_names_each_common_mistake(name: str) -> None:
    check = CHECKS[name]
    assert check.verdict(check.reference) == OK
    assert len(check.mistakes) >= 3
    for message, mistake in check.mistakes.items():
        assert check.verdict(mistake) == message


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_tells_an_untouched_stub_from_other_failures(name: str) -> None:
    check = CHECKS[name]
    for untouched in (stub, not_implemented, lambda *_: None):
        assert check.verdict(untouched) == UNTOUCHED
    assert check.verdict(without_return) == NO_RETURN
    assert check.verdict(lambda *_: 1 / 0).startswith("it stops with ZeroDivisionError")
    assert check.verdict(lambda *_: "nonsense").startswith("not yet: for ")


def test_a_check_returns_the_attempt_if_it_is_right_and_else_the_reference(
    capsys: pytest.CaptureFixture,
) -> None:
    check = next(iter(CHECKS.values()))
    right = lambda *case: check.reference(*case)  # noqa: E731
    assert check(right) is right
    assert capsys.readouterr().out == f"{check.name}: ok\n"
    assert check(without_return) is check.reference
    assert capsys.readouterr().out == f"{check.name}: {NO_RETURN}\n"


@pytest.mark.parametrize("untouched", [stub, not_implemented])
def test_an_untouched_stub_prints_nothing_and_becomes_the_reference(
    untouched: Callable, capsys: pytest.CaptureFixture
) -> None:
    for check in CHECKS.values():
        assert check(untouched) is check.reference
    assert capsys.readouterr().out == ""


def test_an_attempt_cannot_change_the_cases() -> None:
    check = CHECKS["02/labels"]
    check.verdict(lambda prompt, correction, eos: prompt.clear())
    assert check.verdict(check.reference) == OK and check.cases[0][0]


# --- editions -------------------------------------------------------------------------------------


def tagged(number: str, edition: str, tag: str) -> list[str]:
    return [
        c.source for c in read_source(number, edition).cells if tag in c.metadata.get("tags", [])
    ]


@pytest.mark.parametrize("number", LESSONS)
def test_solutions_stand_in_folded_blocks_alone_and_a_class_gets_none(number: str) -> None:
    stubs = tagged(number, "student", "exercise")
    checks = tagged(number, "student", "check")
    solved = tagged(number, "solved", "solution")
    assert len(stubs) == len(checks) == len(solved) >= 3
    assert not tagged(number, "student", "solution") and not tagged(number, "solved", "exercise")
    for_students = "\n".join(c.source for c in read_source(number).cells)
    folded = re.findall(r"<details><summary>Solution.*?</details>", for_students, re.S)
    assert all(any(source in block for block in folded) for source in solved)
    for_a_class = "\n".join(c.source for c in read_source(number, "class").cells)
    for handed_out in (re.sub("|".join(map(re.escape, folded)), "", for_students), for_a_class):
        assert_nothing_is_given_away(solved, handed_out)


def assert_nothing_is_given_away(solved: list[str], handed_out: str) -> None:
    for source in solved:
        body = re.sub(r'^def .*?"""\n', "", source, flags=re.S)
        lines = [line.strip() for line in body.splitlines()]
        for line in lines:  # a bracket or an `else:` gives nothing away
            assert len(line) < 15 or line not in handed_out, line


@pytest.mark.parametrize("number", LESSONS)
def test_every_check_of_a_lesson_is_used_and_each_exercise_has_minutes_difficulty_and_a_folded_hint(
    number: str,
) -> None:
    used = set(re.findall(r"check\.(\w+)\(", "\n".join(tagged(number, "student", "check"))))
    assert used == {name.partition("/")[2] for name in CHECKS if name.startswith(number)}
    text = "\n".join(c.source for c in read_source(number).cells if c.cell_type == "markdown")
    heading = r"### Exercise \d · [^\n]+ \((?:\d+) minutes, (?:easy|medium|hard)\)"
    exercises = re.findall(heading + r"(.*?)(?=\n##|\Z)", text, re.S)
    assert len(exercises) == len(used)
    assert all("<details><summary>Hint" in body for body in exercises)


def test_a_class_gets_lessons_without_solutions_whose_links_work_in_any_folder(
    tmp_path: Path,
) -> None:
    made = build_class(tmp_path / "class", LESSONS)
    assert [place.name[:2] for place in made] == LESSONS
    for place in made:
        notebook = nbformat.read(place, 4)
        nbformat.validate(notebook)
        text = "\n".join(c.source for c in notebook.cells)
        assert "Open in Colab" not in text and "<summary>Solution" not in text
        links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
        assert all((place.parent / link).is_file() for link in links)
        for solved in tagged(place.name[:2], "solved", "solution"):
            assert solved not in text
    with pytest.raises(LessonError, match="is there already"):
        build_class(tmp_path / "class", ["02"])
    assert [p.name for p in build_class(tmp_path / "one", ["2"])] == ["02_aligner.ipynb"]


def test_slides_have_title_drawing_figure_and_takeaways(tmp_path: Path) -> None:
    for place in build_slides(tmp_path, LESSONS):
        text = place.read_text(encoding="utf-8")
        assert "Exercise" not in text and "<details>" not in text and "](../" not in text
        lesson = source_of(place.name[:2]).read_text(encoding="utf-8")
        assert text.count("$$") == lesson.count("$$")
        slides = text.split("\n\n---\n\n")
        assert slides[0].startswith(f"# {place.name[:2]} · ") and "Colab" not in slides[0]
        pictures = [s[4:-1] for s in slides if s.startswith("![](")]
        assert len(pictures) >= 2 and all((tmp_path / name).is_file() for name in pictures)
        assert slides[-1].startswith("## Takeaways\n") and "## Quiz" not in slides[-1]


@pytest.mark.parametrize("name", [*LESSONS, *report_names()])
def test_the_badge_points_at_the_notebook_it_stands_in(name: str) -> None:
    place = notebook_of(name).relative_to(ROOT).as_posix()
    badge = read_source(name).cells[0].source.splitlines()[0]
    target = rf"https://colab\S+/blob/main/{re.escape(place)}"
    assert re.fullmatch(rf"\[!\[Open in Colab\]\(https://\S+\)\]\({target}\)", badge)
