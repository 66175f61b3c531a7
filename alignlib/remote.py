"""A model behind a server that speaks OpenAI's protocol, as an upstream or an annotator."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import ssl
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from .calls import call_key, read_calls, write_call
from .replies import (
    NO_COMPLETION,
    OPTIONAL,
    NoCompletion,
    Refusal,
    Reply,
    error_text,
    needs_user,
    read_reply,
    refused_setting,
    renamed,
)
from .texts import whole_characters
from .upstream import UpstreamError

if TYPE_CHECKING:
    import openai
    from openai import OpenAI

OPENAI_HOST = "api.openai.com"
OPENAI = f"https://{OPENAI_HOST}/v1"


LONGEST_MESSAGE = 156  # characters of a server's message


@dataclass
class Server:
    """A model behind OpenAI's protocol; every answer is kept on disk and not asked for again.

    The key in OPENAI_API_KEY is sent to api.openai.com alone, over https. For any other host, name
    the environment variable of its key as `key_variable`; without it no key is sent.
    The client repeats requests that fail temporarily (time-outs, cut connections, 408, 409, 429
    and 5xx) up to `retries` times. An answer that is lost on its way or that takes longer than
    `timeout` may be charged each time. Answers are kept as they arrive, also if the rest is
    stopped or fails. A setting that the server refuses (seed, temperature, the name of max_tokens)
    is left out from then on, with a note. `told` counts answers that are empty, over-long,
    refused or unfinished; reasoning before an answer is taken off.
    Raises UpstreamError if questions stay without an answer; with `refused_as_empty` not for single
    ones that the server refuses, whose answer is then empty.
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
    refused_as_empty: bool = False
    kept_as: str | None = None  # the name to cache answers under, where the base_url changes
    left_out: set[str] = field(default_factory=set)  # settings that the server refuses
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
        check_variable(self.key_variable)

    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]:
        keys = {q: call_key([*self._settings, seed, q]) for q in questions}
        known = read_calls(keys.values())
        missing = [q for q, key in keys.items() if key not in known]
        refused = self._ask_all(missing, keys, seed) if missing else {}
        known |= read_calls(keys[q] for q in missing)
        none = {q: {"answer": "", "told": reason} for q, reason in refused.items()}
        cached = {q: none[q] if q in none else known[key] for q, key in keys.items()}
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

    @property
    def identity(self) -> str:
        """All that an answer depends on, besides question and seed."""
        return json.dumps(self._settings)

    @property
    def _settings(self) -> list[object]:
        temperature = None if self.temperature is None else float(self.temperature)
        where = self.kept_as or self._url
        return [where, self.model, self.system, temperature, self.max_tokens]

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
        return read_key(variable)

    def _client(self) -> OpenAI:
        from openai import DefaultHttpxClient, OpenAI

        key = self._key() or "none"  # the client insists on one
        direct = {}
        if is_loopback(self._host):  # which a proxy cannot reach
            direct["http_client"] = DefaultHttpxClient(trust_env=False)
        retrying = {"timeout": self.timeout, "max_retries": self.retries}
        return OpenAI(api_key=key, base_url=self._url, **retrying, **direct)

    def _ask_all(self, questions: Sequence[str], keys: dict[str, str], seed: int) -> dict[str, str]:
        """Ask all questions, `concurrency` at a time; those refused for themselves, and why.

        Raises UpstreamError for any failure that may not stay without an answer.
        """
        failed: dict[str, _Failure] = {}
        in_a_row = 0  # failures that do not depend on the question
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as pool:
            create = client.chat.completions.create
            try:
                running = {pool.submit(self._ask, create, q, keys[q], seed): q for q in questions}
                silent = not self.progress
                replies = tqdm(as_completed(running), self.model, len(running), disable=silent)
                for asked, done in enumerate(replies, 1):
                    self.calls += 1
                    if failure := done.result():
                        failed[running[done]] = failure
                    in_a_row = in_a_row + 1 if failure and failure.affects_all else 0
                    if in_a_row == self.concurrency:  # nor will the others be answered
                        client.close()
                        break
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        alone = not any(failure.affects_all for failure in failed.values())
        if self.refused_as_empty and alone and len(failed) < len(keys):
            return {question: failure.reason for question, failure in failed.items()}
        if failed:
            question, failure = next(iter(failed.items()))
            raise UpstreamError(
                f"{self.model} at {self._host}: {failure.reason}, at the question "
                f"{question[-60:]!r}; "
                f"{len(failed)} of the {asked} asked have no answer. Run it again: those that "
                "have one are kept"
            )
        return {}

    def _ask(self, create: Callable, question: str, key: str, seed: int) -> _Failure | None:
        """Ask one question and keep the answer, or return why there is none."""
        import openai

        for attempt in range(self.retries + 1):
            try:
                reply = self._reply(create, self._request(question, seed))
            except openai.APIError as error:
                return self._failure(error)
            except NoCompletion as error:
                return _Failure(str(error))
            except (AttributeError, TypeError, ValueError):
                return _Failure(NO_COMPLETION)
            if isinstance(reply, Reply):
                row = {"question": question, "answer": reply.answer, "told": reply.problem}
                write_call(key, row)
                return None
            if reply.needs_user:
                what = f"refused, with status 200 ({self._masked(reply.message)})"
                raise UpstreamError(f"{self.model} at {self._host}: {what}; mend that first")
            if not reply.passes:
                break
            time.sleep(min(0.5 * 2**attempt, 8.0) if attempt < self.retries else 0)
        return _Failure(f"refused, with status 200 ({self._masked(reply.message)})", reply.passes)

    def _reply(self, create: Callable, request: dict[str, object]) -> Reply | Refusal:
        """The server's reply, without those settings that it refuses."""
        import openai

        refused: set[str] = set()
        while True:
            try:
                reply = read_reply(create(**request), self.max_tokens)
                for name in sorted(refused):  # now it is known that these were in the way
                    self._leave_out(name)
                return reply
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                name = refused_setting(error, request)
                if name is None or OPTIONAL[name] in refused:  # as it was named before: no use
                    raise
                refused.add(name)
                request = renamed(request, {name})

    def _leave_out(self, name: str) -> None:
        """Send this setting no more, and say so once."""
        if name not in self.left_out:
            self.left_out.add(name)
            instead = f"; sent as {OPTIONAL[name]}" if OPTIONAL[name] else ""
            what = f"the server refuses the setting {name!r}, which is left out{instead}"
            warnings.warn(f"{self.model}: {what}", stacklevel=2)

    def _request(self, question: str, seed: int) -> dict[str, object]:
        """The arguments of one chat completion."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        question = whole_characters(question)  # half of one cannot be sent
        limit = "max_completion_tokens" if self._url == OPENAI else "max_tokens"
        request = {
            "model": self.model,
            "messages": [*system, {"role": "user", "content": question}],
            "seed": seed,
            limit: self.max_tokens,
        }
        if self.temperature is not None:
            request["temperature"] = self.temperature
        return renamed(request, self.left_out)

    def _failure(self, error: openai.APIError) -> _Failure:
        """What the error means. Raises UpstreamError where only a change by the user helps."""
        import openai

        if isinstance(error, openai.AuthenticationError):
            raise UpstreamError(f"{self.model} at {self._host}: {self._key_refused()}") from None
        if isinstance(error, openai.NotFoundError):
            raise UpstreamError(
                f"{self.model} at {self._host}: not found{self._message(error)}; check the model's "
                "name, and the end of base_url (often /v1)"
            ) from None
        if isinstance(error, openai.APITimeoutError):
            return _Failure(f"silent for {self.timeout:g} s (raise `timeout`?)")
        if isinstance(error, openai.APIConnectionError):
            return _Failure(_connection_problem(error))
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            about = f"{error.code} {error.type} {error.message} {error_text(error.body)}"
            if status == 402 or (status != 403 and needs_user(0, about)):
                what = f"the account's budget is used up{self._message(error)}"
                raise UpstreamError(f"{self.model} at {self._host}: {what}; top it up") from None
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
        message = error_text(error.body)
        return f" ({self._masked(message)})" if message else ""

    def _masked(self, message: str) -> str:
        """A message of the server, without the key in it, and then shortened."""
        key = os.environ.get(self._key_variable or "", "").strip()
        return (message.replace(key, "***") if key else message)[:LONGEST_MESSAGE]


def check_variable(name: str | None) -> None:
    """Raises UpstreamError for a key where the name of its variable should be; it is not shown."""
    if name and not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
        raise UpstreamError(
            "key_variable is no name of an environment variable; put the key into one, "
            "and write its name here"
        )


def read_key(variable: str) -> str:
    """The key in an environment variable. Raises UpstreamError if it is missing or no key."""
    check_variable(variable)
    key = os.environ.get(variable, "").strip()
    if not key:
        how = f"set the environment variable {variable} to it before you start"
        raise UpstreamError(f"no API key: {how}")
    if not key.isascii():
        why = f"the API key in {variable} holds letters that no key has"
        raise UpstreamError(f"{why}; copy it again")
    return key


def named_server(name: str, **settings: Any) -> Server | None:
    """The server that NAME@http://host/v1 stands for; None if the name is of another form."""
    model, at, url = name.rpartition("@")
    return Server(model, url, **settings) if at and url.startswith("http") else None


@dataclass(frozen=True)
class _Failure:
    """Why a question has no answer; `affects_all` if any other question would have failed too."""

    reason: str
    affects_all: bool = True


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: also 0.0.0.0, the address that servers print."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _connection_problem(error: BaseException) -> str:
    """Why there is no connection: mostly nobody listens, sometimes its certificate is unknown."""
    cause: BaseException | None = error
    while cause is not None:
        certificate = isinstance(cause, ssl.SSLCertVerificationError)
        if certificate or "CERTIFICATE_VERIFY_FAILED" in str(cause):
            why = getattr(cause, "verify_message", "") or "it cannot be verified"
            fix = "set SSL_CERT_FILE to the certificate of whoever signed it"
            return f"its certificate is not trusted ({why}); {fix}"
        if "WRONG_VERSION_NUMBER" in str(cause):
            return "it speaks no https (write base_url with http://)"
        cause = cause.__cause__ or cause.__context__
    return "no connection (is it running, and is base_url right?)"
