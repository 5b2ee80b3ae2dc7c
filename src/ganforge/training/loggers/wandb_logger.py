"""Weights & Biases: figures against kimg, sample grids, histograms, evaluations, scores, checkpoints and alerts."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ganforge.training.loggers.logger import Logger, RunInfo
from ganforge.training.loggers.wandb_files import mend

log = logging.getLogger("ganforge")

_ABANDON_SECONDS = 10.0
_PROBE = b"\0" * 65536  # twice what W&B writes at a time


class WandbLogger(Logger):
    """One W&B run; its id is kept in the run's folder, so a resumed run continues it.

    The run's configuration has its parts under `parts`, by group: they can be filtered and grouped by. The best
    checkpoint is an artifact with the aliases `best` and `latest`, and the data set, with its fingerprint, one that the
    run has used: so the server draws which checkpoints came of which data.

    Args:
        mode: `offline` writes beside the run, `online` to the server too, `disabled` nothing.
        entity, project, job_type, notes: as in `wandb.init`.
        group: None takes the sweep's folder for a job of one, and the experiment's name otherwise.
        tags: beside the run's own.
        upload: which checkpoints go to the server: `best`, `all` (the last one as well), or `none`: then the artifact
            says where the file lies and what its hash is.
        connect_seconds: how long to wait for the server at the start before going on offline.
        finish_seconds: how long to wait for the last upload at the end.
    """

    def __init__(
        self,
        mode: Literal["online", "offline", "disabled"] = "offline",
        project: str = "ganforge",
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = "train",
        tags: Sequence[str] = (),
        notes: str | None = None,
        upload: Literal["none", "best", "all"] = "none",
        connect_seconds: float = 20.0,
        finish_seconds: float = 120.0,
    ) -> None:
        self.mode = mode
        self.group = group
        self.upload = upload
        self.connect_seconds = connect_seconds
        self.finish_seconds = finish_seconds
        self._arguments = {"project": project, "entity": entity, "job_type": job_type, "notes": notes}
        self._tags = tuple(tags)
        self._wandb: Any = None
        self._run: Any = None
        self._folder = Path()
        self._info: RunInfo | None = None
        self._best: tuple[Path, dict[str, Any]] | None = None
        self._uploaded = -1  # steps up to here are on the server already
        self._set_data_dir = False

    def start(self, run: RunInfo) -> None:
        import wandb

        if self.mode == "disabled":
            return
        self._wandb, self._folder, self._info = wandb, run.folder, run
        if "WANDB_DATA_DIR" not in os.environ:  # artifacts wait in there, by default in the user's home
            os.environ["WANDB_DATA_DIR"] = str(run.folder / "wandb")
            self._set_data_dir = True
        id_file = run.folder / "wandb_run_id.txt"
        if not id_file.exists():
            id_file.write_text(secrets.token_hex(4) + "\n")
        arguments: dict[str, Any] = {
            **self._arguments,
            "group": self.group or run.group,
            "id": id_file.read_text().strip(),
            "name": f"{run.name}/{run.folder.name}",
            "tags": [*self._tags, *run.tags],
            "config": {**run.config, "parts": dict(run.parts)},
            "dir": str(run.folder),
            "resume": "allow",  # without it a resumed run's upload would replace what was there
            "settings": wandb.Settings(
                init_timeout=self.connect_seconds,
                silent=True,
                console="off",
                x_disable_meta=False,
                x_transaction_log_flush_interval=1.0,  # what a kill may lose
            ),
        }
        self._uploaded = mend(run.folder, run.images_seen)
        # What goes wrong is said by ganforge, once.
        wandb.setup(wandb.Settings(show_warnings=False, show_errors=False))
        try:
            self._run = wandb.init(mode=self.mode, **arguments)
        except Exception as error:
            if self.mode == "offline":
                raise
            log.warning(
                "W&B cannot be reached, the run is logged offline (wandb sync %s uploads it later): %s",
                run.folder / "wandb",
                " ".join(str(error).split()),
            )
            wandb.teardown()
            self._run = wandb.init(mode="offline", **arguments)
        if not self._run.offline:
            self._uploaded = self._run.starting_step - 1
        self._guard(lambda: self._describe(run))

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        self._probe_disk()
        self._log(lambda: values, images_seen)

    def picture(self, name: str, picture: Tensor, images_seen: int) -> None:
        pixels = picture.permute(1, 2, 0).squeeze(-1).cpu().numpy()
        self._log(lambda: {name: self._wandb.Image(pixels)}, images_seen)

    def histogram(self, name: str, values: Tensor, images_seen: int) -> None:
        counted = np.histogram(values.float().cpu().numpy(), bins=64)
        self._log(lambda: {name: self._wandb.Histogram(np_histogram=counted)}, images_seen)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], images_seen: int) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[row.get(column) for column in columns] for row in rows]
        self._log(lambda: {name: self._wandb.Table(columns=columns, data=data)}, images_seen)

    def alert(self, title: str, text: str, images_seen: int) -> None:
        if self._run is not None:
            self._guard(lambda: self._run.alert(title=title, text=text))

    def checkpoint(self, path: Path, facts: Mapping[str, Any]) -> None:
        self._best = path, dict(facts)

    def rolled_back(self, images_seen: int) -> None:
        """As where the run ends and is resumed from there; a server that has later rows gets none up to them."""
        if self._run is not None:
            assert self._info is not None
            best, self._best = self._best, None
            self.finish(0)
            self.start(replace(self._info, images_seen=images_seen))
            self._best = best

    def summary(self, values: Mapping[str, Any]) -> None:
        if self._run is not None:
            self._guard(lambda: self._run.summary.update(dict(values)))

    def config(self, values: Mapping[str, Any]) -> None:
        if self._run is not None:
            self._guard(lambda: self._run.config.update(dict(values), allow_val_change=True))

    def finish(self, exit_code: int) -> None:
        if self._run is None:
            return
        run = self._run
        self._guard(self._log_checkpoints)
        self._run = None

        def finish() -> None:
            run.finish(exit_code=exit_code)
            self._wandb.teardown()  # its process ends, and only then the file is whole

        try:
            if not _within(self.finish_seconds, finish):
                log.warning(
                    "W&B did not finish uploading in %g s; wandb sync --include-online %s uploads the rest",
                    self.finish_seconds,
                    self._folder / "wandb",
                )
                self._abandon()
        except Exception:
            self._abandon()
            raise
        finally:
            self._forget_data_dir()

    def _log(self, values: Callable[[], Mapping[str, Any]], images_seen: int) -> None:
        """Of a step that is on the server already nothing is logged."""
        if self._run is None or images_seen <= self._uploaded:
            return
        self._guard(lambda: self._run.log({"kimg": images_seen / 1000, **values()}, step=images_seen))

    def _probe_disk(self) -> None:
        """W&B's own process says nothing of a disk that is full: rows would be lost without a word."""
        if self._run is None:
            return

        def write() -> None:
            probe = self._folder / "wandb" / ".probe"
            try:
                probe.write_bytes(_PROBE)
            finally:
                probe.unlink(missing_ok=True)

        self._guard(write)

    def _guard(self, call: Callable[[], None]) -> None:
        """Whoever logs leaves a logger out that fails; what W&B has running by then ends here."""
        try:
            call()
        except Exception:
            self._run = None
            self._abandon()
            self._forget_data_dir()
            raise

    def _abandon(self) -> None:
        def teardown() -> None:
            try:
                self._wandb.teardown()
            except Exception as error:  # its process may be gone
                log.debug("W&B could not be torn down: %s", error)

        _within(_ABANDON_SECONDS, teardown)

    def _forget_data_dir(self) -> None:
        if self._set_data_dir:
            os.environ.pop("WANDB_DATA_DIR", None)
            self._set_data_dir = False

    def _describe(self, run: RunInfo) -> None:
        """The x axis of everything, and the data set as an input: one version of that artifact a fingerprint."""
        self._run.define_metric("kimg")
        self._run.define_metric("*", step_metric="kimg")
        data = run.data()
        if not data:
            return
        artifact = self._wandb.Artifact(
            _artifact_name(f"data-{data['name']}"), type="dataset", metadata=dict(data)
        )
        with artifact.new_file("data.json") as file:
            file.write(json.dumps(dict(data), indent=2))
        # What `use_artifact` does with a new artifact; by itself it refuses all of them offline.
        self._run._log_artifact(artifact, is_user_created=True, use_after_commit=True)

    def _log_checkpoints(self) -> None:
        if self._best is None or not self._best[0].exists():
            return
        path, facts = self._best
        artifact = self._wandb.Artifact(
            _artifact_name(f"checkpoint-{self._run.id}"), type="model", metadata=facts
        )
        if self.upload == "none":
            artifact.add_reference(path.absolute().as_uri(), name=path.name)
        else:
            last = path.with_name("last.ckpt")
            for file in [path, *([last] if self.upload == "all" and last.exists() else [])]:
                artifact.add_file(str(file), skip_cache=True)
        self._run.log_artifact(artifact, aliases=["best", "latest"])


def _artifact_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text)[:128]


def _within(seconds: float, call: Callable[[], None]) -> bool:
    """Whether the call came back in time; it goes on in a thread that nothing waits for. Its error is raised here."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed and not thread.is_alive():
        raise failed[0]
    return not thread.is_alive()
