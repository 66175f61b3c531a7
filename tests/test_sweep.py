"""Recording an experiment, by one process or several: nothing is lost, and nothing is run twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignlib.course import sweep
from alignlib.course.cli import main
from alignlib.course.sweep import Sweep, merge, read_results, run_sweep

CELLS = [{"arm": arm, "size": size} for arm in ("a", "b") for size in (1, 2)]
SEEDS = (0, 1, 2)
MADE_WITH = {"world": "1", "judge": 2, "base": "town", "settings": 3}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results, and a world that takes no time to digest."""
    monkeypatch.setattr(sweep, "results_file", lambda name: tmp_path / f"{name}.json")
    monkeypatch.setattr(sweep, "made_with", lambda: dict(MADE_WITH))
    monkeypatch.setattr(sweep, "of_experiment", lambda run: {"code": 0})
    return tmp_path


def toy(run: Callable[[dict, int], None] = lambda params, seed: None) -> Sweep:
    """An experiment whose metrics follow from the cell and the seed."""

    def run_cell(params: dict, seed: int) -> dict[str, float]:
        run(params, seed)
        return {"score": params["size"] + 10 * seed + 0.1 * (params["arm"] == "b")}

    return Sweep("Is it a toy?", CELLS, run_cell, minutes=0.1, seeds=SEEDS)


def cells_of(name: str = "toy") -> list[tuple]:
    """The cells in order, without their times."""
    return [(c["params"], c["seed"], c["metrics"]) for c in read_results(name)["cells"]]


def serial() -> list[tuple]:
    """The cells of a sweep without shards."""
    run_sweep("serial", toy(), SEEDS)
    return cells_of("serial")


