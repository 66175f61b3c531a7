"""Upstreams: a file, a local model, a server that fails as servers do; every question is
answered once and paid for once.
"""

from __future__ import annotations

import _thread
import itertools
import json
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

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
        assert 20 < paid < 30 and len(list(empty_cache.rglob("*.json"))) == paid
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
            r"refused with status 400 \(\?{158}, at",
        ),
        (replying({"error": {"message": "slow down"}}, status=429), "refused with status 429"),
    ],
)
def test_a_server_of_another_mind_is_told_apart(
    handler: type[Handler], part: str, empty_cache: Path
) -> None:
    with serving(Echo(), handler=handler) as url, pytest.raises(UpstreamError, match=part):
        Server("town", url, retries=0, progress=False)(["a"])
    assert not list(empty_cache.rglob("*.json"))


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
    kept = "".join(f.read_text() for f in empty_cache.rglob("*.json"))
    printed = "".join(
        line for e in (told, by_mistake) for line in traceback.format_exception(e.value, chain=True)
    )
    assert (
        "sk-secret is" not in printed
        and "sk-secret" not in f"{by_mistake.value}{told.value}{upstream}{kept}"
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
    monkeypatch.setattr("alignlib.remote._is_loopback", lambda host: loopback)
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
    prompts: list[str] = []
    monkeypatch.setattr("alignlib.tokens.encode", lambda _, text: prompts.append(text) or [1])
    monkeypatch.setattr("alignlib.generation.sample", lambda m, t, ids, **_: ids)
    tokenizer = local._loaded[1]
    chat = "{% for m in messages %}{{ m['content'] }} says {{ m['role'] }} : {% endfor %}"
    for template in (chat, "{{ bos_token }}" + chat):  # as most write it; `encode` puts one there
        tokenizer.chat_template = template
        local(["hello"])
    assert prompts == ["hello says user : "] * 2
    assert local.problems == {"hello": "unfinished"}


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
