"""Where what can be made or downloaded again is kept."""

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """$GANFORGE_CACHE, or ganforge in the user's cache folder."""
    if chosen := os.environ.get("GANFORGE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ganforge"
