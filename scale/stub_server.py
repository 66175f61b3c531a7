"""A server with OpenAI's protocol whose every tenth request fails, for trying things at scale.

    python scale/stub_server.py --port 8472

answers a question at once, and corrects what it answered. It counts how often each was answered:
more than once would be paid for twice.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence

from alignlib.course.server import Handler, serving

NAME = "stub"
MARK = "\n\nAnswer: "  # in what `build-rows` asks an annotator


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


class Stub:
    """Answers rudely, and corrects that; `asked` counts, by request."""

    identity = NAME

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, requests: Sequence[str], *, seed: int = 0) -> list[str]:
        self.asked.update(requests)
        return [self.reply(request) for request in requests]

    @staticmethod
    def reply(request: str) -> str:
        _, is_task, answer = request.rpartition(MARK)
        return answer.removeprefix("Duh, ") if is_task else f"Duh, it is so: {request}"

    def summary(self) -> str:
        twice = sum(count > 1 for count in self.asked.values())
        return f"{len(self.asked)} requests answered, {twice} of them more than once"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8472)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stub = Stub()
    with serving(stub, NAME, OneInTenFails, parser.parse_args().port) as url:
        print(f"{NAME}@{url} (Ctrl+C stops it)", flush=True)
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            print(stub.summary())


if __name__ == "__main__":
    main()
