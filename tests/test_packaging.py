"""What a user gets: the wheel, the first cell on Colab, the clone on Windows, and the versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import alignlib
from alignlib.artefacts import code_digest
from alignlib.course import cli, publish
from alignlib.course.lessons import QUIET_KERNEL, ROOT, notebook_numbers, read_source, report_names
from alignlib.course.publish import bootstrap, write_links
from alignlib.model_names import fingerprint
from alignlib.profiles import data_folder

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OVERRIDDEN = ("peft", "transformers", "trl")  # libraries whose private parts we override
needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")


def run(*command: object, cwd: Path, **environment: str) -> str:
    """What a command prints, run without this checkout on Python's path. Fails if it fails."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


# --- the wheel ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    run(*pip, "-w", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_package_and_data_and_no_experiments(wheel: Path) -> None:
    assert wheel.name.startswith(publish.DISTRIBUTION.replace("-", "_"))
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"alignlib", "alignment_course"}
    here = [*(ROOT / "alignlib").rglob("*.py"), *data_folder().rglob("*.json")]
    wanted = {f.relative_to(ROOT).as_posix() for f in here}
    wanted |= {f"data/{name}/model.safetensors" for name in ("base", "aligner")}
    assert {re.sub("^data", "alignlib/_data", name) for name in wanted} <= set(names)
    assert wheel.stat().st_size < 10_000_000


TRAIN = """
import alignlib
from alignlib import Aligner, SFTSettings
from alignlib.profiles import data_folder
from alignlib.tinytown import sets

rows = sets.corrections(8)
settings = SFTSettings(steps=2, batch_size=4)
aligner = Aligner.train(data_folder() / "base", rows, settings=settings, progress=False)
print(alignlib.__file__, len(aligner.losses["correction"]))
print(aligner.correct([rows[0].question], [rows[0].answer])[0])
"""


def test_the_installed_wheel_trains_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        site,
        wheel,
        cwd=empty,
    )
    told = run(sys.executable, "-c", TRAIN, cwd=empty, PYTHONPATH=str(site)).splitlines()
    assert told[0] == f"{site / 'alignlib' / '__init__.py'} 2" and told[1]
    assert not list(empty.iterdir())


# --- the first cell on Colab --------------------------------------------------------------------

LOOK = """
import os

import alignlib

print(alignlib.__file__, "GPU", os.environ.get("CUDA_VISIBLE_DEVICES"))
"""
LORA = """
import huggingface_hub

from alignlib.models import add_lora, load_model
from alignlib.profiles import data_folder

model = add_lora(load_model(data_folder() / "base")[0], rank=2)
print(type(model).__name__, huggingface_hub.__version__)
"""
EXPERIMENTS = """
import importlib.util

print(importlib.util.find_spec("experiments").origin)
"""


def package_in(site: Path, name: str, of_version: str) -> None:
    """A package as pip would have installed it, which says its version and does nothing else."""
    info = f"{name}-{of_version}.dist-info"
    files = {
        f"{name}/__init__.py": f"__version__ = {of_version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {of_version}\n",
        f"{info}/INSTALLER": "pip\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    for file, text in files.items():
        (site / file).parent.mkdir(exist_ok=True)
        (site / file).write_text(text, encoding="utf-8")


def empty_wheel(folder: Path, name: str, of_version: str) -> None:
    """A wheel without a module: once it is installed, the real package is imported again."""
    info = f"{name}-{of_version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{of_version}-py3-none-any.whl", "w") as archive:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {of_version}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        tags = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: tests\n{tags}")
        archive.writestr(f"{info}/RECORD", "")


