"""Upstream models: anything that answers questions. An Aligner needs only their text (lesson 03).

Each is called with questions and a seed, and gives as many answers, in order: a model on this
machine, answers recorded in a file, or a model behind a server that speaks OpenAI's protocol.
"""

from __future__ import annotations

import hashlib
import ipaddress
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

from .host import cache_folder
from .records import read_records

if TYPE_CHECKING:
    import openai
    from openai import OpenAI


OPENAI_HOST = "api.openai.com"
OPENAI = f"https://{OPENAI_HOST}/v1"
NO_COMPLETION = "the reply is no chat completion (check base_url; it often ends with /v1)"


class UpstreamError(ValueError):
    """An upstream that gives no answer; the message says which, and what to do."""


class Upstream(Protocol):
    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]: ...


@dataclass
class Local:
    """A causal LM, asked in its own chat format if it has one; greedy at temperature 0."""

    model: str | Path  # folder or hub id
    prompt: str = "{question} answer :"  # of a model without a chat format
    temperature: float = 0.0
    max_new_tokens: int = 100
    progress: str | None = None
    problems: dict[str, str] = field(default_factory=dict)  # of the last call, by question

    @cached_property
    def _loaded(self):
        from .models import load_model

        return load_model(self.model)

    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]:
        from .generation import sample
        from .tokens import encode

        model, tokenizer = self._loaded
        if tokenizer.chat_template:
            turns = [[{"role": "user", "content": q}] for q in questions]
            chat = {"tokenize": False, "add_generation_prompt": True}
            prompts = tokenizer.apply_chat_template(turns, **chat)
            bos = tokenizer.bos_token or ""  # `encode` adds it again
            prompts = [p.removeprefix(bos) for p in prompts]
        else:
            prompts = [self.prompt.format(question=q) for q in questions]
        settings = {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature}
        settings |= {"seed": seed, "progress": self.progress}
        found = sample(model, tokenizer, [encode(tokenizer, p) for p in prompts], **settings)
        cut = (ids[-1:] != [tokenizer.eos_token_id] for ids in found)
        self.problems = {q: "unfinished" for q, is_cut in zip(questions, cut) if is_cut}
        return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in found]


@dataclass(frozen=True)
class Recorded:
    """Answers by question, of a model out of reach; `source` is named when one is missing."""

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
            known = row if isinstance(row, dict) else {}
            if not all(isinstance(known.get(key), str) for key in ("question", "answer")):
                what = "no text under 'question' and 'answer'; write both, or delete the row"
                raise UpstreamError(f"{path}, line {line}: {what}")
            if found.setdefault(row["question"], row["answer"]) != row["answer"]:
                what = "a second answer to a question answered before; keep one of them"
                raise UpstreamError(f"{path}, line {line}: {what}")
        return cls(found, str(path))


