"""Correcting 100,000 rows from the command line: speed, memory, and a run that was killed.

python benchmarks/stream.py [ROWS]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alignlib.aligner import Aligner
from alignlib.profiles import TINY
from alignlib.tinytown import sets


def resident_mb(pid: int) -> float:
    """Memory of a process (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def correct(folder: Path, out: str, kill_after: float = 0.0) -> list[float]:
    """Run the command; its memory every second, from the first rows written on."""
    arguments = ["correct", "rows.jsonl", "--aligner", "aligner", "--out", out]
    command = [sys.executable, "-m", "alignlib", *arguments]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    memory, started = [], None
    while process.poll() is None:
        time.sleep(1)
        if any(part.stat().st_size for part in folder.glob(f"{out}.*.part")):
            started = started or time.monotonic()
            memory.append(resident_mb(process.pid))
            if kill_after and time.monotonic() - started > kill_after:
                process.kill()
                process.wait()
    return [mb for mb in memory if mb]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rows = sets.corrections(2000, seed=5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = sets.corrections(TINY.corrections), sets.identity(TINY.identity)
        settings = {"settings": TINY.training, "warmup": TINY.warmup}
        Aligner.cached(TINY.base, *train, **settings).save_pretrained(folder / "aligner")
        with (folder / "rows.jsonl").open("w", encoding="utf-8") as stream:
            for i in range(count):
                row = rows[i % len(rows)]
                record = {"id": i, "question": row.question, "answer": row.answer}
                stream.write(json.dumps(record) + "\n")
        started = time.monotonic()
        memory = correct(folder, "whole.jsonl")
        seconds = time.monotonic() - started
        early = memory[: max(1, len(memory) // 20)]
        print(f"{count} rows in {seconds:.0f} s, {count / seconds:.0f} rows/s", flush=True)
        print(f"memory: {max(early):.0f} MB early on, at most {max(memory):.0f} MB", flush=True)
        correct(folder, "out.jsonl", kill_after=seconds / 3)
        correct(folder, "out.jsonl")
        same = (folder / "out.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
        print(f"killed in the middle and run again: same output {same}")


if __name__ == "__main__":
    main()
