"""A tracking server as far as a training speaks to it: MLflow's REST paths over HTTP, kept in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Asked = dict[str, Any]
_MISSING = 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}


class Tracker:
    """What the server was told; `refuses` makes it answer with an error."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.refuses = False

    def answer(self, path: str, asked: Asked) -> tuple[int, Asked]:
        """Status and document of one request."""
        if self.refuses:
            return 400, {"error_code": "INVALID_STATE", "message": "not today"}
        name = path.partition("/mlflow/")[2]
        if name.startswith("experiments/") or name == "runs/create":
            return self._begin(name, asked)
        return self._go_on(name, asked) if asked.get("run_id") in self.runs else _MISSING

    def _begin(self, name: str, asked: Asked) -> tuple[int, Asked]:
        if name == "experiments/get-by-name":
            known = self.experiments.get(asked["experiment_name"])
            return (200, {"experiment": {"experiment_id": known}}) if known else _MISSING
        if name == "experiments/create":
            self.experiments[asked["name"]] = str(len(self.experiments) + 1)
            return 200, {"experiment_id": self.experiments[asked["name"]]}
        run = f"run{len(self.runs)}"
        self.runs[run] = {
            "name": asked["run_name"], "experiment": asked["experiment_id"], "params": {}, "metrics": [],
            "statuses": ["RUNNING"],
        }  # fmt: skip
        return 200, self._run(run)

    def _go_on(self, name: str, asked: Asked) -> tuple[int, Asked]:
        run = asked["run_id"]
        told = self.runs[run]
        told["params"] |= {one["key"]: one["value"] for one in asked.get("params", [])}
        told["metrics"] += [(one["key"], one["step"], one["value"]) for one in asked.get("metrics", [])]
        if name == "runs/update":
            told["statuses"].append(asked["status"])
            return 200, {"run_info": self._info(run)}
        return 200, self._run(run) if name == "runs/get" else {}

    def _run(self, run: str) -> Asked:
        return {"run": {"info": self._info(run), "data": {}}}

    def _info(self, run: str) -> dict[str, Any]:
        told = self.runs[run]
        return {
            "run_id": run, "run_uuid": run, "run_name": told["name"], "experiment_id": told["experiment"],
            "status": told["statuses"][-1], "start_time": 1, "lifecycle_stage": "active", "artifact_uri": "",
        }  # fmt: skip


@contextmanager
def serving(tracker: Tracker) -> Iterator[str]:
    """The server's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            self._answer(asked.path, {key: values[0] for key, values in parse_qs(asked.query).items()})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer(urlsplit(self.path).path, json.loads(body or b"{}"))

        def _answer(self, path: str, asked: dict[str, Any]) -> None:
            status, document = tracker.answer(path, asked)
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://someone:secret@127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
