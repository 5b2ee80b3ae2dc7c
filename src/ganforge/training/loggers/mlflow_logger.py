"""MLflow: figures, sample grids, the configuration as parameters, and the data set as a run's input."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor

from ganforge.training.loggers.logger import Logger, RunInfo

_LONGEST = 6000  # characters that MLflow takes of a parameter
_AT_A_TIME = 100  # parameters that it takes in one call


class MlflowLogger(Logger):
    """One MLflow run; its id is kept in the run's folder, so a resumed run continues it. Steps are images seen.

    MLflow takes nothing back: where a resumed run goes on from before the last step that it had logged, it logs from
    that step on.

    Args:
        uri: of the tracking server, or `sqlite:///FILE`; None for `mlflow.db` beside the run's folder, where the other
            runs of the experiment, or the other jobs of the sweep, are too.
        experiment: None takes the run's.
    """

    def __init__(self, uri: str | None = None, experiment: str | None = None) -> None:
        self.uri = uri
        self.experiment = experiment
        self._client: Any = None
        self._id = ""
        self._logged = self._last = -1

    def start(self, run: RunInfo) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise ImportError("logger=mlflow needs MLflow: pip install 'ganforge[mlflow]'") from error
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        home = run.folder.absolute().parent
        uri = self.uri or f"sqlite:///{home / 'mlflow.db'}"
        file = uri.removeprefix("sqlite:///")
        # Two jobs that make the tables of a file at the same time would both fail.
        with FileLock(f"{file}.lock") if file != uri else contextlib.nullcontext():
            self._client = MlflowClient(uri)
            experiment = self._experiment(self.experiment or run.name, None if self.uri else home / "mlflow")
        id_file = run.folder / "mlflow_run_id.txt"
        if id_file.exists():
            self._id = id_file.read_text().strip()
            self._client.update_run(self._id, status="RUNNING")
            self._logged = max(
                (m.step for m in self._client.get_metric_history(self._id, "kimg")), default=-1
            )
            return
        tags = {**dict.fromkeys(run.tags, "true"), **{f"parts.{group}": o for group, o in run.parts.items()}}
        tags |= {"group": run.group} if run.group else {}
        created = self._client.create_run(experiment, run_name=f"{run.name}/{run.folder.name}", tags=tags)
        self._id = created.info.run_id
        id_file.write_text(self._id + "\n")
        self._describe(run)

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        if images_seen > self._logged:
            self._log(values, images_seen)
            self._last = images_seen

    def rolled_back(self, images_seen: int) -> None:
        self._logged = max(self._logged, self._last)

    def picture(self, name: str, picture: Tensor, images_seen: int) -> None:
        if images_seen > self._logged:
            pixels = picture.permute(1, 2, 0).cpu().numpy()
            self._client.log_image(self._id, pixels, key=name.replace("/", "_"), step=images_seen)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], images_seen: int) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[row.get(column) for column in columns] for row in rows]
        self._client.log_dict(self._id, {"columns": columns, "data": data}, f"{name}.json")

    def alert(self, title: str, text: str, images_seen: int) -> None:
        self._client.set_tag(self._id, "alert", f"{title}: {text}")

    def checkpoint(self, path: Path, facts: Mapping[str, Any]) -> None:
        self._client.set_tag(self._id, "best_checkpoint", str(path.absolute()))

    def summary(self, values: Mapping[str, Any]) -> None:
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        self._log(numbers, 0)
        for name, value in values.items():
            if name not in numbers:
                self._client.set_tag(self._id, name, value)

    def config(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self._client.log_dict(self._id, value, f"{name}.json")

    def finish(self, exit_code: int) -> None:
        status = "FINISHED" if exit_code == 0 else "KILLED" if exit_code > 128 else "FAILED"
        self._client.set_terminated(self._id, status)

    def _log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        self._client.log_batch(self._id, [Metric(name, value, now, step) for name, value in values.items()])

    def _experiment(self, name: str, artifacts: Path | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name, artifacts.as_uri() if artifacts else None))

    def _describe(self, run: RunInfo) -> None:
        from mlflow.entities import Dataset, DatasetInput, Param

        parameters = [Param(name, str(value)[:_LONGEST]) for name, value in _leaves(run.config)]
        for at in range(0, len(parameters), _AT_A_TIME):
            self._client.log_batch(self._id, params=parameters[at : at + _AT_A_TIME])
        data = run.data()
        if data:
            # A digest may have 36 characters.
            used = Dataset(data["name"], data["fingerprint"][:36], "local", json.dumps(dict(data)))
            self._client.log_inputs(self._id, [DatasetInput(used)])


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of each setting."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
