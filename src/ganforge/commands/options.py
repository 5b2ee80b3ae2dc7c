"""Where the configuration lies, and what there is to choose from."""

from __future__ import annotations

from pathlib import Path

SWEEPER = "hydra/sweeper"  # the group that is typed as `sweep`


def options() -> dict[str, list[str]]:
    """The names of every group's options, read off conf/; a group inside another is named GROUP/INNER.

    Of Hydra's own groups there is the one that is ours: `sweep`.
    """
    top = config_folder()
    folders = {path.relative_to(top).as_posix(): path for path in sorted(top.rglob("*")) if path.is_dir()}
    groups = {
        name.replace(SWEEPER, "sweep", 1): path
        for name, path in folders.items()
        if name.split("/")[0] != "hydra" or name.startswith(SWEEPER)
    }
    return {
        group: sorted(file.stem for file in path.glob("*.yaml")) for group, path in sorted(groups.items())
    }


def config_folder() -> Path:
    """The package's own conf/ when installed, the checkout's otherwise."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"