@dataclass
class Server:
    """A model behind OpenAI's protocol; every answer is cached on disk and not asked for again.

    The key in OPENAI_API_KEY is sent to api.openai.com alone, over https. For any other host, name
    the environment variable of its key as `key_variable`; without it no key is sent.
    The client repeats requests that fail for the moment (time-outs, cut connections, 408, 409, 429
    and 5xx) up to `retries` times. An answer that is lost on its way or that takes longer than
    `timeout` may be charged each time. Answers are cached as they arrive, also if the rest is
    stopped or fails. `told` counts those that are empty, over-long or unfinished.
    Raises UpstreamError if questions stay without an answer.
    """

    model: str
    base_url: str | None = None  # None: OPENAI_BASE_URL, or OpenAI's own
    key_variable: str | None = None  # the name of the variable, never the key itself
    system: str = ""
    temperature: float | None = 0.0  # None: not sent, for models that refuse it
    max_tokens: int = 256
    concurrency: int = 16
    timeout: float = 60.0  # seconds of silence
    retries: int = 5
    progress: bool = True
    kept_as: str | None = None  # the name to cache answers under, where the base_url changes
    calls: int = 0  # questions that this object has had to ask for
    told: Counter[str] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)  # of the last call, by question

    def __post_init__(self) -> None:
        self._url = (self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        self._host = urlsplit(self._url).hostname
        if not self._url.startswith(("http://", "https://")) or not self._host:
            raise UpstreamError(
                f"base_url {self.base_url!r} is no address; write it with http:// or https://"
            )
        if self.key_variable and not re.fullmatch("[A-Z_][A-Z0-9_]*", self.key_variable):
            raise UpstreamError(
                "key_variable is no name of an environment variable; put the key into one, "
                "and write its name here"
            )

    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]:
        places = {q: self._place(q, seed) for q in questions}
        missing = [q for q, place in places.items() if not _read_cached(place)]
        if missing:
            self._ask_all(missing, places, seed)
        cached = {q: _read_cached(place) for q, place in places.items()}
        self.problems = {q: row["told"] for q, row in cached.items() if row["told"]}
        self.told = Counter(self.problems.values())
        if missing and self.told:
            problems = ", ".join(f"{n} {problem}" for problem, n in self.told.items())
            warnings.warn(
                f"{self.model}: of {len(cached)} answers {problems}; they are kept (another seed "
                "or max_tokens asks anew)",
                stacklevel=2,
            )
        return [cached[q]["answer"] for q in questions]

    def _place(self, question: str, seed: int) -> Path:
        """The cache file of an answer, named by all that the answer may depend on."""
        temperature = None if self.temperature is None else float(self.temperature)
        where = self.kept_as or self._url
        settings = [where, self.model, self.system, temperature, self.max_tokens, seed, question]
        digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        return cache_folder() / "calls" / f"{digest[:32]}.json"

    @property
    def _key_variable(self) -> str | None:
        """The environment variable of the key, or None if this host is sent no key."""
        is_openai = self._host == OPENAI_HOST and self._url.startswith("https://")
        return self.key_variable or ("OPENAI_API_KEY" if is_openai else None)

    def _key(self) -> str:
        """The key to send, "" for none. Raises UpstreamError if it is missing or no key at all."""
        variable = self._key_variable
        if variable is None:
            return ""
        key = os.environ.get(variable, "").strip()
        if not key:
            how = f"set the environment variable {variable} to it before you start"
            raise UpstreamError(f"no API key: {how}")
        if not key.isascii():
            why = f"the API key in {variable} holds letters that no key has"
            raise UpstreamError(f"{why}; copy it again")
        return key

    def _client(self) -> OpenAI:
        from openai import DefaultHttpxClient, OpenAI

        key = self._key() or "none"  # the client insists on one
        direct = {}
        if _is_loopback(self._host):  # which a proxy cannot reach
            direct["http_client"] = DefaultHttpxClient(trust_env=False)
        retrying = {"timeout": self.timeout, "max_retries": self.retries}
        return OpenAI(api_key=key, base_url=self._url, **retrying, **direct)

    def _ask_all(self, questions: Sequence[str], places: dict[str, Path], seed: int) -> None:
        """Ask all questions, `concurrency` at a time. Raises UpstreamError if any has no answer."""
        next(iter(places.values())).parent.mkdir(parents=True, exist_ok=True)
        failed: dict[str, str] = {}
        in_a_row = 0  # failures that do not depend on the question
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as pool:
            create = client.chat.completions.create
            try:
                running = {pool.submit(self._ask, create, q, places[q], seed): q for q in questions}
                silent = not self.progress
                replies = tqdm(as_completed(running), self.model, len(running), disable=silent)
                for asked, done in enumerate(replies, 1):
                    self.calls += 1
                    if failure := done.result():
                        failed[running[done]] = failure.reason
                    in_a_row = in_a_row + 1 if failure and failure.affects_all else 0
                    if in_a_row == self.concurrency:  # nor will the others be answered
                        client.close()
                        break
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        if failed:
            question, reason = next(iter(failed.items()))
            raise UpstreamError(
                f"{self.model} at {self._host}: {reason}, at the question {question[-60:]!r}; "
                f"{len(failed)} of the {asked} asked have no answer. Run it again: those that "
                "have one are kept"
            )

    def _ask(self, create: Callable, question: str, place: Path, seed: int) -> _Failure | None:
        """Ask one question and cache the answer, or return why there is none."""
        import openai

        try:
            completion = create(**self._request(question, seed))
            [choice] = completion.choices
            answer, finish_reason = (choice.message.content or "").strip(), choice.finish_reason
        except openai.APIError as error:
            return self._failure(error)
        except (AttributeError, TypeError, ValueError):
            return _Failure(NO_COMPLETION)
        problem = _problem(answer, finish_reason, self.max_tokens)
        _write_cached(place, {"question": question, "answer": answer, "told": problem})
        return None

    def _request(self, question: str, seed: int) -> dict[str, object]:
        """The arguments of one chat completion."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        limit = "max_completion_tokens" if self._url == OPENAI else "max_tokens"
        request = {
            "model": self.model,
            "messages": [*system, {"role": "user", "content": question}],
            "seed": seed,
            limit: self.max_tokens,
        }
        if self.temperature is not None:
            request["temperature"] = self.temperature
        return request

    def _failure(self, error: openai.APIError) -> _Failure:
        """What the error means. Raises UpstreamError where only a change by the user helps."""
        import openai

        if isinstance(error, openai.AuthenticationError):
            raise UpstreamError(f"{self.model} at {self._host}: {self._key_refused()}") from None
        if isinstance(error, openai.NotFoundError):
            raise UpstreamError(
                f"{self.model} at {self._host}: not found; check the model's name, and the "
                "end of base_url (often /v1)"
            ) from None
        if isinstance(error, openai.APITimeoutError):
            return _Failure(f"silent for {self.timeout:g} s (raise `timeout`?)")
        if isinstance(error, openai.APIConnectionError):
            return _Failure("no connection (is it running, and is base_url right?)")
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            affects_all = status in (403, 408, 409, 429) or status >= 500
            return _Failure(f"refused with status {status}{self._message(error)}", affects_all)
        return _Failure(NO_COMPLETION)

    def _key_refused(self) -> str:
        """What to do about status 401."""
        if self._key_variable:
            return f"the key in {self._key_variable} was refused"
        return (
            "it asks for a key and was sent none; put the key into an environment variable "
            "and name that, such as key_variable='MY_KEY'"
        )

    def _message(self, error: openai.APIStatusError) -> str:
        """The server's own message, shortened, and never with the key in it."""
        message = error.body.get("message") if isinstance(error.body, dict) else None
        if not message:
            return ""
        key = os.environ.get(self._key_variable or "", "").strip()
        return f" ({str(message).replace(key, '***') if key else message})"[:160]


@dataclass(frozen=True)
class _Failure:
    """Why a question has no answer; `affects_all` if any other question would have failed too."""

    reason: str
    affects_all: bool = True


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine: also 0.0.0.0, the address that servers print."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _problem(answer: str, finish_reason: str, max_tokens: int) -> str:
    """What is wrong with an answer, "" for nothing."""
    if not answer:
        return "empty"
    if finish_reason != "stop":
        return f"unfinished: {finish_reason}"
    return "over-long" if len(answer.split()) > max_tokens else ""  # a word is at least a token


def _write_cached(place: Path, row: dict[str, str]) -> None:
    part = place.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
    part.write_text(json.dumps(row), encoding="utf-8")
    os.replace(part, place)


def _read_cached(place: Path) -> dict[str, str] | None:
    """A cached answer, or None; a file that a power cut left empty counts as none."""
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
