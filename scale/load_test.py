"""Many clients at once against `python -m alignlib serve`: is an answer lost, doubled or mixed up?

    python scale/load_test.py --clients 64 --minutes 10
    python scale/load_test.py --clients 8 --minutes 3 --aligner runs/mine

starts Tinytown's upstream as a server that fails one time in ten, Tinytown's Aligner in front of
it, and clients of the `openai` package. Every answer is compared with the one that the same
Aligner gives without a server. What the Aligner adds to the time of an answer is told by the same
clients asking the upstream itself.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from openai import DefaultHttpxClient, OpenAI
from stub_server import OneInTenFails

from alignlib import Aligner
from alignlib.course.server import serving
from alignlib.data import read_qac
from alignlib.everyday import rows_file
from alignlib.profiles import data_folder
from alignlib.tinytown import recordings

QUESTIONS = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10.0)
    everyday = "an Aligner of a real model, asked about Everyday's answers"
    parser.add_argument("--aligner", type=Path, help=everyday)
    args = parser.parse_args()
    given = everyday_answers() if args.aligner else town_answers()
    folder = args.aligner or data_folder() / "aligner"
    corrections = Aligner.from_pretrained(folder).correct(list(given), list(given.values()))
    wanted = dict(zip(given, corrections, strict=True))
    upstream = lambda asked, seed=0: [given[question] for question in asked]  # noqa: E731
    short, up = min(1.0, args.minutes), serving(upstream, "town", OneInTenFails)
    with up as address, served(folder, address) as (url, process):
        direct = load(address, given, args.clients, short, process)
        print(f"{args.clients} clients, no Aligner:", report(direct))
        alone = load(url, wanted, 1, short, process)
        print("one client:", report(alone))
        many = load(url, wanted, args.clients, args.minutes, process)
        print(f"{args.clients} clients:", report(many))
    print(f"throughput: {many['per_second'] / alone['per_second']:.1f} times")
    added = {name: many[name] - direct[name] for name in ("p50", "p95")}
    print("added latency:", report(added))


def town_answers() -> dict[str, str]:
    """What Tinytown's upstream answers, by question."""
    questions = recordings.asked()["seen"][:QUESTIONS]
    return dict(zip(questions, recordings.recorded_answers("mixed")(questions), strict=True))


def everyday_answers() -> dict[str, str]:
    return {row.question: row.answer for row in read_qac(rows_file("test")).rows[:QUESTIONS]}


@contextmanager
def served(folder: Path, address: str) -> Iterator[tuple[str, psutil.Process]]:
    """An Aligner in front of an upstream, in a process of its own."""
    command = [sys.executable, "-m", "alignlib", "serve", "--aligner", str(folder)]
    command += ["--upstream", address, "--model", "town", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = process.stdout.readline()
    print(said.strip())
    try:
        yield said.split()[2], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def load(
    url: str, wanted: Mapping[str, str], clients: int, minutes: float, process: psutil.Process
) -> dict[str, Any]:
    """Ask for some minutes with so many clients; times in seconds, memory in MB each minute."""
    until = time.monotonic() + 60 * minutes
    counts: Counter[str] = Counter()
    seconds: list[float] = []
    memory = [process.memory_info().rss]

    def ask(first: int) -> None:
        client = OpenAI(api_key="x", base_url=url, http_client=DefaultHttpxClient(trust_env=False))
        order = list(wanted)[first:] + list(wanted)[:first]
        for question in itertools.cycle(order):
            if time.monotonic() > until:
                return
            started = time.monotonic()
            counts[outcome(client, question, wanted[question])] += 1
            seconds.append(time.monotonic() - started)

    with ThreadPoolExecutor(clients) as pool:
        done = [pool.submit(ask, i * len(wanted) // clients) for i in range(clients)]
        while time.monotonic() < until:
            time.sleep(min(60, max(0.1, until - time.monotonic())))
            memory.append(process.memory_info().rss)
        for future in done:
            future.result()
    p50, p95 = np.percentile(seconds, [50, 95])
    per_second = len(seconds) / (60 * minutes)
    sizes = [round(size / 2**20) for size in memory]
    return {"p50": p50, "p95": p95, "per_second": per_second, **counts, "memory": sizes}


def outcome(client: OpenAI, question: str, wanted: str) -> str:
    """Whether an answer is right, or what went wrong with it."""
    try:
        messages = [{"role": "user", "content": question}]
        reply = client.chat.completions.create(model="town", messages=messages)
    except Exception as error:
        return f"lost: {type(error).__name__}"
    return "right" if reply.choices[0].message.content == wanted else "not this question's answer"


def report(found: Mapping[str, Any]) -> str:
    rounded = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in found.items()}
    return ", ".join(f"{name} {value}" for name, value in rounded.items())


if __name__ == "__main__":
    main()
