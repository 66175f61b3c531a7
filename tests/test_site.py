"""The site: its models answer as in PyTorch, its links lead somewhere, it needs no network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

from alignlib.aligner import Aligner
from alignlib.controls import Mix
from alignlib.course.lessons import ROOT
from alignlib.meet import Meet
from alignlib.profiles import data_folder
from alignlib.settings import ControlSettings, SFTSettings
from alignlib.stats import Estimate, over_seeds
from alignlib.styles import texts_by_control
from alignlib.tinytown import recordings, sets
from alignlib.tinytown.judge import score_answer

ODD = [  # what could be taken for the prompt's own parts, special tokens, unknown words
    ("a correction : b answer : c", "it is answer : so \\correction : here"),
    ("hello <eos> zebra", "nobody   knows <bos> that ."),
    ("where is the radio ?", " ".join(["the radio is in the inn ."] * 40)),  # too long
    ("what is <unk> ?", "the radio \n is in\tthe inn ."),
]
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command makes."""
    folder = tmp_path_factory.mktemp("made") / "site"
    command = [sys.executable, str(ROOT / "site" / "build.py"), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner.from_pretrained(data_folder() / "aligner")


def in_node(script: str, given: object) -> object:
    """What a script prints as JSON; `given` is on its standard input."""
    options = {"input": json.dumps(given), "capture_output": True, "text": True}
    done = subprocess.run(["node", "-e", script], check=True, **options)
    return json.loads(done.stdout)


def answers(site: Path, asked: object) -> object:
    script = str(ROOT / "tests" / "site_answers.js")
    return in_node(f"require({json.dumps(script)})({json.dumps(str(site / '_static'))})", asked)


# --- the models in the page ---------------------------------------------------------------------


@needs_node
def test_200_corrections_and_their_first_logits_are_pytorchs(site: Path, aligner: Aligner) -> None:
    asked = recordings.asked()["seen"][:150]
    rows = list(zip(asked, recordings.recorded_answers("mixed")(asked), strict=True))
    rows += [(row.question, row.answer) for row in sets.corrections(46, "test")] + ODD
    texts = [{"question": question, "answer": answer} for question, answer in rows]
    found = answers(site, {"corrections": texts})
    wanted = aligner.corrections(*zip(*rows, strict=True))
    assert len(found) == len(wanted) == 200
    for row, ours, theirs in zip(rows, wanted, found, strict=True):
        assert bool(theirs["kept"]) == bool(ours.kept_because), row
        assert theirs["kept"] or theirs["text"] == ours.text, row
        with torch.inference_mode():
            logits = aligner.model(torch.tensor([aligner.prompt_ids(*row)])).logits[0, -1]
        assert torch.tensor(theirs["logits"]) == pytest.approx(logits, abs=1e-3)


@needs_node
def test_the_dial_gives_the_answers_of_the_librarys_mixes(site: Path) -> None:
    """MEET's controls are read into a model of the library's own, and mixed by it."""
    from safetensors.torch import load_file

    pairs = sets.preferences(8, "test", axis="tone")
    names, none = ("friendly", "plain"), SFTSettings(steps=0)
    base = str(data_folder() / "base")
    control = ControlSettings("lora", size=1)
    meet = Meet.train(base, texts_by_control(pairs, *names), control=control, first=none, then=none)
    for name in names:
        for key, tensor in load_file(ROOT / "site" / "tone" / f"{name}.safetensors").items():
            place = key.replace(".weight", f".{name}.weight")
            meet.model.get_parameter(place).data.copy_(tensor)
    prompts = [f"{pair.prompt} answer :" for pair in pairs]
    written = []
    for friendly in (0.0, 0.5, 1.0):
        mix = {"friendly": friendly, "plain": 1 - friendly}
        wanted = meet.generate(prompts, Mix(mix), max_new_tokens=90, temperature=0.0)
        asked = {"questions": [pair.prompt for pair in pairs], "mix": mix}
        assert answers(site, asked) == wanted
        written.append(wanted)
    assert all(plain != friendly for plain, friendly in zip(written[0], written[2], strict=True))


@needs_node
def test_a_question_that_is_too_long_is_refused_by_both(site: Path) -> None:
    long = "where is the oven ? " * 100
    corrections = answers(site, {"corrections": [{"question": long, "answer": "here ."}]})
    assert corrections[0]["kept"] == "it is too long for the model to read"
    reply = answers(site, {"questions": [long], "mix": {"friendly": 1, "plain": 0}})
    assert reply == ["it is too long for the model to read"]


LOST = {  # by an example's name: the marks that its answer loses
    "a wrong name, and a warning left out": {"honest", "harmless"},
    "an insult": {"harmless"},
    "help with something harmful": {"harmless"},
    "padding": {"helpful"},
    "a good answer": set(),
}


def test_the_examples_are_words_of_the_town_and_do_what_they_say(
    site: Path, aligner: Aligner
) -> None:
    text = (site / "_static" / "town.js").read_text(encoding="utf-8")
    town = json.loads(text.removeprefix("const TOWN = ").rstrip().removesuffix(";"))
    for example in town["examples"]:
        question, answer = example["question"], example["answer"]
        assert {*question.split(), *answer.split()} <= {*town["vocabulary"]}
        score = score_answer(question, answer)
        lost = {mark for mark in ("helpful", "harmless", "honest") if getattr(score, mark) < 1}
        assert lost == LOST[example["name"]], example["name"]
        [corrected] = aligner.correct([question], [answer])
        assert score_answer(question, corrected).fault_free
        assert (corrected == answer) == (not lost)
    assert [example["name"] for example in town["examples"]] == [*LOST]


# --- the page for classes -----------------------------------------------------------------------


@needs_node
@pytest.mark.parametrize("values", [[0.5, 0.7], [0.1, 0.2, 0.6], [0.97, 1.0, 0.99, 1.0] * 3])
def test_the_interval_of_a_class_is_the_librarys(site: Path, values: list[float]) -> None:
    found = in_class(site, "overSeeds(given, 'rate')", values)
    wanted = over_seeds(values)
    assert found["value"] == pytest.approx(wanted.value)
    assert found["low"] == pytest.approx(wanted.low, abs=2e-3)
    assert found["high"] == pytest.approx(wanted.high, abs=2e-3)


@needs_node
@pytest.mark.parametrize("unit", ["rate", "difference", "points", "difference of points", "nats"])
def test_a_class_reads_numbers_as_the_library_prints_them(site: Path, unit: str) -> None:
    estimate = Estimate(0.1234, -0.0416, 0.5, 9, unit)
    assert in_class(site, f"shown(given, '{unit}')", estimate.as_dict()) == str(estimate)
    limits = in_class(site, f"overSeeds(given, '{unit}')", [-500, 500])
    wanted = over_seeds([-500, 500], unit)
    assert (limits["low"], limits["high"]) == pytest.approx((wanted.low, wanted.high), rel=1e-3)


@needs_node
def test_files_that_do_not_belong_to_the_class_are_named(site: Path) -> None:
    def report(lesson: str, seed: int, **metrics: str) -> str:
        measured = {name: {"source": source} for name, source in metrics.items()}
        return json.dumps({"lesson": lesson, "seed": seed, "metrics": measured})

    files = {
        "ada.json": report("02", 7, kept="live", old="recorded", extra="live"),
        "ben.json": report("02", 3, kept="live", old="recorded"),
        "cy.json": report("02", 7, kept="live"),
        "di.json": report("05", 1, kept="live"),
        "notes.json": "no JSON",
    }
    given = [{"name": name, "text": text} for name, text in files.items()]
    call = "(({ reports, wrong }) => [[...reports.keys()], wrong, numbersOf(reports)])"
    seeds, wrong, numbers = in_class(site, f"{call}(collect(given))", given)
    assert seeds == [3, 7] and numbers == ["kept"]
    for name, sentence in zip(["cy", "di", "notes"], wrong, strict=True):
        assert sentence.startswith(f"{name}.json")


def in_class(site: Path, expression: str, given: object) -> object:
    script = f"""
        Object.assign(globalThis, require({json.dumps(str(site / "_static" / "class.js"))}));
        const given = JSON.parse(require("fs").readFileSync(0));
        process.stdout.write(JSON.stringify({expression}));
    """
    return in_node(script, given)


# --- the pages ----------------------------------------------------------------------------------


class Page(HTMLParser):
    """The links of a page, what it loads, its anchors, and its images without a description."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file, self.links, self.loads = file, [], []
        self.anchors, self.undescribed = set(), []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in ("link", "script", "img", "iframe") and (found.get("href") or found.get("src")):
            self.loads.append(found.get("href") or found.get("src"))
        if tag == "img" and not found.get("alt"):
            self.undescribed.append(found.get("src"))


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html")}


def test_every_page_is_there(pages: dict[Path, Page], site: Path) -> None:
    names = {file.relative_to(site).as_posix() for file in pages}
    notebooks = [file.relative_to(ROOT) for file in ROOT.glob("notebooks/**/*.ipynb")]
    wanted = {file.with_suffix(".html").as_posix() for file in notebooks}
    assert len(wanted) == 17
    assert wanted | {"index.html", "RESULTS.html", "GLOSSARY.html", "class.html"} <= names


def test_no_link_is_dead(pages: dict[Path, Page]) -> None:
    dead = []
    for file, page in pages.items():
        for link in [*page.links, *page.loads]:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (file.parent / unquote(path.partition("?")[0])).resolve() if path else file
            if not target.is_file():
                dead.append(f"{file.name}: {link}")
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors:
                dead.append(f"{file.name}: {link}, which has no such anchor")
    assert not dead


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page], site: Path) -> None:
    loaded = [each for page in pages.values() for each in page.loads]
    assert loaded and not [each for each in loaded if re.match(r"(https?:)?//", each)]
    for file in [*site.rglob("*.css"), *(ROOT / "site" / "static").glob("*.js")]:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"url\(['\"]?(https?:)?//|@import|\bfetch\(", text), file


def test_figures_are_described_and_formulas_drawn(pages: dict[Path, Page], site: Path) -> None:
    assert not [(file.name, page.undescribed) for file, page in pages.items() if page.undescribed]
    lesson = (site / "notebooks" / "02_aligner.html").read_text(encoding="utf-8")
    assert 'alt="The Aligner: how it is used, and how it is trained' in lesson
    assert "<math" in lesson and "$$" not in lesson


def test_a_term_shows_its_definition(site: Path) -> None:
    lesson = (site / "notebooks" / "05_meet.html").read_text(encoding="utf-8")
    [definition] = {*re.findall(r'href="../GLOSSARY.html#lora" data-definition="([^"]+)"', lesson)}
    assert "matrices" in definition and "[" not in definition and "*" not in definition
    links = re.findall(r'<a class="reference internal" href="../GLOSSARY.html#[^>]+>', lesson)
    assert links and all("data-definition" in link for link in links)


def test_pages_can_be_searched_without_a_server(site: Path) -> None:
    assert (site / "searchindex.js").read_text(encoding="utf-8").startswith("Search.setIndex(")


def test_the_texts_for_language_models_hold_no_solutions(site: Path) -> None:
    listed = re.findall(r"\]\((text/[^)]+)\)", (site / "llms.txt").read_text(encoding="utf-8"))
    assert len(listed) == len(list((site / "text").rglob("*.md"))) > 20
    for name in listed:
        file = site / name
        for link in re.findall(r"\]\((?!https?:|#)([^)\s#]+)", file.read_text(encoding="utf-8")):
            assert (file.parent / link).is_file(), (name, link)
    lesson = (site / "text" / "notebooks" / "05_meet.md").read_text(encoding="utf-8")
    assert "def soft_prompt(" in lesson and "np.concatenate([repeated, words]" not in lesson
