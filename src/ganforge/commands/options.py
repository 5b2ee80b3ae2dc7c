"""Where the configuration lies, and what there is to choose from."""

from __future__ import annotations

from pathlib import Path


def options() -> dict[str, list[str]]:
    """The names of every group's options, read off conf/; a group inside another is named GROUP/INNER."""
    top = config_folder()
    groups = sorted(
        path for path in top.rglob("*") if path.is_dir() and top / "hydra" not in (path, *path.parents)
    )
    return {
        group.relative_to(top).as_posix(): sorted(file.stem for file in group.glob("*.yaml"))
        for group in groups
    }


def config_folder() -> Path:
    """The package's own conf/ when installed, the checkout's otherwise."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"
