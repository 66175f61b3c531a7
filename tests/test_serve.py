"""An Aligner behind OpenAI's protocol: nothing is lost, mixed up or left hanging."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import openai
import pytest
from openai import DefaultHttpxClient, OpenAI

from alignlib.aligner import Aligner
from alignlib.course.cli import main
from alignlib.course.server import Handler, serving
from alignlib.data import QAC, read_qac
from alignlib.microbatches import MicroBatches
from alignlib.profiles import data_folder
from alignlib.relay import Asked
from alignlib.serve import BODY, Service, _question, listen, running
from alignlib.tinytown import sets


class Upper:
    """Corrects by writing in capitals, slowly, and notes how many answers came at once."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.batches = seconds, []

    def corrections(self, questions: Sequence[str], answers: Sequence[str]) -> list:
        self.batches.append(len(answers))
        time.sleep(self.seconds)
        if "poison" in questions:
            raise RuntimeError("a question that no model can read")
        return [SimpleNamespace(text=text.upper(), kept_because="") for text in answers]


def service_with(answer: Callable[[str], str] | None = None, **options: object) -> Service:
    """A service whose upstream answers by a function."""

    async def upstream(body: dict) -> dict:
        message = {"role": "assistant", "content": answer(body["messages"][-1]["content"])}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        return {"id": "1", "model": body["model"], "choices": [choice], "usage": usage}

    corrector = options.pop("corrector", Upper())
    return Service(MicroBatches(corrector), "town", upstream if answer else None, **options)


def client(url: str, **options: object) -> OpenAI:
    direct = DefaultHttpxClient(trust_env=False)
    return OpenAI(
        **{"api_key": "none", "max_retries": 0} | options, base_url=url, http_client=direct
    )


def ask(url: str, question: str = "who ?", **options: object):
    messages = [{"role": "user", "content": question}]
    request = {"model": "town", "messages": messages} | options
    return client(url).chat.completions.create(**request)


def health(url: str) -> dict:
    direct = httpx.get(url.removesuffix("/v1") + "/healthz", trust_env=False)
    return direct.json()


def status_of(request: Callable) -> tuple[int, str]:
    with pytest.raises(openai.APIStatusError) as error:
        request()
    return error.value.status_code, str(error.value)


# --- answers --------------------------------------------------------------------------------------


def test_a_client_gets_the_correction_and_on_request_the_original_or_no_correction() -> None:
    with running(service_with("ada is {}".format)) as url:
        assert ask(url).choices[0].message.content == "ADA IS WHO ?"
        message = ask(url, extra_body={"original": True}).choices[0].message
        assert (message.content, message.original) == ("ADA IS WHO ?", "ada is who ?")
        off = ask(url, extra_headers={"X-Aligner": "off"})
        assert off.choices[0].message.content == "ada is who ?"
        assert [model.id for model in client(url).models.list()] == ["town"]


def test_a_stream_carries_the_same_words_and_the_usage_if_asked_for() -> None:
    with running(service_with(lambda q: f"ada\n\n  is  {q} ")) as url:
        whole = ask(url).choices[0].message.content
        events = list(ask(url, stream=True, stream_options={"include_usage": True}))
    words = [e.choices[0].delta.content or "" for e in events if e.choices]
    assert "".join(words) == whole and len(words) > 4
    assert [e.choices[0].finish_reason for e in events if e.choices][-1] == "stop"
    assert events[-1].usage.total_tokens == 3


def test_half_a_character_is_replaced_and_a_proxy_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # where nobody listens
    half = json.loads(r'"ada \ud83d"')
    with serving(lambda questions, seed=0: [half]) as address:
        with running(Service(MicroBatches(Upper()), "town", Asked(address, retries=0))) as url:
            assert ask(url).choices[0].message.content == "ADA \ufffd"
            body = b'{"model": "town", "messages": [{"role": "user", "content": "\\ud83d"}]}'
            post = lambda: client(url).post("/chat/completions", cast_to=object, content=body)  # noqa: E731
            status, message = status_of(post)
            assert status == 400 and "half a character" in message


