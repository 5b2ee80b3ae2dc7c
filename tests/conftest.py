"""What holds for all tests, and what those of several folders share: a server that W&B can be sent to."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: else one worker is still at them when the others have nothing left."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


class Server(ThreadingHTTPServer):
    """As much of W&B's server as runs and artifacts need: it keeps what it is sent.

    Attributes:
        runs: by id, the rows of each file that W&B streams, and how the run ended.
        artifacts: what was asked for, each with `used` where it was a run's input.
        alerts, views: likewise.
    """

    daemon_threads = True
    lost = False  # it then answers nothing

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that the other side closes are nothing to speak of."""

    def rows(self, run: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.runs[run]["wandb-history.jsonl"]]

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any] | None:
        project = {"id": "P", "name": "p", "entity": {"id": "E", "name": "us"}}
        if operation == "UpsertBucket":
            run = self.runs.setdefault(asked["name"], defaultdict(list))
            run |= {key: asked[key] for key in ("groupName", "jobType", "config") if asked[key]}
            bucket = {"id": "R", "name": asked["name"], "displayName": asked["displayName"]}
            bucket |= {"project": project, "historyLineCount": len(run["wandb-history.jsonl"])}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "RunResumeStatus":
            run = self.runs.get(asked["name"])
            if run is None:
                return {"model": {**project, "bucket": None}}
            history, events = run["wandb-history.jsonl"], run["wandb-events.jsonl"]
            bucket = {"id": "R", "name": asked["name"], "displayName": "n", "tags": []}
            bucket |= {"historyLineCount": len(history), "historyTail": json.dumps(history[-1:])}
            bucket |= {"eventsLineCount": len(events), "eventsTail": json.dumps(events[-1:])}
            bucket |= {"logLineCount": 0, "summaryMetrics": "{}", "config": "{}", "wandbConfig": '{"t": {}}'}
            return {"model": {**project, "bucket": bucket}}
        if operation in ("Viewer", "GetDefaultEntity"):
            viewer = {"id": "V", "entity": "us", "username": "us", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": viewer}
        if operation == "CreateRunFiles":
            urls = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in asked["files"]]
            return {"createRunFiles": {"runID": "R", "uploadHeaders": [], "files": urls}}
        if operation == "CreateArtifact":
            self.artifacts.append(asked["input"])
            # "Is here already" spares the upload of its files.
            artifact = {"id": str(len(self.artifacts) - 1), "state": "COMMITTED"}
            artifact["artifactSequence"] = {"id": "S", "latestArtifact": None}  # type: ignore[assignment]
            return {"createArtifact": {"artifact": artifact}}
        if operation == "UseArtifact":
            (artifact,) = {value for key, value in asked["input"].items() if key.lower() == "artifactid"}
            self.artifacts[int(artifact)]["used"] = True
            return {"useArtifact": {"artifact": {"id": artifact}}}
        if operation == "UpsertView2":
            self.views.append(asked)
            return {"upsertView": {"view": {"id": "W", "name": "w"}, "inserted": True}}
        if operation == "NotifyScriptableRunAlert":
            self.alerts.append(asked)
            return {"notifyScriptableRunAlert": {"success": True}}
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def _reply(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self._body()
        self._reply({})

    def do_POST(self) -> None:
        body = self._body()
        if self.server.lost:
            self.close_connection = True
            return None
        if self.path.startswith("/graphql"):
            asked = json.loads(body)
            (operation,) = re.findall(r"^\s*(?:query|mutation) (\w+)", asked["query"], re.MULTILINE)
            data = self.server.answer(operation, asked.get("variables") or {})
            unknown = {"errors": [{"message": f"no {operation} here"}]}
            return self._reply(unknown if data is None else {"data": data})
        if self.path.endswith("/file_stream"):
            sent = json.loads(body)
            run = self.server.runs[self.path.split("/")[-2]]
            for name, part in (sent.get("files") or {}).items():
                run[name][part["offset"] : part["offset"] + len(part["content"])] = part["content"]
            if sent.get("complete"):
                run["exit_code"] = sent["exitcode"]
        return self._reply({})


@pytest.fixture
def wandb_server(no_wandb_around: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def no_wandb_around(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B with nothing of the environment's, and with nobody at the other end."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setattr(logging.getLogger("ganforge"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("ganforge"), "handlers", [])
    yield
    pytest.importorskip("wandb").teardown()
