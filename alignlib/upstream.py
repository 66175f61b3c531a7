"""Upstream models: anything that answers questions (lesson 03). An Aligner needs their text and
nothing else.

Each is called with questions and a seed, and gives as many answers, in order: a model on this
machine, answers recorded in a file, or a model behind a server that speaks OpenAI's protocol.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from tqdm import tqdm

from .artefacts import cache_folder
from .records import read_records

if TYPE_CHECKING:
    import openai
    from openai import OpenAI


OPENAI = "https://api.openai.com/v1"


class UpstreamError(ValueError):
    """An upstream that gives no answer; the message says which, and what to do."""


class Upstream(Protocol):
    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]: ...


@dataclass
class Local:
    """A causal LM from a folder or the hub, asked in its own chat format if it has one; greedy
    at temperature 0.
    """

    model: str | Path
    prompt: str = "{question} answer :"  # of a model without a chat format
    temperature: float = 0.0
    max_new_tokens: int = 100
    progress: str | None = None

    @cached_property
    def _loaded(self):
        from .models import load_model

        return load_model(self.model)

    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]:
        from .generation import generate

        model, tokenizer = self._loaded
        if tokenizer.chat_template:
            turns = [[{"role": "user", "content": q}] for q in questions]
            prompts = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True
            )
            prompts = [
                p.removeprefix(tokenizer.bos_token or "") for p in prompts
            ]  # which `generate` puts there again
        else:
            prompts = [self.prompt.format(question=q) for q in questions]
        settings = dict(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=seed,
            progress=self.progress,
        )
        return generate(model, tokenizer, prompts, **settings)


@dataclass(frozen=True)
class Recorded:
    """Answers by question, as somebody was given them by a model that is out of reach. `source`
    is named when one is missing.
    """

    answers: Mapping[str, str]
    source: str = "these answers"

    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]:
        missing = [q for q in questions if q not in self.answers]
        if missing:
            raise UpstreamError(
                f"{self.source}: no answer to {len(missing)} of {len(questions)} questions, "
                f"such as {missing[0][-80:]!r}; record them too"
            )
        return [self.answers[q] for q in questions]

    @classmethod
    def read(cls, path: str | Path) -> Recorded:
        """From a file with rows {question, answer}: a JSON list or JSON lines, gzipped or not."""
        found = {}
        for line, row in read_records(Path(path)):
            if not isinstance(row, dict) or not all(
                isinstance(row.get(k), str) for k in ("question", "answer")
            ):
                raise UpstreamError(
                    f"{path}, line {line}: no text under 'question' and 'answer'; write both, "
                    "or delete the row"
                )
            if found.setdefault(row["question"], row["answer"]) != row["answer"]:
                raise UpstreamError(
                    f"{path}, line {line}: a second answer to a question answered before; "
                    "keep one of them"
                )
        return cls(found, str(path))


@dataclass
class Server:
    """A model behind OpenAI's protocol, asked through the `openai` client; every answer is kept on
    disk and not asked for again.

    A server on this machine needs no key, and is not sent OpenAI's. What fails in passing
    (time-outs, cut connections, 408, 409, 429 and 5xx) the client tries again, `retries` times: an
    answer that is lost on its way back, or that takes longer than `timeout`, may be paid each time.
    Answers are kept as they come in, also if the rest is stopped or fails. `told` counts those that
    came back empty, over-long or unfinished. Raises UpstreamError if questions stay without an
    answer.
    """

    model: str
    base_url: str | None = None  # None: OPENAI_BASE_URL, or OpenAI's own
    key_variable: str = (
        "OPENAI_API_KEY"  # the environment variable that holds the key, never the key itself
    )
    system: str = ""
    temperature: float = 0.0
    max_tokens: int = 256
    concurrency: int = 16
    timeout: float = 60.0  # seconds of silence
    retries: int = 5
    progress: bool = True
    kept_as: str | None = None  # the name to keep answers under, where the base_url changes
    calls: int = 0  # questions that this object has had to ask for
    told: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._url = (self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        self._host = urlsplit(self._url).hostname
        if not self._url.startswith(("http://", "https://")) or not self._host:
            raise UpstreamError(
                f"base_url {self.base_url!r} is no address; write it with http:// or https://"
            )
        if not re.fullmatch("[A-Z_][A-Z0-9_]*", self.key_variable):
            raise UpstreamError(
                "key_variable is no name of an environment variable; put the key into one, "
                "and write its name here"
            )

    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]:
        places = {q: self._place(q, seed) for q in questions}
        todo = [q for q, place in places.items() if not _kept(place)]
        if todo:
            self._ask_all(todo, places, seed)
        kept = {q: _kept(place) for q, place in places.items()}
        self.told = Counter(row["told"] for row in kept.values() if row["told"])
        if todo and self.told:
            about = ", ".join(f"{n} {why}" for why, n in self.told.items())
            warnings.warn(
                f"{self.model}: of {len(kept)} answers {about}; they are kept (another seed "
                "or max_tokens asks anew)",
                stacklevel=2,
            )
        return [kept[q]["answer"] for q in questions]

    def _place(self, question: str, seed: int) -> Path:
        """Where the answer is kept: by all that it may depend on."""
        asked = [
            self.kept_as or self._url,
            self.model,
            self.system,
            float(self.temperature),
            self.max_tokens,
            seed,
            question,
        ]
        return (
            cache_folder()
            / "calls"
            / f"{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]}.json"
        )

    def _client(self) -> OpenAI:
        from openai import DefaultHttpxClient, OpenAI

        here = self._host in ("localhost", "127.0.0.1", "::1")
        key = (
            ""
            if here and self.key_variable == "OPENAI_API_KEY"
            else os.environ.get(self.key_variable, "").strip()
        )
        if not key and not here:
            raise UpstreamError(
                f"no API key: set the environment variable {self.key_variable} to it before "
                "you start"
            )
        if not key.isascii():
            raise UpstreamError(
                f"the API key in {self.key_variable} holds letters that no key has; copy it again"
            )
        direct = (
            {"http_client": DefaultHttpxClient(trust_env=False)} if here else {}
        )  # a proxy knows no loopback
        return OpenAI(
            api_key=key or "none",
            base_url=self._url,
            timeout=self.timeout,
            max_retries=self.retries,
            **direct,
        )

    def _ask_all(self, questions: Sequence[str], places: dict[str, Path], seed: int) -> None:
        next(iter(places.values())).parent.mkdir(parents=True, exist_ok=True)
        failed: dict[str, str] = {}
        in_a_row = 0  # failures that do not depend on the question
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as pool:
            create = client.chat.completions.create
            try:
                running = {pool.submit(self._ask, create, q, places[q], seed): q for q in questions}
                for n, done in enumerate(
                    tqdm(
                        as_completed(running),
                        total=len(running),
                        desc=self.model,
                        disable=not self.progress,
                    ),
                    1,
                ):
                    self.calls += 1
                    if failure := done.result():
                        failed[running[done]] = failure.why
                    in_a_row = in_a_row + 1 if failure and failure.everybodys else 0
                    if in_a_row == self.concurrency:  # nor will the others be answered
                        client.close()
                        break
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        if failed:
            question, why = next(iter(failed.items()))
            raise UpstreamError(
                f"{self.model} at {self._host}: {why}, at the question {question[-60:]!r}; "
                f"{len(failed)} of the {n} asked "
                "have no answer. Run it again: those that have one are kept"
            )

    def _ask(self, create: Callable, question: str, place: Path, seed: int) -> _Failure | None:
        """Ask, and keep the answer; or say why there is none. Raises UpstreamError where nothing
        but a change by the user helps.
        """
        import openai

        turns = [{"role": "system", "content": self.system}] if self.system else []
        limit = {"max_completion_tokens" if self._url == OPENAI else "max_tokens": self.max_tokens}
        try:
            reply = create(
                model=self.model,
                messages=[*turns, {"role": "user", "content": question}],
                temperature=self.temperature,
                seed=seed,
                **limit,
            )
            [choice] = reply.choices
            said, why = (choice.message.content or "").strip(), choice.finish_reason
        except openai.AuthenticationError:
            raise UpstreamError(
                f"{self.model} at {self._host}: the key in {self.key_variable} was refused"
            ) from None
        except openai.NotFoundError:
            raise UpstreamError(
                f"{self.model} at {self._host}: not found; check the model's name, and the "
                "end of base_url (often /v1)"
            ) from None
        except openai.APITimeoutError:
            return _Failure(f"silent for {self.timeout:g} s (raise `timeout`?)")
        except openai.APIConnectionError:
            return _Failure("no connection (is it running, and is base_url right?)")
        except openai.APIStatusError as error:
            everybodys = error.status_code in (403, 408, 409, 429) or error.status_code >= 500
            return _Failure(
                f"refused with status {error.status_code}{self._reason(error)}", everybodys
            )
        except (AttributeError, TypeError, ValueError):
            return _Failure(
                "the reply is no chat completion (check base_url; it often ends with /v1)"
            )
        over = len(said.split()) > self.max_tokens  # a word is a token at least
        told = (
            "empty"
            if not said
            else f"unfinished: {why}"
            if why != "stop"
            else "over-long"
            if over
            else ""
        )
        _keep(place, {"question": question, "answer": said, "told": told})
        return None

    def _reason(self, error: openai.APIStatusError) -> str:
        """What the server said of it, shortened, and never the key."""
        said = error.body.get("message") if isinstance(error.body, dict) else None
        key = os.environ.get(self.key_variable, "").strip()
        return f" ({str(said).replace(key, '***') if key else said})"[:160] if said else ""


@dataclass(frozen=True)
class _Failure:
    """Why a question has no answer; `everybodys` if another question would have fared no better."""

    why: str
    everybodys: bool = True


def _keep(place: Path, row: dict[str, str]) -> None:
    part = place.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
    part.write_text(json.dumps(row), encoding="utf-8")
    os.replace(part, place)


def _kept(place: Path) -> dict[str, str] | None:
    """What was kept there; a file that a power cut left empty counts as none."""
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
