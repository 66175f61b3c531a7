"""Rows by two shards, one of which is stopped and run again: is a question lost, or paid twice?

    python scale/rows_test.py --questions 10000

builds rows against a server that fails one time in ten. `--signal KILL` stops a shard in the midst
of its calls, as a power cut would; TERM, which SLURM sends, lets it keep what is on its way.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from stub_server import NAME, OneInTenFails, Stub

from alignlib.course.server import serving

THINGS = "apple bridge candle dragon engine feather guitar hammer island jacket".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--signal", choices=("TERM", "KILL"), default="TERM")
    args = parser.parse_args()
    stub, started = Stub(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, serving(stub, NAME, OneInTenFails) as url:
        place = Path(folder)
        os.environ["ALIGNLIB_CACHE"] = str(place / "cache")
        questions = [question(i) for i in range(args.questions)]
        (place / "questions.txt").write_text("\n".join(questions), encoding="utf-8")
        shards = [start(place, url, "--shard", f"{i}/2") for i in (0, 1)]
        while sum(stub.asked.values()) < args.questions / 2:
            time.sleep(0.1)
        shards[0].send_signal(getattr(signal, f"SIG{args.signal}"))
        print(f"shard 0 was stopped, with exit code {shards[0].wait()}")
        again = start(place, url, "--shard", "0/2")
        print(f"shard 0 again: {again.wait()}, shard 1: {shards[1].wait()}")
        print(f"merged: {start(place, url, '--merge').wait()}")
        card = (place / "rows.md").read_text(encoding="utf-8")
    outcomes = Counter({row[0]: int(row[1]) for row in table(card)})
    print(f"{outcomes.total()} of {args.questions} questions have a row: {dict(outcomes)}")
    print(f"{stub.summary()}; {time.monotonic() - started:.0f} s")


def question(i: int) -> str:
    """The i-th of questions that are no two alike."""
    things = " ".join(THINGS[i // 10**k % 10] for k in range(4))
    return f"What about {things} number {i} ?"


def start(place: Path, url: str, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "alignlib", "build-rows", "questions.txt", *more]
    command += ["--upstream", f"{NAME}@{url}", "--annotator", f"{NAME}@{url}"]
    command += ["--out", "rows.jsonl"]
    return subprocess.Popen(command, cwd=place, stderr=subprocess.DEVNULL)


def table(card: str) -> list[list[str]]:
    """The rows of a card's table of outcomes."""
    lines = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("|")]
    return [line for line in lines if len(line) == 2 and line[1].isdecimal()]


if __name__ == "__main__":
    main()
