"""An Aligner behind OpenAI's protocol (`python -m alignlib serve`).

    POST /v1/chat/completions    an upstream server answers, and the Aligner corrects
    POST /v1/corrections         {"question", "answer"} -> {"correction"}
    GET  /v1/models  /healthz    the model's name; whether it runs, and what was counted

The header `X-Aligner: off` switches the correction off, and "original": true in the body puts the
answer before its correction beside it, as the message's `original`. A stream is sent once the
correction is there. Each request that waits holds one of a limited number of places.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .dialogues import Dropped, Record, as_text
from .microbatches import MicroBatches
from .place import DataError, Place
from .relay import Refused
from .replies import message_text, without_thought
from .texts import whole_characters

if TYPE_CHECKING:
    import uvicorn

BODY = 2**24  # bytes of a request's body, at most
READING = 30.0  # seconds in which a body must have arrived
DRAINED = 2**26  # bytes of a body that is too long which are read, and forgotten, to say so
ENDING = 60  # seconds that requests under way are given when the service is stopped
GONE = 499  # the status of a client that has hung up, which nobody reads
COUNTED = ("corrected", "unchanged", "cut", "failed")

log = logging.getLogger("alignlib.serve")


@dataclass
class Service:
    """What all requests share. `upstream` asks the model before the Aligner, where there is one."""

    batches: MicroBatches
    model: str
    upstream: Callable[[dict], Awaitable[dict]] | None = None
    key: str = ""  # that clients must send; "" for none
    places: int = 256  # requests that may be under way
    timeout: float = 120.0  # seconds that a correction may take
    counts: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    worker: asyncio.Task | None = None  # which corrects

    def check_key(self, request: Request) -> None:
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key and not hmac.compare_digest(sent.encode(), self.key.encode()):
            raise Refused(401, "wrong or no API key", www_authenticate="Bearer")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for a request. Raises Refused if all are taken."""
        if self.under_way >= self.places:
            raise Refused(503, f"{self.places} requests are under way", retry_after="1")
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    async def corrected(self, question: str | None, answer: str) -> str:
        """The correction of an answer, or the answer itself if there is none. Counts either."""
        if question is None or not answer.strip():
            self.counts["unchanged"] += 1
            return answer
        try:
            async with asyncio.timeout(self.timeout):
                found = await self.batches.correct(question, answer)
        except TimeoutError:
            why = f"the correction took longer than {self.timeout:g} s"
            raise Refused(503, why, retry_after="10") from None
        kind = "cut" if found.kept_because else "unchanged"
        self.counts[kind if found.text == answer else "corrected"] += 1
        return found.text


def build_app(service: Service, hosts: Sequence[str] = ("*",)) -> Starlette:
    """The application: an ASGI server such as uvicorn runs it.

    `hosts` are the names by which clients may call it: on a loopback address those of this machine,
    or a web page could have its visitor's browser call it.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.worker = asyncio.create_task(service.batches.run())
        yield
        service.worker.cancel()

    routes = [
        Route("/v1/chat/completions", _guarded(_chat), methods=["POST"]),
        Route("/v1/corrections", _guarded(_correction), methods=["POST"]),
        Route("/v1/models", _models),
        Route("/healthz", _health),
    ]
    handlers = {Refused: _refuse, Exception: _fail}
    named = [Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers, middleware=named)
    app.state.service = service
    return app


def _guarded(handle: Callable[[Service, Request, dict], Coroutine]) -> Callable:
    """An endpoint for those with a key and a place, which stops when the client hangs up."""

    async def endpoint(request: Request) -> Response:
        service = request.app.state.service
        service.check_key(request)
        with service.place():
            try:
                body = await _read_body(request)
            except ClientDisconnect:
                return Response(status_code=GONE)
            return await _unless_gone(request, handle(service, request, body))

    return endpoint


async def _models(request: Request) -> Response:
    service = request.app.state.service
    service.check_key(request)
    about = {"id": service.model, "object": "model", "created": 0, "owned_by": "alignlib"}
    return JSONResponse({"object": "list", "data": [about]})


async def _health(request: Request) -> Response:
    service = request.app.state.service
    works = service.worker is not None and not service.worker.done()
    about = {"status": "ok" if works else "the worker has stopped", "model": service.model}
    about |= {"under_way": service.under_way} | {kind: service.counts[kind] for kind in COUNTED}
    return JSONResponse(about, 200 if works else 503)


def _refuse(request: Request, error: Refused) -> Response:
    request.app.state.service.counts["failed"] += 1
    return _error(error.status, str(error), error.headers)


def _fail(request: Request, error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    request.app.state.service.counts["failed"] += 1
    return _error(500, "the service failed; its log says why", {})


# --- requests -------------------------------------------------------------------------------------


async def _chat(service: Service, request: Request, body: dict) -> Response:
    if service.upstream is None:
        raise Refused(404, "no upstream: start it with --upstream, or POST to /v1/corrections")
    if body.get("model") != service.model:
        raise Refused(404, f"no model {body.get('model')!r}; this is {service.model!r}")
    is_stream, stream_options = body.pop("stream", False), body.pop("stream_options", None)
    wants_original = body.pop("original", False)
    completion = await service.upstream(body)
    if request.headers.get("x-aligner", "").lower() != "off":
        question = _question(body.get("messages"))
        choices = completion["choices"]
        await asyncio.gather(*(_correct(service, question, c, wants_original) for c in choices))
    if not is_stream:
        return Response(json.dumps(completion), media_type="application/json")
    with_usage = isinstance(stream_options, dict) and stream_options.get("include_usage")
    return StreamingResponse(_events(completion, with_usage), media_type="text/event-stream")


async def _correct(service: Service, question: str | None, choice: dict, original: bool) -> None:
    """Put the correction into the place of a choice's answer, unless that calls a tool."""
    message = choice["message"]
    text = message_text(message.get("content"))
    answer = "" if message.get("tool_calls") else without_thought(text)[0]
    corrected = await service.corrected(question, answer)
    if corrected != answer:
        message["content"] = corrected
    if original:
        message["original"] = text


