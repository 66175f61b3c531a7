"""Upstreams: a file, a local model, a server that fails as servers do; every question is
answered once and paid for once.
"""

from __future__ import annotations

import _thread
import itertools
import json
import signal
import sqlite3
import ssl
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from alignlib import remote
from alignlib.calls import call_key, calls_file, read_calls, write_call
from alignlib.course.cli import main
from alignlib.course.server import Handler, serving
from alignlib.judges import TownJudge
from alignlib.profiles import TINY, data_folder
from alignlib.remote import Server
from alignlib.tinytown import recordings, sets
from alignlib.upstream import Local, Recorded, UpstreamError
from experiments import make_upstreams
from experiments.make_upstreams import UPSTREAMS, Maker, NGram

QUESTIONS = [f"what is {i} ?" for i in range(200)]


class Echo:
    """Answers by the question, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, questions, *, seed: int = 0) -> list[str]:
        self.asked.update(questions)
        return [f"{q} {seed}" for q in questions]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNLIB_CACHE", str(tmp_path / "cache"))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # of no use on the way to this machine
    return tmp_path / "cache"


def kept() -> list[dict]:
    """All replies in the cache."""
    if not calls_file().exists():
        return []
    with closing(sqlite3.connect(calls_file())) as calls:
        return [json.loads(row) for (row,) in calls.execute("SELECT row FROM calls")]


class Faulty(Handler):
    """At every tenth request it fails, in one way after the other."""

    def do_POST(self) -> None:
        n = next(self.count)
        way = self.ways[n // 10 % len(self.ways)] if n % 10 == 0 else "none"
        self.failed[way] += 1
        if way == "none":
            return super().do_POST()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.close_connection = True
        if way == "500":
            self.reply(500, {"error": {"message": "on fire"}})
        elif way == "silent":
            self.over.wait(30)
        else:  # the reply is cut off in its first line
            self.send_response(200)
            self.send_header("Content-Length", "500")
            self.end_headers()
            self.wfile.write(b'{"id": ')


def test_200_prompts_of_a_failing_server_are_all_answered_none_twice_and_never_asked_again() -> (
    None
):
    echo, over = Echo(), threading.Event()
    given = {
        "ways": ("silent", "500", "cut", "500", "cut", "500", "cut"),
        "failed": Counter(),
        "over": over,
        "count": itertools.count(),
    }
    with serving(echo, handler=type("F", (Faulty,), given)) as url:
        upstream = Server("town", url, concurrency=16, timeout=4.0, progress=False)
        assert upstream(QUESTIONS) == [f"{q} 0" for q in QUESTIONS]
        failed = dict(given["failed"])
        over.set()
        assert (
            failed.pop("none") == 200
            and min(failed.get(way, 0) for way in ("silent", "500", "cut")) > 0
            and sum(failed.values()) >= 20
        )
        assert set(echo.asked.values()) == {1} and len(echo.asked) == 200
        again = Server("town", url, progress=False)
        assert again(QUESTIONS[::-1]) == [f"{q} 0" for q in QUESTIONS[::-1]]
        assert (upstream.calls, again.calls, sum(echo.asked.values())) == (200, 0, 200)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell ignores ctrl-c for what it runs in the background, tests too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_is_stopped_by_hand_keeps_every_answer_that_was_paid(
    empty_cache: Path, interruptible: None
) -> None:
    class Stopping(Echo):
        def __call__(self, questions, *, seed: int = 0) -> list[str]:
            if len(self.asked) == 20:
                _thread.interrupt_main()
                time.sleep(0.5)
            return super().__call__(questions, seed=seed)

    echo = Stopping()
    with serving(echo) as url:
        upstream = Server("town", url, concurrency=4, progress=False)
        with pytest.raises(KeyboardInterrupt):
            upstream(QUESTIONS)
        paid = sum(echo.asked.values())
        assert 20 < paid < 30 and len(kept()) == paid
        assert upstream(QUESTIONS) == [f"{q} 0" for q in QUESTIONS] and set(
            echo.asked.values()
        ) == {1}


def test_what_an_answer_may_depend_on_is_asked_anew_and_a_question_asked_twice_is_paid_once() -> (
    None
):
    echo = Echo()
    with serving(echo) as url:
        upstream = Server("town", url, progress=False)
        assert upstream(["a", "b", "a"]) == ["a 0", "b 0", "a 0"] and upstream.calls == 2
        assert upstream(["a"], seed=1) == ["a 1"] and upstream.calls == 3
        assert Server("town", url, temperature=0.5, progress=False)(["a"]) == ["a 0"]
        assert echo.asked == {"a": 3, "b": 1}


def test_one_question_that_is_refused_leaves_the_others_answered() -> None:
    class Picky(Echo):
        def __call__(self, questions, *, seed: int = 0) -> list[str]:
            if "what is 3 ?" in questions:
                raise ValueError("too long")
            return super().__call__(questions, seed=seed)

    with serving(Picky()) as url:
        upstream = Server("town", url, concurrency=4, progress=False)
        with pytest.raises(
            UpstreamError,
            match="status 400.*, at the question 'what is 3 .'; 1 of the 8 asked have no answer",
        ):
            upstream(QUESTIONS[:8])
        rest = [q for q in QUESTIONS[:8] if q != "what is 3 ?"]
        assert upstream(rest) == [f"{q} 0" for q in rest] and upstream.calls == 8


def test_a_refused_question_may_stay_without_an_answer_but_not_all_of_them() -> None:
    class Picky(Echo):
        def __call__(self, questions, *, seed: int = 0) -> list[str]:
            if "3" in questions[0]:
                raise ValueError("too long")
            return super().__call__(questions, seed=seed)

    with serving(Picky()) as url:
        upstream = Server("town", url, progress=False, refused_as_empty=True)
        with pytest.warns(UserWarning, match="1 refused with status 400"):
            assert upstream(QUESTIONS[2:5]) == ["what is 2 ? 0", "", "what is 4 ? 0"]
        assert "status 400" in upstream.problems["what is 3 ?"]
        with pytest.raises(UpstreamError, match="status 400"):
            upstream(["what is 3 ?", "what is 13 ?"])


def test_questions_that_are_refused_for_themselves_stop_no_other_wherever_they_stand() -> None:
    class Picky(Echo):
        def __call__(self, questions, *, seed: int = 0) -> list[str]:
            if int(questions[0].split()[2]) < 5:
                raise ValueError("too long")
            return super().__call__(questions, seed=seed)

    echo = Picky()
    with (
        serving(echo) as url,
        pytest.raises(UpstreamError, match="5 of the 12 asked have no answer"),
    ):
        Server("town", url, concurrency=2, progress=False)(QUESTIONS[:12])
    assert len(echo.asked) == 7


def test_a_server_that_dies_midway_is_given_up_too() -> None:
    seen = itertools.count()

    class Dying(Handler):
        def do_POST(self) -> None:
            if next(seen) < 20:
                return super().do_POST()
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(429, {"error": {"message": "quota spent"}})

    with (
        serving(Echo(), handler=Dying) as url,
        pytest.raises(UpstreamError, match="quota spent.*; [4-7] of the 2\d asked"),
    ):
        Server("town", url, retries=0, concurrency=4, progress=False)(QUESTIONS)
    assert next(seen) < 60


def test_a_dead_server_is_given_up_after_the_first_questions() -> None:
    asked = Counter()

    class Dead(Handler):
        def do_POST(self) -> None:
            asked[self.rfile.read(int(self.headers["Content-Length"]))] += 1
            self.reply(503, {"error": {"message": "gone"}})

    with (
        serving(Echo(), handler=Dead) as url,
        pytest.raises(UpstreamError, match="status 503.*; 4 of the 4 asked"),
    ):
        Server("town", url, retries=0, concurrency=4, progress=False)(QUESTIONS)
    assert len(asked) < 20


def replying(
    body: dict | bytes, kind: str = "application/json", status: int = 200
) -> type[Handler]:
    class Replying(Handler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(status, body, kind)

    return Replying


def chat(content: object, why: str = "stop") -> dict:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": why,
    }
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "town",
        "choices": [choice],
    }


HTML = b"<html>sign in</html>"


@pytest.mark.parametrize(
    ("handler", "part"),
    [
        (replying(HTML, "text/html"), "no chat completion .*often ends with /v1"),
        (replying(HTML), "no chat completion"),
        (replying(b""), "no chat completion"),
        (replying({"choices": []}), "no chat completion"),
        (replying({"choices": [{}]}), "no chat completion"),
        (replying(chat([{"type": "text"}])), "no chat completion"),
        (
            replying({"error": {"message": "bad key"}}, status=401),
            "it asks for a key and was sent none.* such as key_variable='MY_KEY'",
        ),
        (
            replying({"error": {"message": "no such temperature"}}, status=400),
            r"refused with status 400 \(no such temperature\)",
        ),
        (
            replying({"error": {"message": "?" * 999}}, status=400),
            r"refused with status 400 \(\?{156}\), at",
        ),
        (replying({"error": {"message": "slow down"}}, status=429), "refused with status 429"),
    ],
)
def test_a_server_of_another_mind_is_told_apart(
    handler: type[Handler], part: str, empty_cache: Path
) -> None:
    with serving(Echo(), handler=handler) as url, pytest.raises(UpstreamError, match=part):
        Server("town", url, retries=0, progress=False)(["a"])
    assert not kept()


def test_a_wrong_model_a_wrong_path_a_closed_port_and_a_slow_server_say_what_to_change() -> None:
    with serving(Echo()) as url:
        with pytest.raises(UpstreamError, match="village at 127.0.0.1.*check the model's name"):
            Server("village", url, progress=False)(["a"])
        with pytest.raises(UpstreamError, match="often /v1"):
            Server("town", url.removesuffix("/v1"), progress=False)(["a"])
    with pytest.raises(UpstreamError, match="is it running"):
        Server("town", url, retries=0, progress=False)(["a"])
    slow = type("Slow", (Handler,), {"do_POST": lambda self: time.sleep(1)})
    with (
        serving(Echo(), handler=slow) as url,
        pytest.raises(UpstreamError, match="silent for 0.2 s"),
    ):
        Server("town", url, retries=0, timeout=0.2, progress=False)(["a"])


def test_a_server_elsewhere_needs_a_key_which_is_never_printed_or_kept(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    with pytest.raises(UpstreamError, match="set the environment variable MY_KEY"):
        Server("town", "https://example.org/v1", key_variable="MY_KEY")(["a"])
    monkeypatch.setenv("MY_KEY", "sk-ключ")
    with pytest.raises(UpstreamError, match="the API key in MY_KEY holds letters"):
        Server("town", "https://example.org/v1", key_variable="MY_KEY")(["a"])
    with pytest.raises(UpstreamError) as by_mistake:
        Server("town", key_variable="sk-secret")
    monkeypatch.setenv("MY_KEY", "sk-secret\n")
    with serving(
        Echo(), handler=replying({"error": {"message": "sk-secret is wrong"}}, status=401)
    ) as url:
        upstream = Server("town", url, key_variable="MY_KEY", progress=False)
        with pytest.raises(UpstreamError, match="the key in MY_KEY was refused") as told:
            upstream(["a"])
    with serving(
        Echo(), handler=replying({"error": {"message": "sk-secret may not do this"}}, status=403)
    ) as url:
        with pytest.raises(UpstreamError, match=r"status 403 \(\*\*\* may not do this\)"):
            Server("town", url, key_variable="MY_KEY", retries=0, progress=False)(["a"])
    with serving(Echo()) as url:
        assert Server("town", url, key_variable="MY_KEY", progress=False)(["a"]) == ["a 0"]
    on_disk = "".join(map(str, kept()))
    printed = "".join(
        line for e in (told, by_mistake) for line in traceback.format_exception(e.value, chain=True)
    )
    assert (
        "sk-secret is" not in printed
        and "sk-secret" not in f"{by_mistake.value}{told.value}{upstream}{on_disk}"
    )


@pytest.mark.parametrize(
    ("url", "key"),
    [
        (None, "sk-real"),
        ("https://api.openai.com/v1/", "sk-real"),
        ("http://api.openai.com/v1", "none"),  # in clear
        ("https://api.openai.com.example.org/v1", "none"),
        ("https://api.openai.com@example.org/v1", "none"),
        ("https://example.org/api.openai.com/v1", "none"),
        ("http://gpu-box:8000/v1", "none"),
        ("http://0.0.0.0:8000/v1", "none"),
    ],
)
def test_the_key_of_openai_is_for_openai_over_https_alone(
    url: str | None, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    assert Server("town", url)._client().api_key == key
    if url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        assert Server("town")._client().api_key == key
    assert Server("town", url, "OPENAI_API_KEY")._client().api_key == "sk-real"  # as named


def keeping_keys(base: type[Handler], keys: list[str | None]) -> type[Handler]:
    """A handler that notes the key of every request."""

    class Keeping(base):
        def do_POST(self) -> None:
            keys.append(self.headers["Authorization"])
            super().do_POST()

    return Keeping


@pytest.mark.parametrize("loopback", [True, False])
def test_another_host_is_sent_the_key_that_was_named_for_it_and_else_none(
    loopback: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignlib.remote.is_loopback", lambda host: loopback)
    if not loopback:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    monkeypatch.setenv("TOWN_KEY", "sk-town")
    keys: list[str | None] = []
    with serving(Echo(), handler=keeping_keys(Handler, keys)) as url:
        Server("town", url, progress=False)(["a"])
        Server("town", url, key_variable="TOWN_KEY", progress=False)(["b"])
        with pytest.raises(UpstreamError, match="set the environment variable UNSET_KEY"):
            Server("town", url, key_variable="UNSET_KEY", progress=False)(["c"])
    locked = keeping_keys(replying({"error": {"message": "who are you?"}}, status=401), keys)
    with (
        serving(Echo(), handler=locked) as url,
        pytest.raises(UpstreamError, match="sent none.*key_variable='MY_KEY'"),
    ):
        Server("town", url, progress=False, concurrency=1)(["d"])
    assert keys == ["Bearer none", "Bearer sk-town", "Bearer none"]


def test_a_server_that_sends_us_on_to_another_host_does_not_send_it_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOWN_KEY", "sk-town")
    keys: list[str | None] = []
    with serving(Echo(), handler=keeping_keys(Handler, keys)) as other:

        class Moved(Handler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(307)
                self.send_header("Location", f"{other}/chat/completions")
                self.send_header("Content-Length", "0")
                self.end_headers()

        with serving(Echo(), handler=keeping_keys(Moved, keys)) as url:
            upstream = Server("town", url, key_variable="TOWN_KEY", progress=False)
            assert upstream(["a"]) == ["a 0"]
    assert keys == ["Bearer sk-town", None]


def test_0_0_0_0_is_this_machine_and_no_proxy_stands_between() -> None:
    with serving(Echo()) as url:  # the fixture's proxy answers nobody
        everywhere = url.replace("127.0.0.1", "0.0.0.0")
        assert Server("town", everywhere, retries=0, progress=False)(["a"]) == ["a 0"]


def test_a_temperature_of_none_is_left_out_of_the_request() -> None:
    bodies = []

    class Reading(Handler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(200, chat("fine"))

    with serving(Echo(), handler=Reading) as url:
        for temperature in (None, 0.0):
            upstream = Server("town", url, temperature=temperature, progress=False)
            assert upstream(["a"]) == upstream(["a"]) == ["fine"] and upstream.calls == 1
    assert ["temperature" in json.loads(body) for body in bodies] == [False, True]


def test_an_address_without_http_is_refused_and_the_variable_of_the_client_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UpstreamError, match="write it with http"):
        Server("town", "localhost:8000/v1")
    with serving(Echo()) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url + "/")
        assert Server("town", progress=False)(["a"]) == ["a 0"]
        monkeypatch.delenv("OPENAI_BASE_URL")
        again = Server("town", url, temperature=0, progress=False)
        assert again(["a"]) == ["a 0"] and again.calls == 0
    with serving(Echo()) as one, serving(Echo()) as other:
        assert Server("town", one, kept_as="lesson", progress=False)(["a"]) == ["a 0"]
        same = Server("town", other, kept_as="lesson", progress=False)
        assert same(["a"]) == ["a 0"] and same.calls == 0


def test_empty_and_unfinished_answers_are_counted_also_when_they_come_from_the_disk() -> None:
    bodies = {
        "empty": (chat(""), chat(None)),
        "unfinished: length": (chat("long", "length"),),
        "over-long": (chat("on and on " * 100),),
    }
    for want, body in ((want, body) for want, some in bodies.items() for body in some):
        with serving(Echo(), handler=replying(body)) as url, pytest.warns() as caught:
            for _ in range(2):
                upstream = Server("town", url, progress=False)
                upstream(["a", "b"])
                assert upstream.told == {want: 2}
        assert len(caught) == 1 and f"of 2 answers 2 {want}; they are kept" in str(
            caught[0].message
        )


def test_answers_in_a_file_serve_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "said.jsonl").write_text(
        "\n".join(json.dumps({"question": q, "answer": f"{q} 3"}) for q in "ab")
    )
    said = Recorded.read(tmp_path / "said.jsonl")
    assert said(["b", "a"]) == ["b 3", "a 3"]
    with pytest.raises(
        UpstreamError, match="said.jsonl: no answer to 1 of 2 questions, such as 'c'"
    ):
        said(["a", "c"])
    (tmp_path / "bad.jsonl").write_text(
        json.dumps({"question": "a", "answer": "b"}) + "\n" + json.dumps({"question": "a"})
    )
    with pytest.raises(UpstreamError, match="bad.jsonl, line 2: no text under"):
        Recorded.read(tmp_path / "bad.jsonl")
    (tmp_path / "two.jsonl").write_text(
        "\n".join(json.dumps({"question": "a", "answer": a}) for a in "bbc")
    )
    with pytest.raises(UpstreamError, match="two.jsonl, line 3: a second answer"):
        Recorded.read(tmp_path / "two.jsonl")


def test_a_local_model_answers_the_town_and_a_chat_model_is_asked_in_its_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    questions = [r.question for r in sets.corrections(4, "test")]
    local = Local(TINY.base)
    assert all(a.endswith(".") for a in local(questions))
    sampled = Local(TINY.base, temperature=1.0)
    assert sampled(questions, seed=1) == sampled(questions, seed=1) != sampled(questions, seed=2)
    prompts: list[list[int]] = []
    keep = lambda model, tokenizer, ids, **_: prompts.extend(ids) or ids  # noqa: E731
    monkeypatch.setattr("alignlib.generation.sample", keep)
    tokenizer = local._loaded[1]
    chat = "{% for m in messages %}{{ m['content'] }} says {{ m['role'] }} : {% endfor %}"
    for template in (chat, "{{ bos_token }} " + chat):  # which begins as the template says
        tokenizer.chat_template = template
        local(["the lamp"])
    assert [tokenizer.decode(ids) for ids in prompts] == [
        tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])
        for text in ("the lamp says user :", "<bos> the lamp says user :")
    ]
    assert local.problems == {"the lamp": "unfinished"}


# --- the upstreams of lesson 03
# ---------------------------------------------------------------------


def test_an_n_gram_model_backs_off_to_shorter_contexts() -> None:
    told = ["where is it ? answer : in the mill .", "who has it ? answer : ask the miller ."]
    counts = NGram(iter(told), order=4)
    assert set(counts([f"{i} ?" for i in range(20)])) == {
        "in the mill .",
        "ask the miller .",
    }  # after "? answer :" both have stood
    assert NGram(iter(told), order=6)(["where is it ?", "who has it ?"]) == [
        "in the mill .",
        "ask the miller .",
    ]
    said = [counts([f"{i} ?" for i in range(20)], seed=seed) for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]


def test_all_upstreams_are_recorded_and_annotated_and_few_of_them_on_training_questions() -> None:
    assert recordings.names() == sorted(UPSTREAMS) and len(recordings.TAUGHT) <= 3
    for name in recordings.names():
        rows = recordings.answered(name)
        corrected = TownJudge().scores([r.question for r in rows], [r.correction for r in rows])
        assert len(rows) == recordings.TESTS and corrected["fault_free"].mean() > 0.995, name
        kept = json.loads(recordings.file_of(name).read_text())
        assert ("train" in kept["answers"]) == (name in recordings.TAUGHT) and kept[
            "about"
        ] == UPSTREAMS[name].about
    tested = {q for part in ("seen", "unseen") for q in recordings.asked()[part]}
    assert not tested & set(recordings.asked()["train"])


def test_a_record_to_other_questions_or_of_nobody_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = json.loads(recordings.file_of("4-gram").read_text()) | {"questions": 1}
    (tmp_path / "4-gram.json").write_text(json.dumps(other))
    monkeypatch.setattr(recordings, "file_of", lambda name: tmp_path / f"{name}.json")
    with pytest.raises(UpstreamError, match="python -m alignlib upstreams 4-gram"):
        recordings.recorded_answers("4-gram")
    real = json.loads((data_folder() / "upstreams" / "4-gram.json").read_text())
    (tmp_path / "4-gram.json").write_text(
        json.dumps(real | {"answers": real["answers"] | {"unseen": real["answers"]["unseen"][1:]}})
    )
    with pytest.raises(
        UpstreamError,
        match="4-gram.json: 399 answers to the 400 questions of 'unseen'; run `python -m "
        "alignlib upstreams 4-gram`",
    ):
        recordings.recorded_answers("4-gram")
    (tmp_path / "4-gram.json").write_text(json.dumps(real, indent=0)[:500])
    with pytest.raises(UpstreamError, match="4-gram.json, line .*cut off; run"):
        recordings.recorded_answers("4-gram")
    with pytest.raises(UpstreamError, match="no recorded upstream 'rood'; there are 4-gram"):
        recordings.recorded_answers("rood")


def test_an_upstream_is_recorded_whole_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recordings, "file_of", lambda name: tmp_path / f"{name}.json")
    monkeypatch.setattr(make_upstreams, "file_of", recordings.file_of)
    monkeypatch.setitem(UPSTREAMS, "echo", Maker("says it again", lambda folder: Echo()))
    assert main(["upstreams", "echo"]) == 0 and recordings.names() == ["echo"]
    assert recordings.answered("echo", "unseen")[7].answer == f"{recordings.asked()['unseen'][7]} 0"
    with pytest.raises(ValueError, match="`python -m alignlib upstreams large`"):
        make_upstreams.weights_folder("large")
    assert main(["upstreams", "nobody"]) == 1


# --- servers that differ --------------------------------------------------------------------------


def asked_with(reply: Callable[[dict, int], tuple[int, object]]) -> tuple[type[Handler], list]:
    """A handler that answers the n-th request's body with `reply`, and the bodies it got."""
    bodies: list[dict] = []

    class Replying(Handler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, body = reply(bodies[-1], len(bodies))
            if isinstance(body, str):  # a stream
                self.send_response(status)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())
            else:
                self.reply(status, body)

    return Replying, bodies


