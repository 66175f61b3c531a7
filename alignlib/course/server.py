"""A server on this machine that speaks OpenAI's protocol in front of any upstream: lesson 03
asks it as it would a paid one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ..upstream import Upstream


class Handler(BaseHTTPRequestHandler):
    """POST /v1/chat/completions, answered with what the server's `upstream` says to the last
    turn.
    """

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions" or asked["model"] != self.server.name:
            return self.reply(
                404,
                {
                    "error": {
                        "message": f"no such path or model; this is {self.server.name}",
                        "type": "not_found",
                    }
                },
            )
        try:
            with self.server.lock:  # one model, one question at a time
                [answer] = self.server.upstream(
                    [asked["messages"][-1]["content"]], seed=asked.get("seed") or 0
                )
        except Exception as error:  # the asker is told, as a real server would
            return self.reply(400, {"error": {"message": f"{type(error).__name__}: {error}"}})
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer},
            "finish_reason": "stop",
        }
        self.reply(
            200,
            {
                "id": "local",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": asked["model"],
                "choices": [choice],
            },
        )

    def reply(self, status: int, body: dict | bytes, kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing on stderr."""


class _Listener(ThreadingHTTPServer):
    request_queue_size = 128  # of connections that wait to be taken

    def handle_error(self, *_: object) -> None:
        """Callers may hang up."""


@contextmanager
def serving(
    upstream: Upstream, name: str = "town", handler: type[Handler] = Handler
) -> Iterator[str]:
    """The base_url of a server that lives as long as the `with` block."""
    server = _Listener(("127.0.0.1", 0), handler)
    server.upstream, server.name, server.lock = upstream, name, threading.Lock()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
