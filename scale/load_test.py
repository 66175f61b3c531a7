"""Many clients at once against `python -m alignlib serve`: is an answer lost, doubled or mixed up?

    python scale/load_test.py --clients 64 --minutes 10

starts Tinytown's upstream as a server that fails one time in ten, Tinytown's Aligner in front of
it, and clients of the `openai` package. Every answer is compared with the one that the same
Aligner gives without a server.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import psutil
from openai import DefaultHttpxClient, OpenAI

from alignlib import Aligner
from alignlib.course.server import Handler, serving
from alignlib.profiles import data_folder
from alignlib.tinytown import recordings

PORT = 8471
QUESTIONS = 400


class OneInTenFails(Handler):
    """An upstream whose every tenth request fails."""

    lock, asked = threading.Lock(), itertools.count()

    def do_POST(self) -> None:
        with self.lock:
            fails = next(self.asked) % 10 == 9
        if not fails:
            return super().do_POST()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(503, {"error": {"message": "overloaded"}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10.0)
    args = parser.parse_args()
    answers = recordings.recorded_answers("mixed")
    questions = recordings.asked()["seen"][:QUESTIONS]
    wanted = dict(zip(questions, known_corrections(questions, answers(questions)), strict=True))
    upstream = lambda asked, seed=0: answers(asked)  # noqa: E731
    with serving(upstream, "town", OneInTenFails) as address, served(address) as (url, process):
        alone = load(url, wanted, 1, min(1.0, args.minutes), process)
        print("one client: ", report(alone))
        many = load(url, wanted, args.clients, args.minutes, process)
        print(f"{args.clients} clients:", report(many))
        print(f"throughput: {many['per_second'] / alone['per_second']:.1f} times")


def known_corrections(questions: list[str], answers: list[str]) -> list[str]:
    aligner = Aligner.from_pretrained(data_folder() / "aligner")
    return aligner.correct(questions, answers)


@contextmanager
def served(address: str) -> Iterator[tuple[str, psutil.Process]]:
    """Tinytown's Aligner in front of an upstream, in a process of its own."""
    folder = str(data_folder() / "aligner")
    command = [sys.executable, "-m", "alignlib", "serve", "--aligner", folder]
    command += ["--upstream", address, "--model", "town", "--port", str(PORT)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    print(process.stdout.readline().strip())
    time.sleep(1)  # until it listens
    try:
        yield f"http://127.0.0.1:{PORT}/v1", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def load(
    url: str, wanted: Mapping[str, str], clients: int, minutes: float, process: psutil.Process
) -> dict[str, float]:
    """Ask for some minutes with so many clients; times in seconds, memory in MB."""
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
            time.sleep(min(10, max(0.1, until - time.monotonic())))
            memory.append(process.memory_info().rss)
        for future in done:
            future.result()
    p50, p95 = np.percentile(seconds, [50, 95])
    size = {
        "memory_start": memory[min(1, len(memory) - 1)] / 2**20,
        "memory_end": memory[-1] / 2**20,
    }
    per_second = len(seconds) / (60 * minutes)
    return {"p50": p50, "p95": p95, "per_second": per_second} | size | counts


def outcome(client: OpenAI, question: str, wanted: str) -> str:
    """Whether an answer is right, or what went wrong with it."""
    try:
        messages = [{"role": "user", "content": question}]
        reply = client.chat.completions.create(model="town", messages=messages)
    except Exception as error:
        return f"lost: {type(error).__name__}"
    return "right" if reply.choices[0].message.content == wanted else "not this question's answer"


def report(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in found.items())


if __name__ == "__main__":
    main()
