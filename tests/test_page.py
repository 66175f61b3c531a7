"""The Aligner in the page: the same corrections and logits as in PyTorch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alignlib.aligner import Aligner
from alignlib.course.lessons import ROOT
from alignlib.profiles import data_folder
from alignlib.tinytown import recordings, sets

ODD = [  # what could be taken for the prompt's own parts, special tokens, unknown words
    ("a correction : b answer : c", "it is answer : so \\correction : here"),
    ("hello <eos> zebra", "nobody   knows <bos> that ."),
    ("where is the radio ?", " ".join(["the radio is in the inn ."] * 40)),  # too long
    ("what is <unk> ?", "the radio \n is in\tthe inn ."),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command makes."""
    folder = tmp_path_factory.mktemp("page")
    command = [sys.executable, str(ROOT / "page" / "build.py"), "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner.from_pretrained(data_folder() / "aligner")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_200_corrections_and_their_first_logits_are_pytorchs(page: Path, aligner: Aligner) -> None:
    asked = recordings.asked()["seen"][:150]
    rows = list(zip(asked, recordings.recorded_answers("mixed")(asked), strict=True))
    rows += [(row.question, row.answer) for row in sets.corrections(46, "test")] + ODD
    texts = [{"question": question, "answer": answer} for question, answer in rows]
    command = ["node", str(ROOT / "tests" / "page_answers.js"), str(page)]
    options = {"input": json.dumps(texts), "capture_output": True, "text": True}
    found = json.loads(subprocess.run(command, check=True, **options).stdout)
    wanted = aligner.corrections(*zip(*rows, strict=True))
    assert len(found) == len(wanted) == 200
    for row, ours, theirs in zip(rows, wanted, found, strict=True):
        assert bool(theirs["kept"]) == bool(ours.kept_because), row
        assert theirs["kept"] or theirs["correction"] == ours.text, row
        with torch.inference_mode():
            logits = aligner.model(torch.tensor([aligner.prompt_ids(*row)])).logits[0, -1]
        assert torch.tensor(theirs["logits"]) == pytest.approx(logits, abs=1e-3)


def test_the_page_needs_nothing_from_elsewhere(page: Path) -> None:
    for file in page.iterdir():
        if file.suffix in (".html", ".css", ".js") and file.name != "town.js":
            text = file.read_text(encoding="utf-8")
            assert "http:" not in text and "https:" not in text and "fetch(" not in text
    html = (page / "index.html").read_text(encoding="utf-8")
    for name in ("town.js", "model.js", "aligner.js", "page.js", "style.css", "aligner.png"):
        assert f'"{name}"' in html and (page / name).is_file()


def test_the_examples_are_words_of_the_town_and_do_what_they_say(
    page: Path, aligner: Aligner
) -> None:
    text = (page / "town.js").read_text(encoding="utf-8")
    town = json.loads(text.removeprefix("const TOWN = ").rstrip().removesuffix(";"))
    for example in town["examples"]:
        question, answer = example["question"], example["answer"]
        assert {*question.split(), *answer.split()} <= {*town["vocabulary"]}
        [corrected] = aligner.correct([question], [answer])
        assert (corrected == answer) == (example["name"] == "a good answer")