def test_what_is_no_text_stays_as_it_is() -> None:
    async def upstream(body: dict) -> dict:
        called = {"role": "assistant", "content": "let me see", "tool_calls": [{"id": "1"}]}
        messages = ({"role": "assistant", "content": None}, called)
        return {"choices": [{"index": i, "message": m} for i, m in enumerate(messages)]}

    service = Service(MicroBatches(Upper()), "town", upstream)
    picture = [{"type": "image_url", "image_url": {"url": "x"}}]
    with running(service) as url:
        found = client(url).post(
            "/chat/completions",
            cast_to=object,
            body={"model": "town", "messages": [{"role": "user", "content": picture}]},
        )
    assert [c["message"]["content"] for c in found["choices"]] == [None, "let me see"]
    assert service.counts == {"unchanged": 2}


def test_reasoning_before_an_answer_is_not_corrected() -> None:
    with running(service_with(lambda q: "<think>hm</think>the lamp")) as url:
        assert ask(url).choices[0].message.content == "THE LAMP"


def test_without_an_upstream_it_corrects_what_is_sent() -> None:
    service = service_with()
    with running(service) as url:
        post = client(url).post
        found = post("/corrections", cast_to=object, body={"question": "q", "answer": "a b"})
        assert found == {"correction": "A B"}
        status, message = status_of(lambda: ask(url))
        assert status == 404 and "--upstream" in message
        bad = lambda: post("/corrections", cast_to=object, body={"question": "q"})  # noqa: E731
        assert status_of(bad)[0] == 400


DIALOGUES = [
    [{"role": "user", "content": "who ?"}],
    [{"role": "system", "content": "be kind"}, {"role": "user", "content": "who ?"}],
    [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "who ?"},
        {"role": "assistant", "content": "ada"},
        {"role": "user", "content": [{"type": "text", "text": "sure ?"}]},
    ],
]


@pytest.mark.parametrize("messages", DIALOGUES)
def test_the_aligner_reads_a_dialogue_as_it_was_trained_on_one(messages: list, tmp_path) -> None:
    row = {"question": messages, "answer": "a", "correction": "b"}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row), encoding="utf-8")
    assert read_qac(file).rows[0].question == _question(messages)


# --- many at once ---------------------------------------------------------------------------------


def test_many_clients_share_batches_and_each_gets_its_own_answer() -> None:
    """While an upstream fails one time in ten, and is asked again."""
    failed = []

    class Failing(Handler):
        def do_POST(self) -> None:
            with lock:
                failed.append(len(failed) % 10 == 0)
                fails = failed[-1]
            if fails:
                self.rfile.read(int(self.headers["Content-Length"]))
                return self.reply(500, {"error": {"message": "overloaded"}})
            super().do_POST()

    lock, corrector = threading.Lock(), Upper(0.02)
    upstream = lambda questions, seed=0: [f"it is {q}" for q in questions]  # noqa: E731
    with serving(upstream, "town", Failing) as address:
        service = Service(MicroBatches(corrector), "town", Asked(address, retries=5))
        with running(service) as url, ThreadPoolExecutor(32) as pool:
            asker = client(url)
            messages = [[{"role": "user", "content": f"question {i}"}] for i in range(200)]
            create = lambda m: asker.chat.completions.create(model="town", messages=m)  # noqa: E731
            found = [r.choices[0].message.content for r in pool.map(create, messages)]
    assert found == [f"IT IS QUESTION {i}" for i in range(200)] and sum(failed) >= 20
    assert service.counts == {"corrected": 200} and service.under_way == 0
    assert len(corrector.batches) < 100 and max(corrector.batches) > 4


def test_one_answer_that_breaks_a_batch_leaves_the_others_corrected() -> None:
    async def scenario() -> list:
        batches = MicroBatches(Upper())
        jobs = [batches.correct(q, q) for q in ("a", "poison", "b")]
        worker = asyncio.create_task(batches.run())
        found = await asyncio.gather(*jobs, return_exceptions=True)
        worker.cancel()
        return found

    a, poison, b = asyncio.run(scenario())
    assert (a.text, b.text) == ("A", "B") and isinstance(poison, RuntimeError)