class Colab:
    """A Python with all libraries but ours, Colab's old torchao and an old client of the hub.

    There is no index. Of wheels pip finds the hub's client as we have it, and a torch that it must
    not take.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.content, self.wheels = folder, folder / "content", folder / "wheels"
        self.content.mkdir()
        self.wheels.mkdir()
        venv.create(folder / "env", symlinks=os.name != "nt")
        base = {"base": str(folder / "env"), "platbase": str(folder / "env")}
        self.site = Path(sysconfig.get_path("purelib", "venv", base))
        self.python = Path(sysconfig.get_path("scripts", "venv", base)) / "python"
        libraries = [place for place in sys.path if Path(place).name == "site-packages"]
        (self.site / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")
        package_in(self.site, "torchao", "0.10.0")
        package_in(self.site, "huggingface_hub", "0.36.2")
        empty_wheel(self.wheels, "huggingface_hub", version("huggingface_hub"))
        empty_wheel(self.wheels, "torch", "99.0")

    def run(self, *cells: str, **environment: str) -> list[str]:
        """Run the cells as a notebook in `content`; return the lines that the last one prints."""
        notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
        left_out = ("PYTHONPATH", "CUDA_VISIBLE_DEVICES", "LOCAL_RANK")
        inherited = {k: v for k, v in os.environ.items() if k not in left_out}
        offline = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_NO_BUILD_ISOLATION": "0",  # that is, no isolation: pip reads 0 as "not isolated"
        }
        client = NotebookClient(
            notebook,
            timeout=300,
            resources={"metadata": {"path": str(self.content)}},
            extra_arguments=QUIET_KERNEL,
        )
        client.create_kernel_manager()
        client.km.kernel_spec.argv[0] = str(self.python)
        client.execute(env=inherited | offline | environment)
        streams = [o for o in notebook.cells[-1].outputs if o.get("name") == "stdout"]
        return "".join(o.text for o in streams).splitlines()


@pytest.fixture
def colab(tmp_path: Path) -> Colab:
    return Colab(tmp_path)


def test_the_first_cell_installs_an_uploaded_wheel_and_lora_works(
    colab: Colab, wheel: Path
) -> None:
    shutil.copy(wheel, colab.content)
    told = colab.run(bootstrap(), LOOK + LORA)
    assert told[0] == f"{colab.site / 'alignlib' / '__init__.py'} GPU 0"
    assert told[1] == f"PeftModelForCausalLM {version('huggingface_hub')}"
    assert not list(colab.site.glob("torch-*")), "torch was replaced"


@needs_git
def test_the_first_cell_clones_the_repository_where_there_is_no_wheel(colab: Colab) -> None:
    (colab.content / "alignlib").mkdir()  # a folder of that name is no package
    clone = colab.content / publish.DISTRIBUTION
    told = colab.run(bootstrap(ROOT.as_uri()), LOOK + EXPERIMENTS, CUDA_VISIBLE_DEVICES="1")
    assert told[0] == f"{clone / 'alignlib' / '__init__.py'} GPU 1"
    assert told[1] == f"{clone / 'experiments' / '__init__.py'}"
    assert (clone / "data" / "base" / "model.safetensors").is_file()


def test_the_first_cell_installs_nothing_where_the_course_is_installed(colab: Colab) -> None:
    (colab.site / "alignlib.pth").write_text(str(ROOT), encoding="utf-8")
    told = colab.run(bootstrap("nowhere"), LOOK, LOCAL_RANK="0")
    assert told == [f"{ROOT / 'alignlib' / '__init__.py'} GPU None"]
    assert (colab.site / "torchao").is_dir() and not list(colab.content.iterdir())


def test_the_first_cell_is_short_and_every_notebook_has_it() -> None:
    lines = bootstrap().splitlines()
    assert len(lines) <= 25 and max(map(len, lines)) <= 100
    for name in (*notebook_numbers(), *report_names()):
        assert read_source(name).cells[1].source == bootstrap()


# --- a checkout with other line ends ------------------------------------------------------------

RECORDS = """
from alignlib.artefacts import code_digest
from alignlib.course.sweep import read_results
from alignlib.model_names import fingerprint
from alignlib.profiles import data_folder