async def _correction(service: Service, request: Request, body: dict) -> Response:
    texts = [body.get(name) for name in ("question", "answer")]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise Refused(400, "write texts under 'question' and 'answer'")
    question, answer = map(whole_characters, texts)
    return JSONResponse({"correction": await service.corrected(question, answer)})


def _question(messages: object) -> str | None:
    """The prompt that the Aligner reads: all turns as one text, as the readers of rows make it.

    None for what they would leave out, such as a picture.
    """
    try:
        turns = Record({"messages": messages}, Place("the request", 1)).turns("messages")
        return as_text(turns or [])
    except (Dropped, DataError):
        return None


async def _read_body(request: Request) -> dict:
    """The JSON object that a request holds. Raises Refused if it holds none, or is too long."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "send the header Content-Type: application/json")  # no page's form can
    data = bytearray()
    length = 0
    try:
        async with asyncio.timeout(READING):
            async for chunk in request.stream():
                length += len(chunk)
                if length <= BODY:
                    data += chunk
                elif length > DRAINED:
                    break
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {READING:.0f} s") from None
    if length > BODY:
        raise Refused(413, f"the body has more than {BODY} bytes", connection="close")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refused(400, "the body is no JSON object")
    return body


async def _unless_gone(request: Request, work: Coroutine) -> Response:
    """The result of some work, which is cancelled when the client hangs up."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else Response(status_code=GONE)
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# --- replies --------------------------------------------------------------------------------------


def _error(status: int, message: str, headers: dict[str, str]) -> Response:
    """An error as OpenAI's clients read it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "code": status}}
    return JSONResponse(body, status, headers)


def _events(completion: dict, with_usage: bool) -> Iterator[str]:
    """A completion as the events of a stream, a word in each."""
    about = {name: completion.get(name) for name in ("id", "created", "model")}
    about["object"] = "chat.completion.chunk"
    for choice in completion["choices"]:
        index, message = choice.get("index", 0), dict(choice["message"])
        if calls := message.get("tool_calls"):  # which a stream has to number
            message["tool_calls"] = [{"index": i} | call for i, call in enumerate(calls)]
        words = re.findall(r"\S+\s*|\s+", message_text(message.pop("content", None)))
        deltas = [{"role": "assistant"} | message, *({"content": word} for word in words), {}]
        for i, delta in enumerate(deltas):
            end = choice.get("finish_reason") or "stop" if i == len(deltas) - 1 else None
            part = {"index": index, "delta": delta, "finish_reason": end}
            yield _event(about | {"choices": [part]})
    if with_usage:
        yield _event(about | {"choices": [], "usage": completion.get("usage")})
    yield "data: [DONE]\n\n"


def _event(body: dict) -> str:
    return f"data: {json.dumps(body)}\n\n"


# --- running --------------------------------------------------------------------------------------


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one. Raises OSError if the address is taken."""
    return socket.create_server((host, port), family=AF_INET6 if ":" in host else AF_INET)


def base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def is_local(listener: socket.socket) -> bool:
    """Whether this machine alone can reach it."""
    return ip_address(listener.getsockname()[0]).is_loopback


def run_service(service: Service, listener: socket.socket) -> None:
    """Run until SIGTERM or SIGINT; requests under way are then answered first."""
    _server(service, listener).run([listener])


@contextmanager
def running(service: Service) -> Iterator[str]:
    """The service in a thread of its own, while the `with` block runs; its base_url."""
    with listen("127.0.0.1", 0) as listener:
        server = _server(service, listener)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield base_url(listener)
        finally:
            server.should_exit = True
            thread.join()


def _server(service: Service, listener: socket.socket) -> uvicorn.Server:
    import uvicorn

    app = build_app(service, ("localhost", "127.0.0.1", "[::1]") if is_local(listener) else ("*",))
    options = {"log_level": "warning", "timeout_graceful_shutdown": ENDING}
    return uvicorn.Server(uvicorn.Config(app, **options))