def test_more_requests_than_places_are_sent_away_and_told_when_to_come_again() -> None:
    service = service_with(lambda q: f"it is {q}", corrector=Upper(0.3), places=2)
    with running(service) as url, ThreadPoolExecutor(3) as pool:
        under_way = [pool.submit(ask, url) for _ in range(2)]
        while service.under_way < 2:
            time.sleep(0.01)
        with pytest.raises(openai.InternalServerError) as error:
            ask(url)
        assert error.value.status_code == 503 and error.value.response.headers["retry-after"] == "1"
        assert [f.result().choices[0].message.content for f in under_way] == ["IT IS WHO ?"] * 2


def test_a_client_that_hangs_up_frees_its_place_and_its_answer_is_not_corrected() -> None:
    corrector = Upper(0.3)
    service = service_with(lambda q: f"it is {q}", corrector=corrector)
    with running(service) as url:
        for _ in range(3):  # the first is being corrected, the others wait
            with pytest.raises(openai.APITimeoutError):
                client(url, timeout=0.1).chat.completions.create(
                    model="town", messages=[{"role": "user", "content": "q"}]
                )
        time.sleep(0.5)
        assert service.under_way == 0 and sum(corrector.batches) < 3
        assert ask(url).choices[0].message.content == "IT IS WHO ?"


def test_a_service_may_run_again_and_survives_a_corrector_that_loses_an_answer() -> None:
    class Loses(Upper):
        def corrections(self, questions: Sequence[str], answers: Sequence[str]) -> list:
            found = super().corrections(questions, answers)
            return found[1:] if "lost" in questions else found

    service = service_with("ada is {}".format, corrector=Loses())
    for _ in range(2):  # as a cell of a notebook that is run twice
        with running(service) as url:
            assert status_of(lambda: ask(url, "lost"))[0] == 500  # noqa: B023
            assert ask(url).choices[0].message.content == "ADA IS WHO ?"
            assert health(url)["status"] == "ok"


def test_a_correction_that_takes_too_long_is_given_up() -> None:
    slow = service_with("ada is {}".format, corrector=Upper(1.0), timeout=0.2)
    with running(slow) as url:
        status, message = status_of(lambda: ask(url))
        assert status == 503 and "0.2 s" in message
        assert health(url)["under_way"] == 0


def test_a_client_that_hangs_up_in_the_midst_of_a_body_is_no_failure() -> None:
    with running(service_with("ada is {}".format)) as url:
        host, port = url.split("/")[2].split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
            connection.sendall(head.encode())
            while health(url)["under_way"] == 0:
                time.sleep(0.01)
        while health(url)["under_way"]:
            time.sleep(0.01)
        assert health(url)["failed"] == 0


def test_a_stream_numbers_the_tools_that_are_called() -> None:
    async def upstream(body: dict) -> dict:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call, call]}
        return {"id": "1", "choices": [{"index": 0, "message": message}]}

    with running(Service(MicroBatches(Upper()), "town", upstream)) as url:
        calls = [c for e in ask(url, stream=True) for c in e.choices[0].delta.tool_calls or ()]
    assert [call.index for call in calls] == [0, 1]


# --- refusals -------------------------------------------------------------------------------------


def test_requests_that_cannot_be_answered_are_refused_with_the_reason() -> None:
    with running(service_with("ada is {}".format, key="secret")) as url:
        assert status_of(lambda: ask(url))[0] == 401
        known = client(url, api_key="secret")
        create = known.chat.completions.create
        messages = [{"role": "user", "content": "who ?"}]
        assert create(model="town", messages=messages).choices[0].message.content == "ADA IS WHO ?"
        status, message = status_of(lambda: create(model="other", messages=messages))
        assert status == 404 and "'other'" in message and "'town'" in message
        long = [{"role": "user", "content": "x" * 50_000_000}]
        status, message = status_of(lambda: create(model="town", messages=long))
        assert status == 413 and str(BODY) in message
        with httpx.Client(trust_env=False, headers={"Authorization": "Bearer secret"}) as page:
            by_form = page.post(f"{url}/chat/completions", content=b"{}")  # as a web page can
            assert by_form.status_code == 415 and "application/json" in by_form.text
            foreign = page.get(f"{url}/models", headers={"Host": "evil.example"})
            assert foreign.status_code == 400
        for content in (b"{", b"[]", b"\xff"):
            post = lambda: known.post("/chat/completions", cast_to=object, content=content)  # noqa: B023, E731
            assert status_of(post)[0] == 400


