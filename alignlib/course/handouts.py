"""What an instructor hands out: the lessons without outputs and solutions, and slides of them."""

from __future__ import annotations

import base64
import posixpath
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from .lessons import LessonError, notebook_of, read_source
from .publish import URL


def build_class(out: Path, numbers: Sequence[str]) -> list[Path]:
    """These lessons for a class. Links that leave the folder become addresses.

    Raises LessonError if one of the files is there already: it may hold somebody's work.
    """
    places = _new(out, [notebook_of(number).name for number in numbers])
    for number, place in zip(numbers, places):
        notebook = read_source(number, "class")
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = _with_addresses(cell.source, {p.name for p in places})
        nbformat.write(notebook, place)
    return places


def build_slides(out: Path, numbers: Sequence[str]) -> list[Path]:
    """Title, drawings, formulas, answer and takeaways of these lessons: Markdown and pictures.

    Slides are parted by `---`, which Marp, Quarto and pandoc understand. Raises LessonError if
    one of the files is there already.
    """
    places = _new(out, [f"{notebook_of(number).stem}.md" for number in numbers])
    for number, place in zip(numbers, places):
        cells = nbformat.read(notebook_of(number), 4).cells
        first = "\n\n".join(cells[0].source.split("\n\n")[1:3])  # title and first paragraph
        slides = [_with_addresses(first)]
        for cell in cells:
            if cell.cell_type == "markdown":
                texts = _formulas(cell.source), _takeaways(cell.source)
                slides += [_with_addresses(text) for text in texts if text]
            for picture in _pictures(cell):
                name = f"{place.stem}-{len(slides)}.png"
                (out / name).write_bytes(picture)
                slides.append(f"![]({name})")
        place.write_text("\n\n---\n\n".join(slides) + "\n", encoding="utf-8")
    return places


def _new(folder: Path, names: list[str]) -> list[Path]:
    """The files to write in a folder, which is made."""
    places = [folder / name for name in names]
    for place in places:
        if place.exists():
            raise LessonError(f"{place} is there already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return places


def _with_addresses(text: str, beside: Collection[str] = ()) -> str:
    """Relative links of a notebook as addresses in the repository, but to files `beside` it."""

    def address(match: re.Match[str]) -> str:
        link = match[1]
        if "://" in link or link.startswith("#") or link.partition("#")[0] in beside:
            return match[0]
        return f"]({URL}/blob/main/{posixpath.normpath(f'notebooks/{link}')})"

    return re.sub(r"\]\(([^)\s]+)\)", address, text)


def _formulas(text: str) -> str:
    """The formulas of a cell, each with the list that names its symbols."""
    parts = text.split("\n\n")
    return "\n\n".join(
        part
        for part, before in zip(parts, ["", *parts])
        if part.startswith("$$") or (part.startswith("- ") and before.startswith("$$"))
    )


def _takeaways(text: str) -> str:
    """The takeaways with their heading, where a cell has them."""
    _, heading, rest = text.partition("## Takeaways")
    return heading + rest.partition("## ")[0].rstrip()


def _pictures(cell: NotebookNode) -> list[bytes]:
    """The drawings in a cell's outputs, and the figure that answers the lesson's question."""
    wanted = cell.source.startswith("draw_") or '"answer")' in cell.source
    found = [output.get("data", {}).get("image/png") for output in cell.get("outputs", [])]
    return [base64.b64decode(picture) for picture in found if wanted and picture]
