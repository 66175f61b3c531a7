"""Where the course is published. Badges, links and every notebook's first cell are made from it.

To publish it elsewhere, set REPOSITORY and run `python -m alignlib build`.
"""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = "OWNER/alignlib"  # owner and name on GitHub
PLACEHOLDER = "OWNER/"  # what REPOSITORY begins with until the course has an address
URL = f"https://github.com/{REPOSITORY}"
DISTRIBUTION = "alignment-course"  # the name in pip; the import name is alignlib
PYTHON = ("3.11", "3.13")  # the oldest and the newest that are tested
COLAB = "https://colab.research.google.com"


def bootstrap(url: str = URL) -> str:
    """The first code cell of a notebook, which installs the course where it is missing.

    It imports none of the libraries, so that pip can still upgrade them (the hub's client, say).
    It leaves out constraints.txt, which would replace Colab's torch.
    """
    wheel = DISTRIBUTION.replace("-", "_")
    return f"""\
# This cell installs the course where it is missing, as on Colab and Kaggle.
import importlib.util
import os
import sys
from glob import glob

if "LOCAL_RANK" not in os.environ:  # no launcher: TRL refuses to train if it sees several GPUs
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")

package = importlib.util.find_spec("alignlib")
if package is None or package.origin is None:  # a mere folder of that name has no origin
    # peft refuses to add LoRA when it finds Colab's old torchao, which nothing here needs
    %pip uninstall -qq -y torchao
    if wheels := sorted(glob("{wheel}-*.whl")):  # uploaded beside the notebook
        %pip install -q "{{wheels[-1]}}"
    else:
        !git clone -q --depth 1 {url} {DISTRIBUTION}
        %pip install -q -e {DISTRIBUTION}
        sys.path.insert(0, os.path.abspath("{DISTRIBUTION}"))"""


def colab_badge(notebook: str, label: str = "Open in Colab") -> str:
    """Markdown that opens a notebook, given by its path in the repository, in Colab."""
    link = f"{COLAB}/github/{REPOSITORY}/blob/main/{notebook}"
    return f"[![{label}]({COLAB}/assets/colab-badge.svg)]({link})"


def is_placeholder() -> bool:
    return REPOSITORY.startswith(PLACEHOLDER)


def write_links(root: Path) -> list[str]:
    """Put the address into the files of a checkout that hold it; return the names of those changed.

    Raises ValueError if a file has lost the place where it belongs.
    """
    changed = []
    for name, pattern, wanted in _links():
        text = (root / name).read_text(encoding="utf-8")
        made, found = re.subn(pattern, lambda _: wanted, text, flags=re.MULTILINE | re.DOTALL)
        if not found:
            raise ValueError(f"{name}: no place for the address; {pattern!r} should match there")
        if made != text:
            (root / name).write_text(made, encoding="utf-8", newline="\n")
            changed.append(name)
    return sorted(set(changed))


def _links() -> list[tuple[str, str, str]]:
    """Where the address belongs: a file, a pattern of the text there, and what it should be."""
    clone, folder = f"{URL} && cd", REPOSITORY.split("/")[1]
    return [
        ("README.md", r"(?<=<!-- badges -->\n).*?(?=<!-- /badges -->)", _badges()),
        ("README.md", r"^git clone .*?$", f"git clone {clone} {folder}"),
        ("INSTRUCTOR.md", r"^git clone .*?$", f"git clone --depth 1 {clone} {folder}"),
        ("pyproject.toml", r'(?<=^Repository = ").*?(?="$)', URL),
        ("CITATION.cff", r"(?<=^repository-code: ).*?$", URL),
    ]


def _badges() -> str:
    """The README's badges."""
    shields, (first, last) = "https://img.shields.io/badge", PYTHON
    licence = f"[![Apache-2.0]({shields}/licence-Apache--2.0-blue)](LICENSE)"
    python = f"[![Python {first} to {last}]({shields}/python-{first}_to_{last}-blue)]"
    lesson = colab_badge("notebooks/02_aligner.ipynb", "Open lesson 02 in Colab")
    return f"{lesson}\n{licence}\n{python}(pyproject.toml)\n"
