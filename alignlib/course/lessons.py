"""Where the notebooks are, running them, and building them from their source.

    notebooks/src/NN_name.py        what authors edit (py:percent text)
    notebooks/NN_name.ipynb         what students open: executed by `build`, with nothing solved
    notebooks/evidence/NN_name...   what was measured, read from data/results; the same two files

A cell tagged `exercise` is the stub that students fill in, `solution` its solution, and `check`
holds an attempt against the reference and hands back something that works. Editions: `student` has
the solutions folded under the stubs, `class` has none, `solved` has them in the stubs' place.
A line `<!-- known -->` becomes the sentences about that lesson in data/results/ledger.json.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ..profiles import data_folder
from .publish import bootstrap, colab_badge

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
SOURCES = NOTEBOOKS / "src"
PICTURES, PICTURE = NOTEBOOKS / "pictures", 360  # of the lessons' answers; pixels
LEFT_OUT = {"student": (), "class": ("solution",), "solved": ("exercise",)}  # tags, by edition
KNOWN = "<!-- known -->"
QUIET_KERNEL = [
    "--log-level=40"
]  # errors only: it would remark on its loopback sockets at every start
FIRST_BENCH = "08"  # the first notebook on real models
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class LessonError(ValueError):
    """A lesson that is not there, or that did not run to its end."""


def notebook_numbers() -> list[str]:
    return sorted(p.name[:2] for p in SOURCES.glob("[0-9][0-9]_*.py"))


def lesson_numbers() -> list[str]:
    """The notebooks to learn from; those from FIRST_BENCH on are for building with.

    Raises LessonError if there are none, as in an installed package.
    """
    numbers = [number for number in notebook_numbers() if number < FIRST_BENCH]
    if not numbers:
        raise LessonError("no lessons here; run this in a clone of the course's repository")
    return numbers


def report_names() -> list[str]:
    """The reports of what was measured, such as `evidence/02`."""
    return sorted(f"evidence/{p.name[:2]}" for p in SOURCES.glob("evidence/[0-9][0-9]_*.py"))


def source_of(name: str) -> Path:
    """The source of a notebook, by its number. Raises LessonError, listing those there are."""
    folder, _, number = name.rpartition("/")
    found = sorted((SOURCES / folder).glob(f"{number.zfill(2)}_*.py"))
    if not found:
        there = ", ".join([*notebook_numbers(), *report_names()]) or "none (this needs a clone)"
        raise LessonError(f"no lesson {name!r}; there are {there}")
    return found[0]


def name_of(source: Path) -> str:
    """What a source is called: `02`, or `evidence/02`."""
    return (source.parent.relative_to(SOURCES) / source.stem[:2]).as_posix()


def notebook_of(name: str) -> Path:
    """The committed notebook of a source."""
    return NOTEBOOKS / source_of(name).relative_to(SOURCES).with_suffix(".ipynb")


def read_source(name: str, edition: str = "student") -> NotebookNode:
    """An edition of a notebook without outputs: badge and bootstrap put in front, ids by position
    and text, metadata bare.
    """
    import jupytext

    source = source_of(name)
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    if edition != "class":  # it would lead to the solutions
        badge = colab_badge(notebook_of(name).relative_to(ROOT).as_posix())
        notebook.cells[0].source = f"{badge}\n\n{notebook.cells[0].source}"
    notebook.cells.insert(1, nbformat.v4.new_code_cell(bootstrap()))
    for i, cell in enumerate(notebook.cells):
        cell["id"] = hashlib.sha256(
            f"{source.stem}/{i}/{cell.cell_type}/{cell.source}".encode()
        ).hexdigest()[:8]
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace(KNOWN, known_about(name_of(source)))
    notebook.cells = [
        _folded(cell) if "solution" in _tags(cell) and edition == "student" else cell
        for cell in notebook.cells
        if not _tags(cell) & {*LEFT_OUT[edition]}
    ]
    return notebook


def _tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def _folded(cell: NotebookNode) -> NotebookNode:
    """A solution as text that unfolds at a click."""
    text = f"<details><summary>Solution</summary>\n\n```python\n{cell.source}\n```\n\n</details>"
    return nbformat.v4.new_markdown_cell(text, id=cell.id)


def known_about(name: str) -> str:
    """What is known of a lesson's subject, a sentence and a link for each claim."""
    ledger = (data_folder() / "results" / "ledger.json").read_text(encoding="utf-8")
    return "\n".join(
        f"- {claim['sentence']} ([evidence]({claim['evidence']}))"
        for claim in json.loads(ledger)["claims"]
        if claim["lesson"] == name and "sentence" in claim
    )


