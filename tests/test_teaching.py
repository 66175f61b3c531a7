"""What a reader meets: links lead somewhere, prose is readable, claims come from the records."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import jupytext
import nbformat
import pytest
from matplotlib.figure import Figure

from alignlib import diagrams, overview
from alignlib.course.lessons import (
    ROOT,
    SOURCES,
    lesson_numbers,
    notebook_numbers,
    notebook_of,
    read_source,
    report_names,
    source_of,
)
from alignlib.profiles import data_folder

LESSONS = lesson_numbers()
METHODS = ["02", "05", "06"]  # the lessons that train one
WORDS = 1770  # of a lesson's prose, at most; the addresses of links are not read
INTERVAL = re.compile(r"\[\s*[-+]?\d[\d.,]*\s*,\s*[-+]?\d[\d.,]*\s*\]")
LINK = re.compile(r"""\]\(([^)\s]+)\)|<img src="([^"]+)\"""")
KNOWN = "<!-- known -->"


def ledger() -> dict:
    return json.loads((data_folder() / "results" / "ledger.json").read_text(encoding="utf-8"))


def prose(source: Path) -> list[str]:
    """The markdown cells of a source, without formulas and tags."""
    cells = jupytext.read(source, fmt="py:percent").cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    return [re.sub(r"\$\$.*?\$\$|\$[^$]*\$|<[^>]+>", "", text, flags=re.S) for text in texts]


# --- links ----------------------------------------------------------------------------------------

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("data/*/README.md")]
PAGES += [notebook_of(name) for name in (*notebook_numbers(), *report_names())]


def kept_files() -> set[Path]:
    """The files of the repository and their folders; in a copy without git, those that exist."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    files = {ROOT / name for name in listed if name} or set(ROOT.rglob("*"))
    return files | {folder for file in files for folder in file.parents}


KEPT = kept_files()


def text_of(page: Path) -> str:
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    cells = nbformat.read(page, 4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def anchors(page: Path) -> set[str]:
    """The places in a page that a link can name: its headings and what has an id."""
    text = text_of(page)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    slugs = {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_a_file_and_a_place_in_it(page: Path) -> None:
    broken = []
    for link in map("".join, LINK.findall(text_of(page))):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target not in KEPT or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


# --- prose ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", LESSONS)
def test_a_lesson_is_short_and_has_no_interval_in_its_prose(number: str) -> None:
    texts = prose(source_of(number))
    read = re.sub(r"\]\([^)]*\)", "]", " ".join(texts))
    assert len(re.findall(r"[A-Za-z][\w'-]*", read)) <= WORDS
    assert not [text for text in texts if INTERVAL.search(text)]


@pytest.mark.parametrize("number", LESSONS)
def test_what_a_lesson_prints_is_little(number: str) -> None:
    cells = nbformat.read(notebook_of(number), 4).cells
    outputs = [o for cell in cells for o in cell.get("outputs", [])]
    printed = " ".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in outputs)
    tables = [o.data["text/html"] for o in outputs if "text/html" in o.get("data", {})]
    assert not INTERVAL.search(re.sub("<[^>]+>", "", "".join(tables)))
    assert len(re.findall(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?", printed)) <= 150
    assert len(INTERVAL.findall(printed)) <= 10


@pytest.mark.parametrize("number", LESSONS)
def test_a_lesson_has_its_parts(number: str) -> None:
    source = source_of(number).read_text(encoding="utf-8")
    parts = [
        "By the end you can",
        "draw_",
        "## Takeaways",
        "## Quiz",
        '"answer")',
    ]
    if number in METHODS:
        parts += ["$$", "optimizer.step()", "**Your turn.**", "GLOSSARY.md#"]
    assert not [part for part in parts if part not in source]


# --- claims ---------------------------------------------------------------------------------------

SAID = [entry for entry in ledger()["claims"] if "sentence" in entry]


def test_every_claim_leads_to_its_evidence() -> None:
    for entry in ledger()["claims"]:
        path, _, anchor = entry["evidence"].partition("#")
        assert anchor in anchors(ROOT / "notebooks" / path), entry["id"]


def test_what_is_said_of_a_claim_stands_in_its_lesson() -> None:
    having = {n for n in notebook_numbers() if KNOWN in source_of(n).read_text(encoding="utf-8")}
    assert {entry["lesson"] for entry in SAID} == having
    for entry in SAID:
        notebook = notebook_of(entry["lesson"]).read_text(encoding="utf-8")
        assert json.dumps(entry["sentence"], ensure_ascii=False)[1:-1] in notebook, entry["id"]


@pytest.mark.parametrize("name", report_names())
def test_a_report_reads_records_and_trains_nothing(name: str) -> None:
    code = "\n".join(c.source for c in read_source(name).cells[2:] if c.cell_type == "code")
    assert "read_results(" in code
    trains = r"\b(train\w*|cached|sample|correct|sft|dpo|generate|\w+_aligner)\("
    assert not re.search(trains, code)


# --- drawings -------------------------------------------------------------------------------------

DRAWINGS = {
    name: draw
    for module in (diagrams, overview)
    for name, draw in vars(module).items()
    if name.startswith("draw_")
}
REACHED = dict.fromkeys(
    ("SFT", "DPO", "MEET", "mixed loss", "HBAT", "Aligner", "best of 8", "RLOO"), 0.5
)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_drawn_with_everything_on_the_page(name: str) -> None:
    figure = DRAWINGS[name](*([REACHED] if name == "draw_choice" else []))
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    page = figure.bbox
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1, text.get_text()
        assert page.y0 <= box.y0 and box.y1 <= page.y1, text.get_text()


def test_every_drawing_stands_in_a_lesson() -> None:
    sources = "\n".join(p.read_text(encoding="utf-8") for p in SOURCES.glob("*.py"))
    assert not [name for name in DRAWINGS if f"{name}(" not in sources]