class Garbage(Handler):
    replies = {
        "html": (200, b"<html>busy</html>", "text/html"),
        "no choices": (200, b'{"choices": []}', "application/json"),
        "broken": (200, b'{"choices": [', "application/json"),
        "stream": (200, b"data: {\n\ndata: nonsense\n\n", "text/event-stream"),
        "an error with status 200": (200, b'{"error": {"message": "no"}}', "application/json"),
        "a key that it refuses": (401, b'{"error": {"message": "no"}}', "application/json"),
        "down": (503, b"", "text/plain"),
    }

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, body, kind = self.replies[request["messages"][-1]["content"]]
        self.reply(status, body, kind)


@pytest.mark.parametrize("question", Garbage.replies)
def test_an_upstream_that_sends_garbage_is_named_as_the_cause(question: str) -> None:
    with serving(None, "town", Garbage) as address:
        service = Service(MicroBatches(Upper()), "town", Asked(address, retries=0))
        with running(service) as url:
            status, message = status_of(lambda: ask(url, question))
    assert status == 502 and "upstream" in message and service.counts == {"failed": 1}


def test_an_upstream_that_is_slow_or_gone_is_named_as_the_cause() -> None:
    def slow(questions: list[str], seed: int = 0) -> list[str]:
        time.sleep(1)
        return questions

    with serving(slow) as address:
        service = Service(MicroBatches(Upper()), "town", Asked(address, timeout=0.2, retries=0))
        with running(service) as url:
            status, message = status_of(lambda: ask(url))
            assert status == 502 and "0.2 s" in message
    with running(Service(MicroBatches(Upper()), "town", Asked(address, retries=0))) as url:
        status, message = status_of(lambda: ask(url))
        assert status == 502 and "no connection" in message


def test_what_the_client_can_change_is_passed_on_as_the_upstream_said_it() -> None:
    with serving(lambda questions, seed=0: questions[9]) as address:  # raises, as status 400
        with running(Service(MicroBatches(Upper()), "town", Asked(address, retries=0))) as url:
            status, message = status_of(lambda: ask(url))
    assert status == 400 and "IndexError" in message


# --- the command ----------------------------------------------------------------------------------


def test_the_command_finishes_what_is_under_way_when_it_is_stopped() -> None:
    """With Tinytown's Aligner, in a process of its own."""
    rows = sets.corrections(12, "test")
    aligner = Aligner.from_pretrained(data_folder() / "aligner")
    wanted = aligner.correct([r.question for r in rows], [r.answer for r in rows])
    command = [sys.executable, "-m", "alignlib", "serve", "--port", "0"]
    command += ["--aligner", str(data_folder() / "aligner")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = process.stdout.readline().split()[2]
    known = client(url)
    assert [model.id for model in known.models.list()] == ["aligner"]

    def correct(row: QAC) -> str:
        body = {"question": row.question, "answer": row.answer}
        return known.post("/corrections", cast_to=object, body=body)["correction"]

    with ThreadPoolExecutor(len(rows)) as pool:
        found = [pool.submit(correct, row) for row in rows]
        while not any(future.done() for future in found):
            if health(url)["under_way"] == len(rows):
                break
        process.terminate()
        assert [future.result() for future in found] == wanted
    process.wait(20)
    assert process.returncode in (0, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--upstream", "http://localhost:1/v1"], "go together"),
        (["--model", "town"], "go together"),
        (["--client-key-variable", "NOT_SET"], "NOT_SET"),
        (["--client-key-variable", "sk-secret"], "no name of an environment variable"),
        (["--upstream", "localhost:1/v1", "--model", "town"], "write it with http://"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_loaded(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["serve", "--aligner", "nowhere", *arguments]) == 1
    said = capsys.readouterr().err
    assert reason in said and "sk-secret" not in said


def test_an_address_that_is_taken_is_named_before_anything_is_loaded(capsys) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--aligner", "nowhere", "--port", port]) == 1
    assert "in use" in capsys.readouterr().err