def build(number: str) -> Path:
    """Execute a notebook in a scratch folder, nothing injected, and write it."""
    import tempfile

    from nbclient import NotebookClient

    notebook, name = read_source(number), name_of(source_of(number))
    with tempfile.TemporaryDirectory() as scratch:
        NotebookClient(
            notebook,
            timeout=3600,
            resources={"metadata": {"path": scratch}},
            extra_arguments=QUIET_KERNEL,
        ).execute()
        _keep_picture(Path(scratch) / "runs" / name / "answer.png", name)
    notebook.metadata = nbformat.from_dict(METADATA)  # the kernel wrote its own version into it
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    _tidy(notebook)
    nbformat.validate(notebook)
    notebook_of(number).parent.mkdir(exist_ok=True)
    nbformat.write(notebook, notebook_of(number))
    return notebook_of(number)


def _keep_picture(figure: Path, number: str) -> None:
    """The figure that answers a lesson's question, small, for the README."""
    from PIL import Image

    if not figure.is_file():
        return
    picture = Image.open(figure).convert("RGB")
    picture.thumbnail((PICTURE, PICTURE))
    PICTURES.mkdir(exist_ok=True)
    picture.quantize(64, dither=Image.Dither.NONE).save(PICTURES / f"{number}.png", optimize=True)


def write_picture() -> Path:
    """The drawing at the top of the README."""
    from ..diagrams import draw_aligner

    PICTURES.mkdir(exist_ok=True)
    draw_aligner().savefig(PICTURES / "aligner.png", dpi=80)
    return PICTURES / "aligner.png"


def _tidy(notebook: NotebookNode) -> None:
    """Progress bars go: what they drew is of no use on paper. Figures get a palette, and weigh a
    third in every clone.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")
            ]
            for output in cell.outputs:
                if figure := output.get("data", {}).get("image/png"):
                    output.data["image/png"] = _with_palette(figure)


def _with_palette(figure: str) -> str:
    """A PNG (base64) in 128 colours, which is more than our figures use."""
    from PIL import Image

    smaller = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(figure))).convert("RGB").quantize(
        128, dither=Image.Dither.NONE
    ).save(smaller, "PNG", optimize=True)
    return base64.b64encode(smaller.getvalue()).decode()


def run(
    number: str,
    profile: str | None,
    seed: int,
    out: Path,
    parameters: dict[str, object],
    edition: str = "student",
    **engine: object,
) -> Path:
    """Execute an edition of a notebook into `out/NN` with papermill; the executed one's path.

    Reports go into `out/evidence-NN`. Without a `profile` the notebook's own holds. `engine` goes
    to papermill. Raises LessonError, naming the cell, if one fails.
    """
    name = name_of(source_of(number))
    folder = (out / name.replace("/", "-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    source, target = folder / "source.ipynb", folder / notebook_of(number).name
    (folder / "metrics.json").unlink(missing_ok=True)  # an earlier run's
    nbformat.write(read_source(number, edition), source)
    given = {"OUT": str(folder), **parameters}
    if name in notebook_numbers():  # reports have no seed
        given["SEED"] = seed
    if profile is not None:
        given["PROFILE"] = profile
    try:
        _execute(source, target, given, engine)
    finally:
        source.unlink(missing_ok=True)
    executed = nbformat.read(target, 4)
    _tidy(executed)
    nbformat.write(executed, target)
    return target


def _execute(
    source: Path, target: Path, parameters: dict[str, object], engine: dict[str, object]
) -> None:
    import papermill

    try:
        papermill.execute_notebook(
            str(source),
            str(target),
            parameters=parameters,
            kernel_name="python3",
            stderr_file=_Quiet(),
            extra_arguments=QUIET_KERNEL,
            **engine,
        )
    except papermill.PapermillExecutionError as error:
        where = f"lesson {target.stem[:2]} stopped in cell {error.exec_count}"
        raise LessonError(f"{where}: {error.ename}: {error.evalue} (see {target})") from error


class _Quiet:
    """Swallows the lessons' own bars, so that the lesson's bar stands alone."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...
