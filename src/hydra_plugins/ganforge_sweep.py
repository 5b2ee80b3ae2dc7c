"""Where Hydra looks for launchers and sweepers."""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from ganforge.commands.sweeps.launcher import SweepInProcesses
from ganforge.commands.sweeps.sweeper import SearchWithOptuna
from ganforge.commands.sweeps.workers import SweepInJoblib, SweepInRay


class Processes(SweepInProcesses):
    """See there."""


class Joblib(SweepInJoblib):
    """See there."""


class Ray(SweepInRay):
    """See there."""


class Grid(BasicSweeper):
    """Hydra's own: every combination of the values. How many jobs run at a time is the launcher's to know."""

    def __init__(self, n_jobs: int, **settings: Any) -> None:
        super().__init__(**settings)


class Search(SearchWithOptuna):
    """See there."""