def message(content: object, finish: str | None = "stop", **more: object) -> dict:
    said = {"index": 0, "message": {"role": "assistant", "content": content, **more}}
    return {"id": "x", "object": "chat.completion", "choices": [said | {"finish_reason": finish}]}


def events(*texts: str) -> str:
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in texts]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    return "".join(f"data: {json.dumps(c)}\n\n" for c in chunks) + "data: [DONE]\n\n"


ANSWERS = {  # name: (reply, answer, what is told of it)
    "parts": (message([{"type": "text", "text": "Paris."}]), "Paris.", None),
    "thinking in parts": (
        message([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Paris."}]),
        "Paris.",
        None,
    ),
    "thinking in the text": (message("<think>A capital.\n</think>\n\nParis."), "Paris.", None),
    "thinking without its start": (message("A capital.\n</think>\n\nParis."), "Paris.", None),
    "an answer about the mark": (
        message("<think>x</think>It ends with `</think>` here."),
        "It ends with `</think>` here.",
        None,
    ),
    "a block of code with the mark": (
        message("Write:\n```\n<think>\nreasons\n</think>\n```\nand go on."),
        "Write:\n```\n<think>\nreasons\n</think>\n```\nand go on.",
        None,
    ),
    "two thoughts": (message("<think>a</think><think>b</think>Paris."), "Paris.", None),
    "thinking in brackets": (message("[THINK]hm[/THINK]Paris."), "Paris.", None),
    "refusal in a part": (
        message([{"type": "refusal", "refusal": "I cannot."}]),
        "I cannot.",
        "refused",
    ),
    "stream that broke off": (
        events("Par", "is.").split("data: [DONE]")[0].rpartition("data:")[0],
        "Paris.",
        "unfinished: the stream broke off",
    ),
    "thinking that never ends": (
        message("<think>A capital of", "length"),
        "",
        "empty: all of max_tokens went to reasoning",
    ),
    "thinking apart": (
        message(None, "length", reasoning_content="A capital"),
        "",
        "empty: all of max_tokens went to reasoning",
    ),
    "refusal": (message(None, refusal="I cannot."), "I cannot.", "refused"),
    "another end": (message("Paris.", "eos_token"), "Paris.", None),
    "an end in capitals": (message("Paris.", "STOP"), "Paris.", None),
    "no end": (message("Paris.", None), "Paris.", None),
    "filtered": (message("Par", "content_filter"), "Par", "unfinished: content_filter"),
    "stream": (events("Par", "is."), "Paris.", None),
}


@pytest.mark.filterwarnings("ignore:town. of 1 answers")
@pytest.mark.parametrize("name", ANSWERS)
def test_answers_in_every_form_are_read(name: str) -> None:
    body, answer, told = ANSWERS[name]
    handler, _ = asked_with(lambda asked, n: (200, body))
    with serving(Echo(), handler=handler) as url:
        upstream = Server("town", url, retries=0, progress=False)
        assert upstream(["Capital?"]) == [answer]
    assert dict(upstream.told) == ({told: 1} if told else {})


BUSY = {"choices": None, "error": {"message": "Provider returned error", "code": 429}}


def test_errors_with_status_200_are_tried_again_or_passed_on() -> None:
    handler, bodies = asked_with(lambda asked, n: (200, BUSY if n < 3 else message("Paris.")))
    with serving(Echo(), handler=handler) as url:
        assert Server("town", url, retries=2, progress=False)(["Capital?"]) == ["Paris."]
    assert len(bodies) == 3
    for error in (BUSY["error"], {"message": "Provider returned error", "code": "no_model"}):
        handler, bodies = asked_with(lambda asked, n: (200, {"error": error}))
        with (
            serving(Echo(), handler=handler) as url,
            pytest.raises(UpstreamError, match=r"status 200 \(Provider returned error \("),
        ):
            Server("town", url, retries=0, progress=False)(["Capital?"])
        assert len(bodies) == 1


@pytest.mark.parametrize(
    ("refuses", "error", "left"),
    [
        ("seed", {"message": "Unknown parameter: 'seed'.", "param": "seed"}, set()),
        ("temperature", {"message": "temperature is not supported with this model"}, set()),
        (
            "max_tokens",
            {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'."},
            {"max_completion_tokens"},
        ),
    ],
)
def test_a_setting_that_is_refused_is_left_out_with_a_note(
    refuses: str, error: dict, left: set[str]
) -> None:
    handler, bodies = asked_with(
        lambda asked, n: (400, {"error": error}) if refuses in asked else (200, message("Paris."))
    )
    with serving(Echo(), handler=handler) as url:
        upstream = Server("town", url, concurrency=4, retries=0, progress=False)
        with pytest.warns(UserWarning, match=f"refuses the setting '{refuses}'") as caught:
            assert upstream(["a", "b", "c", "d"]) == ["Paris."] * 4
            upstream(["e"])
    assert 6 <= len(bodies) <= 9 and len(caught) == 1
    assert {"model", "messages", *left} <= bodies[-1].keys() and refuses not in bodies[-1]


def test_a_setting_refused_under_both_names_is_tried_twice_and_no_more() -> None:
    def reply(asked: dict, n: int) -> tuple[int, dict]:
        name = next(k for k in asked if k.startswith("max_"))
        return 400, {"error": {"message": f"{name} is not supported by this model"}}

    handler, bodies = asked_with(reply)
    with serving(Echo(), handler=handler) as url:
        with pytest.raises(UpstreamError, match="is not supported by this model"):
            Server("town", url, retries=0, progress=False)(["a"])
    assert len(bodies) == 2


def test_what_is_wrong_with_one_question_switches_no_setting_off() -> None:
    def reply(asked: dict, n: int) -> tuple[int, dict]:
        if asked["messages"][-1]["content"] == "b":
            return 400, {"error": {"message": "Invalid prompt: the temperature of a seed"}}
        return 200, message("Fine.")

    handler, bodies = asked_with(reply)
    with serving(Echo(), handler=handler) as url:
        upstream = Server("town", url, concurrency=1, retries=0, progress=False)
        with pytest.raises(UpstreamError, match="temperature of a seed"):
            upstream(["a", "b"])
        assert upstream(["c"]) == ["Fine."] and not upstream.left_out
    assert {"seed", "temperature"} <= bodies[-1].keys()


def test_a_limit_that_is_too_large_is_told_and_not_renamed() -> None:
    error = {"message": "max_tokens=256 is not supported, at most 128", "param": "max_tokens"}
    handler, bodies = asked_with(lambda asked, n: (400, {"error": error}))
    with serving(Echo(), handler=handler) as url, pytest.raises(UpstreamError, match="most 128"):
        Server("town", url, retries=0, progress=False)(["a"])
    assert len(bodies) == 1


def test_what_is_wrong_with_every_question_stops_at_once_with_the_servers_words() -> None:
    for body in (
        {"error": {"message": "No credits left", "code": 402}},
        {"choices": [], "error": {"message": "Your credit balance is too low"}},
        {"error": {"message": "No money, no credit", "code": "insufficient_quota"}},
    ):
        handler, bodies = asked_with(lambda asked, n: (200, body))  # noqa: B023
        with serving(Echo(), handler=handler) as url:
            with pytest.raises(UpstreamError, match="redit.*mend that first"):
                upstream = Server("town", url, concurrency=1, retries=0, progress=False)
                upstream.refused_as_empty = True
                upstream(["a", "b", "c", "d"])
        assert len(bodies) < 4 and not kept()


@pytest.mark.parametrize(
    "body",
    [
        {"object": "error", "message": "model is too busy"},
        {"code": 500, "msg": "model is too busy"},
        {"choices": [{"message": {"content": ""}, "error": {"message": "model is too busy"}}]},
        message("") | {"error": {"message": "model is too busy", "code": 429}},
        'data: {"error": {"message": "model is too busy"}, "choices": []}\n\n',
    ],
)
def test_the_servers_own_words_are_passed_on_and_no_empty_answer_is_kept(body: object) -> None:
    handler, _ = asked_with(lambda asked, n: (200, body))
    with serving(Echo(), handler=handler) as url, pytest.raises(UpstreamError, match="too busy"):
        Server("town", url, retries=0, progress=False)(["a"])
    assert not kept()


def test_a_local_model_is_not_asked_beyond_its_context_and_its_thoughts_are_taken_off(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = Local(tiny_model, prompt='{"q": "{question}"}', max_new_tokens=600)
    context = local._loaded[0].config.max_position_embeddings
    long = "lamp " * (context + 5)
    answers = local(["the lamp", long])
    assert answers[1] == "" and local.problems[long] == "too long for the context"
    tokenizer = local._loaded[1]
    monkeypatch.setattr(type(tokenizer), "decode", lambda *_, **__: "<think> hm </think> yes .")
    assert local(["the lamp"]) == ["yes ."]


def test_no_key_is_printed_of_an_error_with_status_200(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    for long in range(0, 200, 3):  # nor a part of it, where the message is shortened
        message = f"bad key {'x' * long} sk-secret"
        handler, _ = asked_with(lambda asked, n: (200, {"error": {"message": message}}))  # noqa: B023
        with serving(Echo(), handler=handler) as url:
            with pytest.raises(UpstreamError, match=r"status 200 \(bad key") as refused:
                Server("town", url, "MY_KEY", retries=0, progress=False)(["a"])
        assert "sk-" not in str(refused.value)


def test_an_error_about_something_else_drops_no_setting() -> None:
    handler, bodies = asked_with(lambda asked, n: (400, {"error": {"message": "bad seed corn"}}))
    with serving(Echo(), handler=handler) as url, pytest.raises(UpstreamError, match="seed corn"):
        Server("town", url, retries=0, progress=False)(["a"])
    assert len(bodies) == 1


@pytest.mark.parametrize("status", [402, 429])
def test_an_account_without_budget_is_told_at_once(status: int) -> None:
    error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
    handler, _ = asked_with(lambda asked, n: (status, {"error": error}))
    with (
        serving(Echo(), handler=handler) as url,
        pytest.raises(UpstreamError, match="budget is used up .You exceeded.*top it up"),
    ):
        Server("town", url, retries=0, progress=False)(["a"])


def test_half_a_character_is_sent_as_a_mark() -> None:
    handler, bodies = asked_with(lambda asked, n: (200, message("Fine.")))
    with serving(Echo(), handler=handler) as url:
        upstream = Server("town", url, retries=0, progress=False)
        assert upstream(["How was it \ud83d ?"]) == ["Fine."]
    assert bodies[0]["messages"][-1]["content"] == "How was it \ufffd ?"


def test_a_certificate_nobody_knows_is_named(tmp_path: Path) -> None:
    error = ssl.SSLCertVerificationError("certificate verify failed: self-signed certificate")
    error.verify_message = "self-signed certificate"
    outer = ConnectionError("Connection error.")
    outer.__cause__ = error
    said = remote._connection_problem(outer)
    assert "not trusted (self-signed certificate)" in said and "SSL_CERT_FILE" in said


def test_replies_are_kept_in_one_file_that_many_may_write(empty_cache: Path) -> None:
    keys = [call_key(["a", i]) for i in range(40)]
    writers = [
        threading.Thread(target=write_call, args=(key, {"answer": key, "told": ""})) for key in keys
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert read_calls([*keys, "none"]) == {key: {"answer": key, "told": ""} for key in keys}
    assert [f.name for f in empty_cache.iterdir()] == ["calls.sqlite3"]


def test_replies_of_earlier_versions_are_still_read_and_damage_is_told(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = call_key(["paid"])
    (empty_cache / "calls").mkdir(parents=True)
    (empty_cache / "calls" / f"{key}.json").write_text('{"answer": "old", "told": ""}')
    assert read_calls([key])[key]["answer"] == "old"
    with closing(sqlite3.connect(calls_file())) as other:
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr("alignlib.calls.WAIT", 0.1)
        with pytest.raises(ValueError, match="locked.*run this again"):
            write_call(key, {"answer": "new"})
    calls_file().write_bytes(b"no data base, but long enough to be one" * 100)
    with pytest.raises(ValueError, match="calls.sqlite3: the file is damaged .*move the file away"):
        read_calls([key])