read_results("warmup")
print(fingerprint(data_folder() / "base"), code_digest("train"))
"""


@pytest.fixture(scope="module")
def windows_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone by a git that writes CRLF wherever it may."""
    folder = tmp_path_factory.mktemp("windows") / "clone"
    crlf = ["-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    run("git", *crlf, "clone", "-q", "--depth", "1", ROOT.as_uri(), folder, cwd=folder.parent)
    return folder


@needs_git
def test_a_clone_on_windows_has_the_data_byte_for_byte(windows_clone: Path) -> None:
    data = [f for f in (windows_clone / "data").rglob("*") if f.is_file()]
    assert len(data) > 50
    text = [*data, *windows_clone.rglob("*.py"), *windows_clone.rglob("*.ipynb")]
    changed = [
        f for f in text if f.suffix not in (".png", ".safetensors") and b"\r\n" in f.read_bytes()
    ]
    assert not changed


@needs_git
def test_records_hold_where_line_ends_were_changed_all_the_same(windows_clone: Path) -> None:
    for file in [*windows_clone.rglob("*.json"), *windows_clone.rglob("*.py")]:
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    told = run(sys.executable, "-c", RECORDS, cwd=windows_clone, PYTHONPATH=str(windows_clone))
    assert told.split() == [fingerprint(data_folder() / "base"), code_digest("train")]


# --- one address --------------------------------------------------------------------------------

NAMING = ("README.md", "INSTRUCTOR.md", "pyproject.toml", "CITATION.cff")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that name the address."""
    for name in NAMING:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_what_is_committed_holds_the_address(checkout: Path) -> None:
    assert write_links(checkout) == []
    notebooks = [*(ROOT / "notebooks").rglob("*.ipynb")]
    for file in [*(ROOT / name for name in NAMING), *notebooks]:
        assert publish.REPOSITORY in file.read_text(encoding="utf-8"), file.name


def test_another_address_replaces_the_old_one_everywhere(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = publish.REPOSITORY
    monkeypatch.setattr(publish, "REPOSITORY", "someone/else")
    monkeypatch.setattr(publish, "URL", "https://github.com/someone/else")
    assert write_links(checkout) == sorted(NAMING)
    for name in NAMING:
        text = (checkout / name).read_text(encoding="utf-8")
        assert old not in text and "github.com/someone/else" in text, name
    (checkout / "README.md").write_text("no address", encoding="utf-8")
    with pytest.raises(ValueError, match="README.md: no place for the address"):
        write_links(checkout)


def test_build_says_so_while_the_address_is_the_placeholder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for names in ("notebook_numbers", "report_names"):
        monkeypatch.setattr(f"alignlib.course.lessons.{names}", list)
    monkeypatch.setattr(publish, "write_links", lambda root: [])
    for address, said in (("OWNER/alignlib", True), ("someone/alignlib", False)):
        monkeypatch.setattr(publish, "REPOSITORY", address)
        assert cli.main(["build"]) == 0
        assert (f"the address is still {address}" in capsys.readouterr().err) == said


def test_nothing_else_names_an_address() -> None:
    """In a file that `build` does not write, an address would be forgotten."""
    sources = [
        *ROOT.glob("*.*"),
        *(ROOT / "alignlib").rglob("*.py"),
        *ROOT.glob("notebooks/src/**/*"),
    ]
    naming = {f.name for f in sources if f.is_file() and publish.REPOSITORY in _text(f)}
    assert naming == {*NAMING, "publish.py"}


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


# --- versions -----------------------------------------------------------------------------------


def requirements() -> dict[str, Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    every = [Requirement(line) for line in [*PROJECT["dependencies"], *sum(extras, [])]]
    return {canonicalize_name(each.name): each for each in every}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): pinned for name, pinned in pairs}


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    for name, requirement in requirements().items():
        assert requirement.specifier.contains(pins()[name]), f"{requirement}, pinned {pins()[name]}"
        assert ">=" in str(requirement.specifier), requirement
        assert name not in OVERRIDDEN or "<" in str(requirement.specifier).replace(">", ""), name


def test_the_supported_pythons_are_the_same_everywhere() -> None:
    first, last = (int(each.split(".")[1]) for each in publish.PYTHON)
    assert PROJECT["requires-python"] == f">=3.{first},<3.{last + 1}"
    named = ", ".join(f"3.{minor}" for minor in range(first, last))
    sentence = f"{named} or 3.{last}"
    assert sentence in _text(ROOT / "INSTALL.md") and sentence in _text(ROOT / "Makefile")
    assert f"(3, {first}) <= sys.version_info[:2] <= (3, {last})" in _text(ROOT / "Makefile")
    conda = re.search(r"python=3\.(\d+)", _text(ROOT / "environment.yml"))
    assert conda and first <= int(conda[1]) <= last


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
@pytest.mark.parametrize(("minor", "refused"), [(10, True), (11, False), (13, False), (14, True)])
def test_make_refuses_a_python_that_is_not_supported(
    minor: int, refused: bool, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    pretend = f"import sys; sys.version_info = (3, {minor}, 0)"
    # it answers `-c`, as another version would, and fails at anything else
    python.write_text(
        f'#!/bin/sh\ntest "$1" = -c || exit 9\nexec {sys.executable} -c "{pretend}; $2"\n'
    )
    python.chmod(0o755)
    place = f"{tmp_path}/venv"
    command = ["make", f"VENV={place}", f"PYTHON={python}", f"{place}/installed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ("needs Python 3.11, 3.12 or 3.13" in done.stderr) == refused
    assert (" -m venv " in done.stdout) != refused


@needs_git
@pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="no make, or no sh")
def test_a_bundle_holds_site_and_models_and_no_answer_that_was_paid_for(tmp_path: Path) -> None:
    clone, cache, bin_ = tmp_path / "clone", tmp_path / "cache", tmp_path / "venv" / "bin"
    run("git", "clone", "-q", "--depth", "1", ROOT.as_uri(), clone, cwd=tmp_path)
    shutil.copy(ROOT / "Makefile", clone)
    for name in ("calls/an_answer.json", "calls.sqlite3", "calls.sqlite3-wal", "a_model/weights"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text("x")
    (clone / "runs" / "site").mkdir(parents=True)
    (clone / "runs" / "site" / "index.html").write_text("the site")
    bin_.mkdir(parents=True)
    (bin_ / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (bin_ / "python").chmod(0o755)
    (bin_.parent / "installed").write_text("")
    # `-o site`: it is there already; PIP=: no wheels are made
    command = ["make", "-o", "site", "bundle", f"VENV={bin_.parent}", "PIP=:"]
    run(*command, cwd=clone, ALIGNLIB_CACHE=str(cache))
    [bundle] = (clone / "runs" / "bundle").iterdir()
    assert bundle.name == f"alignlib-{sysconfig.get_platform()}-{sysconfig.get_python_version()}"
    assert [file.name for file in (bundle / "cache").rglob("*")] == ["a_model", "weights"]
    assert (bundle / "runs" / "site" / "index.html").is_file() and (bundle / "README.md").is_file()
    # In a bundle the packages come from its folder of wheels, and trained models from its cache.
    shutil.copy(ROOT / "Makefile", bundle)  # the clone's is that of the last commit
    (bundle / "wheels").mkdir()
    said = run("make", "-n", "course", cwd=bundle)
    assert said.count("--no-index --find-links wheels") == 2
    known = run("env", "-u", "ALIGNLIB_CACHE", "make", "-pn", "course", cwd=bundle)
    assert "\nALIGNLIB_CACHE = $(CURDIR)/cache\n" in known


def test_versions_and_environments_agree() -> None:
    assert PROJECT["name"] == publish.DISTRIBUTION
    assert PROJECT["version"] == alignlib.__version__
    assert f"\nversion: {alignlib.__version__}\n" in _text(ROOT / "CITATION.cff")
    conda = _text(ROOT / "environment.yml")
    assert "--constraint constraints.txt" in conda and "-e .[lab,serve,site,test]" in conda


@needs_git
def test_the_clone_stays_small() -> None:
    tracked = run("git", "ls-files", "-z", cwd=ROOT).split("\0")[:-1]
    sizes = [(ROOT / name).stat().st_size for name in tracked if (ROOT / name).exists()]
    assert sum(sizes) < 30_000_000
