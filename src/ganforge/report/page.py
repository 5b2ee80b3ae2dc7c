"""The page as one HTML file: style, script, Plotly and data inside it, and nothing asked of any network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class PlotlyMissingError(ImportError):
    """The plotting library is not installed."""


def page(data: Mapping[str, Any], title: str, *, live: bool = False) -> str:
    """The HTML of the page.

    No script runs but the two whose hashes it names, so no string of a run can become one; the data is JSON that is
    never parsed as HTML.

    Args:
        data: of `report_data`.
        live: whether the page asks the server that it comes from for newer data.

    Raises:
        PlotlyMissingError: Plotly is not installed.
    """
    parts = resources.files("ganforge.report")
    plotly, script = plotly_script(), parts.joinpath("page.js").read_text(encoding="utf-8")
    connect = "connect-src 'self'; img-src 'self' data: blob:" if live else "img-src data: blob:"
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(script)}; style-src 'unsafe-inline'; {connect}; "
        "base-uri 'none'; form-action 'none'"
    )
    written = {
        "title": html.escape(title),
        "policy": html.escape(policy, quote=True),
        "style": parts.joinpath("page.css").read_text(encoding="utf-8"),
        "data": as_json({"title": title, "live": live, **data}).replace("<", "\\u003c"),
        "plotly": plotly,
        "script": script,
    }
    template = parts.joinpath("page.html").read_text(encoding="utf-8")
    pieces = template.split("@@")  # text, name, text, name, ...
    return "".join(written[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def as_json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def plotly_script() -> str:
    """Plotly's JavaScript, of the Python package.

    Raises:
        PlotlyMissingError: it is not installed.
    """
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise PlotlyMissingError("ganforge report needs Plotly: pip install 'ganforge[report]'")
    text = (Path(spec.origin).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    assert "</script" not in text.lower()
    return text


def _hash(script: str) -> str:
    """As a content security policy names a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
