"""The page served on this machine while runs train: it asks again and again for what has changed."""

from __future__ import annotations

import gzip
import hashlib
import threading
import urllib.parse
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ganforge.report.data import Collector
from ganforge.report.page import as_json, page, plotly_script
from ganforge.runs import Grid, RunFolder, find_runs

ADDRESS = "127.0.0.1"
MOST_GRIDS = 200  # of a run that the slider goes through
TYPES = {
    ".png": "image/png",
    ".webp": "image/webp",
    ".csv": "text/plain; charset=utf-8",
    ".json": "application/json",
}


def serve(folders: Sequence[Path], title: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until Ctrl-C.

    Args:
        ready: is told the page's address once it answers.

    Raises:
        FileNotFoundError: a folder that does not exist.
        ValueError: no run in any of them, or a port that is in use.
        PlotlyMissingError: Plotly is not installed.
    """
    plotly_script()
    live = Live(folders, title)
    live.refresh()
    try:
        server = ThreadingHTTPServer((ADDRESS, port), live.handler())
    except (OSError, OverflowError) as error:
        raise ValueError(f"port={port} cannot be used: {error}; port=0 takes any that is free") from error
    server.daemon_threads = True
    with server:
        ready(f"http://{ADDRESS}:{server.server_port}/")
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            return


class Live:
    """What the server knows: the runs as they were last looked at, and which files the page may ask for."""

    def __init__(self, folders: Sequence[Path], title: str) -> None:
        self._folders, self._title = folders, title
        self._files: dict[str, Path] = {}
        self._collector = Collector(self._grids, self._address)
        self._lock = threading.Lock()
        self._collected: dict[str, Any] = {}  # the collector's own, the same one while nothing changes
        self._data: dict[str, Any] = {}

    def refresh(self) -> dict[str, Any]:
        """Looks at the folders; `tag` changes when there is something new."""
        with self._lock:
            data = self._collector.collect(find_runs(self._folders))
            if data is self._collected:
                return self._data
            self._collected = data
            unmade = {key: value for key, value in data.items() if key != "made"}
            tag = hashlib.sha256(as_json(unmade).encode()).hexdigest()[:16]
            if tag != self._data.get("tag"):
                self._data = {**data, "tag": tag}
            return self._data

    def _grids(self, run: RunFolder, grids: Sequence[Grid]) -> list[list[Any]]:
        step = max(-(-len(grids) // MOST_GRIDS), 1)
        return [[grid.kimg, self._address(grid.path)] for grid in reversed(grids[::-1][::step])]

    def _address(self, path: Path) -> str:
        """An address that is good for this file only; nothing else of the disk can be asked for."""
        key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:20]
        self._files[key] = path
        return f"files/{key}/{urllib.parse.quote(path.name)}"

    def handler(self) -> type[BaseHTTPRequestHandler]:
        live = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                host = self.headers.get("Host", "").rpartition(":")[0]
                if host not in (ADDRESS, "localhost"):  # another site's name that was made to point here
                    return self._send(HTTPStatus.FORBIDDEN, b"this page is for this machine", "text/plain")
                url = urllib.parse.urlsplit(self.path)
                try:
                    if url.path == "/":
                        text = page(live.refresh(), live._title, live=True)
                        return self._send(HTTPStatus.OK, text.encode(), "text/html; charset=utf-8")
                    if url.path == "/data.json":
                        return self._data(urllib.parse.parse_qs(url.query).get("have", [""])[0])
                    if url.path.startswith("/files/"):
                        return self._file(url.path.split("/")[2])
                except (OSError, ValueError) as error:
                    return self._send(
                        HTTPStatus.SERVICE_UNAVAILABLE, str(error).encode(), "text/plain; charset=utf-8"
                    )
                return self._send(HTTPStatus.NOT_FOUND, b"no such page", "text/plain")

            def _data(self, have: str) -> None:
                data = live.refresh()
                if data["tag"] == have:
                    return self._send(HTTPStatus.NO_CONTENT, b"", None)
                return self._send(HTTPStatus.OK, as_json(data).encode(), "application/json")

            def _file(self, key: str) -> None:
                path = live._files.get(key)
                if path is None:
                    return self._send(HTTPStatus.NOT_FOUND, b"no such file", "text/plain")
                if path.is_dir():
                    names = "\n".join(sorted(child.name for child in path.iterdir()))
                    return self._send(
                        HTTPStatus.OK, f"{path}\n\n{names}\n".encode(), "text/plain; charset=utf-8"
                    )
                kind = TYPES.get(
                    path.suffix,
                    "application/octet-stream" if path.suffix == ".ckpt" else "text/plain; charset=utf-8",
                )
                return self._send(HTTPStatus.OK, path.read_bytes(), kind)

            def _send(self, status: HTTPStatus, content: bytes, kind: str | None) -> None:
                squeeze = (
                    len(content) > 1000
                    and kind != "image/png"
                    and "gzip" in self.headers.get("Accept-Encoding", "")
                )
                if squeeze:
                    content = gzip.compress(content, compresslevel=1)
                self.send_response(status)
                if kind is not None:
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(content)))
                if squeeze:
                    self.send_header("Content-Encoding", "gzip")
                self.send_header("Cache-Control", "no-store")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *values: Any) -> None:
                return None

        return Handler
