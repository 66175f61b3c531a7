"""The site, in a folder that a browser opens without a server and without network.

python site/build.py --out runs/site
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
from nbformat import NotebookNode
from town import write_scripts

from alignlib import diagrams, overview
from alignlib.course.lessons import (
    FIRST_BENCH,
    NOTEBOOKS,
    lesson_numbers,
    notebook_numbers,
    notebook_of,
    read_source,
    report_names,
)
from alignlib.course.publish import URL, bootstrap

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGES = [
    "INSTALL.md",
    "GLOSSARY.md",
    "INSTRUCTOR.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "AGENTS.md",
    "RESULTS.md",
]
CARDS = [
    f"{folder}/README.md" for folder in ("data/aligner", "data/base", "data/everyday", "scale")
]
DRAWINGS = {**vars(diagrams), **vars(overview)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/site"), help="folder")
    out = parser.parse_args().out
    with TemporaryDirectory() as folder:
        pages = Path(folder, "pages")
        lay_out(pages)
        # -W: a warning is an error
        sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(HERE)]
        sphinx += ["-d", str(Path(folder, "doctrees")), "-b", "html"]
        subprocess.run([*sphinx, str(pages), str(Path(folder, "html"))], check=True)
        shutil.copytree(Path(folder, "html"), out, dirs_exist_ok=True)
    write_scripts(out / "_static")
    write_texts(out)
    print(f"done: open {out / 'index.html'}")


def lay_out(pages: Path) -> None:
    """Copy what the site shows, changed where a page of a site differs from a file on GitHub."""
    for name in [*PAGES, *CARDS]:
        write(pages / name, with_links((ROOT / name).read_text(encoding="utf-8"), Path(name)))
    write(pages / "index.md", first_page())
    shutil.copy(HERE / "class.md", pages)
    for name in map(page_of, [*notebook_numbers(), *report_names()]):
        notebook = shown(nbformat.read(ROOT / name, 4), Path(name))
        write(pages / name, nbformat.writes(notebook))
    for name in ["notebooks/pictures", "data/pretraining.png"]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, pages / name)


def write_texts(out: Path) -> None:
    """What a language model reads more easily: pages as text, listed in `llms.txt`.

    Lessons have no solutions there (AGENTS.md says why).
    """
    names = ["README.md", *PAGES, *CARDS]
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in names}
    for name in [*notebook_numbers(), *report_names()]:
        notebook = read_source(name, "class")
        notebook.metadata["jupytext"] = {"notebook_metadata_filter": "-all"}
        texts[page_of(name).removesuffix(".ipynb") + ".md"] = jupytext.writes(notebook, "md")
    intro = texts["README.md"].split("\n\n")
    listed = [intro[0], "", "> " + " ".join(intro[2].split()), "", "## Pages", ""]
    for name, text in texts.items():
        write(out / "text" / name, with_links(text, Path(name), as_text=True))
        title = re.search(r"^# (.+)", text, re.M)[1]
        listed.append(f"- [{title}](text/{name})")
    write(out / "llms.txt", "\n".join(listed) + "\n")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def first_page() -> str:
    """The README, with the Aligner itself in place of its moving picture."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = re.sub(r"<!-- badges -->.*<!-- /badges -->\n", "", readme, flags=re.S)
    live = "```{raw} html\n" + (HERE / "aligner.html").read_text(encoding="utf-8") + "```\n"
    start, end = readme.index("![A rude or wrong answer"), readme.index("![An upstream model")
    page = with_links(readme[:start] + live + "\n" + readme[end:], Path("README.md"))
    return page + "\n" + contents()


def page_of(name: str) -> str:
    """Where a notebook lies, such as `notebooks/evidence/02_aligner.ipynb`."""
    return f"notebooks/{notebook_of(name).relative_to(NOTEBOOKS).as_posix()}"


def contents() -> str:
    """The menu."""
    reports = [f"Report on lesson {name[-2:]} <{page_of(name)}>" for name in report_names()]
    menu = {
        "Learn": [page_of(number) for number in lesson_numbers()],
        "Build": [page_of(number) for number in notebook_numbers() if number >= FIRST_BENCH],
        "Evidence": ["RESULTS.md", *reports, *CARDS],
        "More": [*(name for name in PAGES if name != "RESULTS.md"), "class.md"],
    }
    return "\n".join(
        f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```\n"
        for caption, names in menu.items()
    )


def with_links(text: str, page: Path, as_text: bool = False) -> str:
    """The text of a page, its links to what is not on the site leading to the repository.

    `as_text`: for the texts of `llms.txt`, where notebooks are Markdown and pictures are left out.
    """
    here = (".md",) if as_text else (".md", ".ipynb", ".png")

    def link(found: re.Match) -> str:
        target, mark, anchor = found[1].partition("#")
        file = (ROOT / page.parent / target).resolve()
        if as_text and file.suffix == ".ipynb":
            return f"]({target.removesuffix('.ipynb')}.md{mark}{anchor})"
        if not as_text and file == ROOT / "README.md":
            return f"]({target.removesuffix('README.md')}index.md)"
        if file.suffix in here or not file.exists():
            return found[0]
        kind = "tree" if file.is_dir() else "blob"
        return f"]({URL}/{kind}/main/{file.relative_to(ROOT).as_posix()})"

    text = re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", link, text)
    badge = r"\[!\[([^]]*)\]\([^)]*colab-badge\.svg\)\]\(([^)]*)\)"
    return re.sub(badge, r"[\1](\2){.colab}", text)


def shown(notebook: NotebookNode, name: Path) -> NotebookNode:
    """A notebook as the site shows it: without its installation, its figures described."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_links(cell.source, name)
        elif cell.source == bootstrap():
            continue
        elif figures := [o for o in cell.outputs if "image/png" in o.get("data", {})]:
            if len(figures) > 1:
                raise ValueError(f"{name}: a cell shows several figures:\n{cell.source}")
            cell.metadata["mystnb"] = {"image": {"alt": described(cell.source, name)}}
        cells.append(cell)
    notebook.cells = cells
    return notebook


def described(source: str, name: Path) -> str:
    """What a cell's figure shows: its title, or what the drawing's function says of itself."""
    texts = {}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Assign([ast.Name(variable)], ast.Constant(value)):
                texts[variable] = value
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "new_figure":
                title = node.args[0]
                return texts[title.id] if isinstance(title, ast.Name) else ast.literal_eval(title)
            if node.func.id.startswith("draw_"):
                return DRAWINGS[node.func.id].__doc__.splitlines()[0]
    raise ValueError(f"{name}: a figure without a title:\n{source}")


if __name__ == "__main__":
    main()
