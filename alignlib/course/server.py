"""A local server with OpenAI's protocol in front of any upstream, for lesson 03 and the tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ..upstream import Upstream


class Handler(BaseHTTPRequestHandler):
    """POST /v1/chat/completions: the server's `upstream` answers the last message."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions" or request["model"] != self.server.name:
            message = f"no such path or model; this is {self.server.name}"
            return self.reply(404, {"error": {"message": message, "type": "not_found"}})
        question, seed = request["messages"][-1]["content"], request.get("seed") or 0
        try:
            with self.server.lock:  # one model, one question at a time
                [answer] = self.server.upstream([question], seed=seed)
        except Exception as error:  # is sent to the client, as a real server does
            return self.reply(400, {"error": {"message": f"{type(error).__name__}: {error}"}})
        message = {"role": "assistant", "content": answer}
        completion = {
            "id": "local",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        self.reply(200, completion)

    def reply(self, status: int, body: dict | bytes, kind: str = "application/json") -> None:
        """Send a response; a dict as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing on stderr."""


class _Listener(ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait to be accepted

    def handle_error(self, *_: object) -> None:
        """Print nothing when a client hangs up."""


@contextmanager
def serving(
    upstream: Upstream, name: str = "town", handler: type[Handler] = Handler, port: int = 0
) -> Iterator[str]:
    """The base_url of a server that runs while the `with` block does; 0 means any free port."""
    server = _Listener(("127.0.0.1", port), handler)
    server.upstream, server.name, server.lock = upstream, name, threading.Lock()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