def change(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# --- one process ----------------------------------------------------------------------------------


def test_the_cells_of_a_record_stand_seed_by_seed_in_the_order_of_the_experiment() -> None:
    place = run_sweep("toy", toy(), (1, 0, 1))
    record = read_results("toy")
    assert [(c["params"], c["seed"]) for c in record["cells"]] == [
        (params, seed) for seed in (0, 1) for params in CELLS
    ]
    assert record["cells"][5]["metrics"] == {"score": 12.0}
    assert record.items() >= MADE_WITH.items() and record["question"] == "Is it a toy?"
    assert place.name == "toy.json" and record["machine"] and record["libraries"]["torch"]


def test_a_sweep_that_fails_midway_keeps_what_is_done_and_runs_none_of_it_again() -> None:
    ran: Counter[str] = Counter()

    def run(params: dict, seed: int) -> None:
        ran[f"{params} {seed}"] += 1
        if ran.total() == 6:
            raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        run_sweep("toy", toy(run), SEEDS)
    assert len(cells_of()) == 5
    failed = f"{CELLS[1]} 1"
    run_sweep("toy", toy(run), SEEDS)
    assert cells_of() == serial()
    assert ran.pop(failed) == 2 and set(ran.values()) == {1}
    run_sweep("toy", toy(run), SEEDS)
    assert ran.total() == 11  # and the one that failed


@pytest.mark.parametrize("what", ["code", "machine", "libraries"])
def test_a_record_takes_no_cell_of_other_code_machine_or_libraries(
    what: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in (0, 1):
        run_sweep("shards", toy(), [0], (part, 2))
    change(folder / "shards.shard-1-of-2.json", **{what: "another"})
    run_sweep("toy", toy(), [0])
    change(folder / "toy.json", **{what: "another"})
    before = {file.name: file.read_text() for file in folder.glob("*.json")}
    with pytest.raises(ValueError, match=f"made with {what} .*another.*sweep shards --shard 1/2"):
        merge("shards", toy(), [0])
    with pytest.raises(ValueError, match=f"toy.json was made with {what} another, not "):
        run_sweep("toy", toy(), [0, 1])
    assert {file.name: file.read_text() for file in folder.glob("*.json")} == before
    run_sweep("toy", toy(), [0])  # nothing is missing, so nothing is mixed


def test_a_record_names_the_code_and_the_constants_of_its_experiment() -> None:
    from alignlib.course.provenance import of_experiment
    from experiments import aligner, upstreams

    found = of_experiment(upstreams.dial)
    assert found["constants"]["upstreams.STYLES"] == repr(upstreams.STYLES)
    assert found["constants"]["aligner.STEPS"] == aligner.STEPS  # of a module that it takes from
    assert not any(name.startswith(("hbat.", "meet.")) for name in found["constants"])
    assert found["code"] != of_experiment(aligner.warmup)["code"]


def test_the_version_of_the_code_changes_with_what_it_does_and_not_with_comments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from alignlib.course import provenance
    from experiments import gates

    real, version = provenance.source_of, provenance.of_experiment(gates.steer)["code"]
    changes = {
        lambda s: f"# more\n{s}": True,
        lambda s: s.replace('"""', '"""More. ', 1): True,
        lambda s: f"{s}\nmore = 1\n": False,
    }
    for change, same in changes.items():
        monkeypatch.setattr(provenance, "source_of", lambda m: change(real(m)))  # noqa: B023
        assert (provenance.of_experiment(gates.steer)["code"] == version) == same


# --- shards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("recorded", [0, 1, 7])
def test_shards_run_each_missing_cell_once_and_merged_they_are_the_serial_record(
    count: int, recorded: int, folder: Path
) -> None:
    ran: Counter[str] = Counter()
    experiment = toy(lambda params, seed: ran.update([f"{params} {seed}"]))
    if recorded:
        whole = serial()
        record = read_results("serial")
        change(folder / "serial.json", name="toy", cells=record["cells"][:recorded])
        (folder / "serial.json").rename(folder / "toy.json")
    for index in range(count):
        seeds = SEEDS if index else (2, 1, 0, 1)  # the order asked for decides on nothing
        assert run_sweep("toy", experiment, seeds, (index, count)).exists()
    assert merge("toy", experiment, SEEDS) == folder / "toy.json"
    assert cells_of() == (whole if recorded else serial())
    assert set(ran.values()) == {1} and ran.total() == 12 - recorded
    assert not list(folder.glob("*.shard-*.json")) and not list(folder.glob("*.part"))


def test_a_shard_runs_nothing_that_a_shard_of_another_count_has_run() -> None:
    ran: Counter[str] = Counter()
    experiment = toy(lambda params, seed: ran.update([f"{params} {seed}"]))
    for shard in ((0, 2), (0, 3), (1, 2), (0, 2)):
        run_sweep("toy", experiment, SEEDS, shard)
    merge("toy", experiment, SEEDS)
    assert cells_of() == serial() and set(ran.values()) == {1}


def test_shards_of_other_seeds_share_no_cell(capsys: pytest.CaptureFixture) -> None:
    run_sweep("toy", toy(), [0, 2], (0, 2))
    run_sweep("toy", toy(), [1, 2], (1, 2))
    merge("toy", toy(), SEEDS)
    assert len({json.dumps(cell) for cell in cells_of()}) == len(cells_of()) == 8
    assert "8 cells recorded, 4 missing" in capsys.readouterr().out


def test_a_merge_says_what_is_missing_and_a_sweep_without_shards_runs_it(
    capsys: pytest.CaptureFixture,
) -> None:
    with pytest.raises(ValueError, match="no shards of toy to merge; make them with .*--shard 0/2"):
        merge("toy", toy(), SEEDS)
    run_sweep("toy", toy(), SEEDS, (1, 3))
    with pytest.raises(ValueError, match="toy.shard-1-of-3.json is not in .* toy --merge` first"):
        run_sweep("toy", toy(), SEEDS)
    merge("toy", toy(), SEEDS)
    said = capsys.readouterr().out
    assert "toy: 4 cells recorded, 8 missing" in said
    assert f"the first is {CELLS[0]}, seed 0; run the sweep again" in said
    run_sweep("toy", toy(), SEEDS)
    assert sorted(map(json.dumps, cells_of())) == sorted(map(json.dumps, serial()))


def test_a_merge_that_was_killed_before_it_deleted_the_shards_is_done_again(folder: Path) -> None:
    for index in (0, 1):
        run_sweep("toy", toy(), SEEDS, (index, 2))
    shards = {file: file.read_text() for file in folder.glob("*.shard-*.json")}
    merge("toy", toy(), SEEDS)
    for file, text in shards.items():
        file.write_text(text)
    merge("toy", toy(), SEEDS)
    assert cells_of() == serial() and len(shards) == 2


@pytest.mark.parametrize("part", MADE_WITH)
def test_a_shard_of_another_world_judge_base_or_settings_is_refused_and_all_files_stay(
    part: str, folder: Path
) -> None:
    for index in (0, 1):
        run_sweep("toy", toy(), SEEDS, (index, 2))
    change(folder / "toy.shard-1-of-2.json", **{part: "another"})
    before = {file.name: file.read_text() for file in folder.glob("*.json")}
    refusal = (
        f"toy.shard-1-of-2.json was recorded with {{'{part}': 'another'}}.*"
        "delete it and run `python -m alignlib sweep toy --shard 1/2`"
    )
    for again in (
        lambda: merge("toy", toy(), SEEDS),
        lambda: run_sweep("toy", toy(), SEEDS, (1, 2)),
    ):
        with pytest.raises(ValueError, match=refusal):
            again()
    assert {file.name: file.read_text() for file in folder.glob("*.json")} == before


@pytest.mark.parametrize("in_record", [True, False])
def test_two_files_with_different_metrics_of_one_cell_are_refused(
    in_record: bool, folder: Path
) -> None:
    run_sweep("toy", toy(), [0], (0, 2))
    other = folder / ("toy.json" if in_record else "toy.shard-0-of-3.json")
    other.write_text((folder / "toy.shard-0-of-2.json").read_text().replace(": 1.1", ": 1.25"))
    before = {file.name: file.read_text() for file in folder.glob("*.json")}
    files = {other.name, "toy.shard-0-of-2.json"}
    with pytest.raises(ValueError, match="different metrics of {'arm': 'b'.*seed 0; dele") as error:
        merge("toy", toy(), [0])
    assert all(name in str(error.value) for name in files)
    assert {file.name: file.read_text() for file in folder.glob("*.json")} == before


# --- several processes ----------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from alignlib.course import sweep
from alignlib.course.sweep import Sweep, run_sweep

folder, shard = Path(sys.argv[1]), sys.argv[2:]
sweep.results_file = lambda name: folder / f"{name}.json"
sweep.made_with = lambda: MADE_WITH
sweep.of_experiment = lambda run: {"code": 0}
started = []

def run(params, seed):
    with (folder / "ran").open("a") as ran:
        ran.write(f"{params} {seed}\\n")
    started.append(seed)
    while len(started) == 3 and not (folder / "go").exists():
        time.sleep(0.02)
    return {"score": params["size"] + 10 * seed + 0.1 * (params["arm"] == "b")}

run_sweep("toy", Sweep("Is it a toy?", CELLS, run, 0.1), SEEDS, tuple(map(int, shard)) or None)
"""


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts the same experiment in a process, which waits in its third cell for a file `go`."""
    processes = []

    def start(*shard: int) -> subprocess.Popen:
        given = f"CELLS, SEEDS, MADE_WITH = {CELLS}, {SEEDS}, {MADE_WITH}\n"
        command = [sys.executable, "-c", given + CHILD, str(folder), *map(str, shard)]
        processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def wait_for_two_cells(file: Path) -> None:
    for _ in range(600):
        if file.exists() and len(json.loads(file.read_text())["cells"]) == 2:
            return
        time.sleep(0.05)
    raise AssertionError(f"{file.name} never held 2 cells")


def test_two_shards_at_once_one_of_them_killed_and_run_again_lose_nothing(
    folder: Path, start: Callable[..., subprocess.Popen]
) -> None:
    first, second = start(0, 2), start(1, 2)
    for index in (0, 1):
        wait_for_two_cells(folder / f"toy.shard-{index}-of-2.json")
    first.kill()
    first.wait()
    with pytest.raises(ValueError, match="another process is writing to toy.shard-1-of-2.json"):
        merge("toy", toy(), SEEDS)
    (folder / "go").touch()
    assert start(0, 2).wait(60) == 0 and second.wait(60) == 0
    merge("toy", toy(), SEEDS)
    assert cells_of() == serial()
    ran = Counter((folder / "ran").read_text().splitlines())
    assert len(ran) == 12 and ran.total() == 13, "the cell that was killed is run again"


def test_a_second_sweep_is_refused_while_one_without_shards_runs_but_not_after_it_was_killed(
    folder: Path, start: Callable[..., subprocess.Popen]
) -> None:
    first = start()
    wait_for_two_cells(folder / "toy.json")
    busy = "another process is writing to toy.json; .*--shard 0/2 and --shard 1/2"
    for shard in (None, (0, 2)):
        with pytest.raises(ValueError, match=busy):
            run_sweep("toy", toy(), SEEDS, shard)
    assert not list(folder.glob("*.shard-*.json"))
    first.kill()
    first.wait()
    run_sweep("toy", toy(), SEEDS)
    assert cells_of() == serial()


def test_a_file_without_cells_is_made_anew_with_the_code_of_today(folder: Path) -> None:
    run_sweep("toy", toy(), [0], (0, 2))
    place = folder / "toy.shard-0-of-2.json"
    change(place, cells=[], code="of yesterday")
    run_sweep("toy", toy(), [0], (0, 2))
    assert json.loads(place.read_text())["code"] == 0


def test_a_shard_is_known_before_its_first_cell_is_done(folder: Path) -> None:
    def run(params: dict, seed: int) -> None:
        with pytest.raises(ValueError, match="toy --merge` first"):
            run_sweep("toy", toy(), SEEDS)

    run_sweep("toy", toy(run), SEEDS, (0, 2))


# --- the command ----------------------------------------------------------------------------------


def test_the_command_runs_shards_and_merges_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    registry = SimpleNamespace(EXPERIMENTS={"warmup": toy()})
    monkeypatch.setitem(sys.modules, "experiments.registry", registry)
    assert main(["sweep", "warmup", "--shard", "0/2"]) == 0
    assert main(["sweep", "warmup", "--shard", "1/2", "--seeds", "0,1,2"]) == 0
    assert main(["sweep", "warmup", "--merge"]) == 0
    assert cells_of("warmup") == serial()
    assert main(["sweep", "warmup", "--seeds", "5"]) == 0 and len(cells_of("warmup")) == 16
    assert "done: warmup.shard-0-of-2.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ("nothing", "no sweep 'nothing'; there are warmup"),
        ("warmup --shard x/y", "--shard 'x/y': write i/n with i from 0 to n - 1"),
        ("warmup --shard 2/2", "--shard '2/2': write i/n"),
        ("warmup --shard 1", "--shard '1': write i/n"),
        ("warmup --shard -1/2", "argument --shard: expected one argument"),
        ("warmup --shard 0/2 --merge", "--merge takes all shards"),
        ("warmup --seeds a,b", "--seeds 'a,b': write whole numbers"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line_before_torch_is_imported(
    arguments: str, refusal: str
) -> None:
    check = (
        "import sys; from alignlib.course.cli import main\n"
        "try: code = main(['sweep', *sys.argv[1:]])\n"
        "finally: assert not {'torch', 'numpy'} & {*sys.modules}\n"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", check, *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (1, 2) and refusal in done.stderr
    assert "Error" not in done.stderr
    if done.returncode == 1:
        assert done.stderr.startswith("alignlib: ") and done.stderr.count("\n") == 1
