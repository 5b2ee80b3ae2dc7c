"""Weights & Biases: figures against kimg, sample grids, the configuration, and the best and last scores."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from ganforge.training.loggers.logger import Logger, RunInfo

log = logging.getLogger("ganforge")


class WandbLogger(Logger):
    """One W&B run; its id is kept in the run's folder, so a resumed run continues it.

    Args:
        mode: `offline` writes beside the run, `online` to the server too, `disabled` nothing.
        entity, project, group, job_type, notes: as in `wandb.init`.
        tags: beside the run's own.
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
        connect_seconds: float = 20.0,
        finish_seconds: float = 120.0,
    ) -> None:
        self.mode = mode
        self.connect_seconds = connect_seconds
        self.finish_seconds = finish_seconds
        self._arguments = {
            "project": project,
            "entity": entity,
            "group": group,
            "job_type": job_type,
            "notes": notes,
        }
        self._tags = tuple(tags)
        self._run: Any = None

    def start(self, run: RunInfo) -> None:
        import wandb

        if self.mode == "disabled":
            return
        id_file = run.folder / "wandb_run_id.txt"
        if not id_file.exists():
            id_file.write_text(secrets.token_hex(4) + "\n")
        arguments: dict[str, Any] = {
            **self._arguments,
            "id": id_file.read_text().strip(),
            "name": f"{run.name}/{run.folder.name}",
            "tags": [*self._tags, *run.tags],
            "config": dict(run.config),
            "dir": str(run.folder),
            "settings": wandb.Settings(
                init_timeout=self.connect_seconds, silent=True, console="off", x_disable_meta=False
            ),
        }
        try:
            self._run = wandb.init(
                mode=self.mode, resume="allow" if self.mode == "online" else None, **arguments
            )
        except Exception as error:
            if self.mode == "offline":
                raise
            log.warning(
                "W&B cannot be reached, the run is logged offline (wandb sync uploads it later): %s", error
            )
            wandb.teardown()
            self._run = wandb.init(mode="offline", **arguments)
        self._run.define_metric("kimg")
        self._run.define_metric("*", step_metric="kimg")

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        if self._run is not None:
            self._run.log(dict(values), step=images_seen)

    def picture(self, name: str, picture: Tensor, images_seen: int) -> None:
        if self._run is not None:
            import wandb

            image = wandb.Image(picture.permute(1, 2, 0).squeeze(-1).cpu().numpy())
            self._run.log({name: image, "kimg": images_seen / 1000}, step=images_seen)

    def summary(self, values: Mapping[str, Any]) -> None:
        if self._run is not None:
            self._run.summary.update(dict(values))

    def config(self, values: Mapping[str, Any]) -> None:
        if self._run is not None:
            self._run.config.update(dict(values), allow_val_change=True)

    def finish(self, exit_code: int) -> None:
        if self._run is None:
            return
        run, self._run = self._run, None
        thread = threading.Thread(target=run.finish, kwargs={"exit_code": exit_code}, daemon=True)
        thread.start()
        thread.join(self.finish_seconds)
        if thread.is_alive():
            log.warning(
                "W&B did not finish uploading in %g s; wandb sync uploads the rest", self.finish_seconds
            )
