"""An OpenAI-compatible chat server for tests: what it answers is a function of the test's."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Content = dict[str, Any] | str
Answering = Callable[["Asked"], Content]


class Asked:
    """One question as the server got it."""

    def __init__(self, body: dict[str, Any], headers: dict[str, str]) -> None:
        self.body, self.headers = body, headers
        self.messages = body["messages"]

    @property
    def role(self) -> str:
        """Which role asked, by the record that it wants."""
        named = {
            "RequestReading": "parser",
            "Localization": "anatomy",
            "Assessment": "pathology",
            "FeatureMap": "features",
            "ReportDraft": "report",
        }
        return named[self.body["response_format"]["json_schema"]["name"]]

    def data(self, name: str) -> Any:
        """A named value of the question."""
        text = self.messages[1]["content"]
        found = re.search(rf"^<{name}>\n(.*)\n</{name}>$", text, flags=re.MULTILINE)
        assert found, text
        return json.loads(found.group(1))


class ChatServer:
    """Serves on a free port of this machine; `asked` holds what came.

    `fault` is what goes wrong on the wire: "slow" (seconds in `delay`), "cut" (the connection
    ends mid-answer), "drip" (a byte every tenth of a second), an HTTP status, or None.
    """

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.fault: str | int | None = None
        self.delay = 30.0
        self.usage = True
        self.finish_reason = "stop"
        self.asked: list[Asked] = []
        self._closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

            def do_POST(self) -> None:
                outer._serve(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        asked = Asked(body, dict(handler.headers))
        self.asked.append(asked)
        if isinstance(self.fault, int):
            key = handler.headers.get("Authorization", "")
            self._send(handler, self.fault, {"error": {"message": f"no luck with {key}"}})
            return
        if self.fault == "slow" and self._closing.wait(self.delay):
            return
        content = self.answering(asked)
        text = content if isinstance(content, str) else json.dumps(content)
        answer: dict[str, Any] = {
            "id": "chat",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": self.finish_reason,
                    "message": {"role": "assistant", "content": text},
                }
            ],
        }
        if self.usage:
            answer["usage"] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        self._send(handler, 200, answer)

    def _send(self, handler: BaseHTTPRequestHandler, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        try:
            if self.fault == "cut":
                handler.wfile.write(data[: len(data) // 2])
                handler.wfile.flush()
                handler.connection.close()
            elif self.fault == "drip":
                for byte in data:
                    handler.wfile.write(bytes([byte]))
                    handler.wfile.flush()
                    time.sleep(0.1)
            else:
                handler.wfile.write(data)
        except OSError:
            return  # the client has gone, as it should
