"""What holds for all tests, and what those of several folders share: a server that W&B can be sent to, and folders as
runs leave them, written in a moment.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

WriteRun = Callable[..., Path]


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


@pytest.fixture(scope="session")
def write_run() -> WriteRun:
    """Writes a run's folder: its configuration, curves, scores, grids and whatever else is asked for."""
    return _write_run


def _write_run(
    folder: Path,
    *,
    seed: int = 0,
    loss: str = "hinge.Hinge",
    lr: float = 1e-3,
    fid: Sequence[float] = (30.0, 20.0, 10.0),
    end: str | None = "ended",
    failure: str | None = None,
    protocol: str = "aaaa0000",
    settings: Mapping[str, Any] | None = None,
    grids: int = 0,
    health: Sequence[Mapping[str, Any]] = (),
    figures: Mapping[str, float] | None = None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "name": "digits",
        "seed": seed,
        "total_kimg": float(len(fid)),
        "loss": {"_target_": f"ganforge.losses.{loss}"},
        "game": {"loss": {"_target_": f"ganforge.losses.{loss}"}},
        "optimizer": {"generator": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": lr}},
        **(settings or {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "overrides.yaml").write_text(yaml.safe_dump([f"loss={loss.partition('.')[0]}", f"seed={seed}"]))
    rows = ["images_seen,kimg,train/generator/adversarial,val/fid"]
    rows += [f"{1000 * k},{k},{0.1 * k:g},{value}" for k, value in enumerate(fid, start=1)]
    (folder / "metrics.csv").write_text("".join(f"{row}\r\n" for row in rows))
    scores = {
        "scores": {"fid": fid[-1], "precision": 0.5, **(figures or {})},
        "made_by": {
            "protocol": protocol,
            "extractor": {"name": "digits"},
            "generated": {"num_samples": 100, "batch_norm": protocol},
        },
        "better": {"fid": "lower", "precision": "higher", **dict.fromkeys(figures or {}, "higher")},
        "monitor": "fid",
        "curves": {"val": f"few{protocol}"},
    }
    (folder / "scores.json").write_text(json.dumps(scores))
    start: dict[str, Any] = {
        "time": "2026-01-01T10:00:00+00:00",
        "command": ["ganforge", "train"],
        "seed": seed,
    }
    if end is not None:
        start["end"] = {"time": "2026-01-01T11:00:00+00:00", "state": end, "reason": failure or "3 kimg"}
    (folder / "run.json").write_text(json.dumps({"starts": [start]}))
    if failure is not None:
        (folder / "failure.txt").write_text(failure + "\n")
    if health:
        (folder / "health.jsonl").write_text("".join(json.dumps(event) + "\n" for event in health))
    for i in range(grids):
        path = folder / "samples" / f"{i * len(fid) / max(grids - 1, 1):010.3f}_kimg.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (64, 64), 40 + 10 * i).save(path)
    return folder
