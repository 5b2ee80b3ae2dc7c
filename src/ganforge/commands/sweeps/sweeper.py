"""`sweep=optuna`: from a command line to a search, and from its end to a table and an experiment."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from ganforge.commands import building
from ganforge.commands.configuration import PastHydra, plain
from ganforge.commands.errors import RunFailedError, UserError
from ganforge.commands.lines import log_to_stderr_too
from ganforge.commands.run_folder import make_folder
from ganforge.commands.secrets import keep_secret, shown
from ganforge.commands.sweeps.best import experiment_of
from ganforge.commands.sweeps.gpus import gpus_here, wanted_by
from ganforge.commands.sweeps.jobs import Jobs
from ganforge.commands.sweeps.launcher import check_n_jobs, refuse_what_cannot_be_swept, words_of_job

if TYPE_CHECKING:
    from ganforge.commands.sweeps.search import Plan
    from ganforge.commands.sweeps.space import Space
    from ganforge.commands.sweeps.study import Direction, SharedStudy

log = logging.getLogger("ganforge")

SPEED = "images_per_second"
_TRIALS = 20
_DIRECTIONS: dict[str, Direction] = {"lower": "minimize", "higher": "maximize"}


class SearchWithOptuna(Sweeper):
    """A search over the settings that have several values on the command line.

    Args:
        settings: those of conf/hydra/sweeper/optuna.yaml.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._hydra = hydra_context
        self._storage = config.hydra.sweeper.storage
        keep_secret(str(self._storage))
        self._config = config
        # Where the study is kept is for this process only: it may have a password in it.
        with open_dict(config):
            config.hydra.sweeper.storage = None
            config.hydra.overrides.hydra = [
                word for word in config.hydra.overrides.hydra if not word.startswith("hydra.sweeper.storage=")
            ]

    def sweep(self, arguments: list[str]) -> Any:
        """
        Raises:
            PastHydra: what the user can put right; or a signal stopped the search.
        """
        try:
            with _optuna():
                return self._search(arguments)
        except (UserError, RunFailedError) as error:
            raise PastHydra(error) from error

    def _search(self, arguments: list[str]) -> Any:
        from ganforge.commands.sweeps.results import show
        from ganforge.commands.sweeps.search import Search
        from ganforge.commands.sweeps.study import storage_errors

        refuse_what_cannot_be_swept(arguments)
        self._check()
        space = self._space(arguments)
        config = self._compose(space)
        folder = Path(str(self._config.hydra.sweep.dir))
        plan, study = self._plan(space, config, folder)
        n_jobs = self._settings["n_jobs"]
        log.info("study %s: %d trials in %s", study.name, study.n_trials, folder)
        with Jobs(n_jobs, gpus_here() if n_jobs > 1 else None) as jobs, storage_errors():
            try:
                Search(plan, study, jobs).run()
            finally:
                show(study, plan)
        self._write_best(plan, study)
        complete = study.best()
        if not complete:
            raise RunFailedError("no trial of the search came to its end")
        return [dict(zip(plan.metrics, trial.values, strict=True)) for trial in complete]

    def _check(self) -> None:
        if self._config.hydra.job.config_name != "train":
            raise UserError(f"sweep=optuna is for train, and not for {self._config.hydra.job.config_name}")
        launcher = self._config.hydra.runtime.choices["hydra/launcher"]
        if launcher != "processes":
            raise UserError(
                f"hydra/launcher={launcher}: a search starts its jobs itself, sweep.n_jobs=2 two at a time; on a "
                "cluster start the same command several times, and they share the study (docs/sweeps.md)"
            )
        check_n_jobs(self._settings["n_jobs"])
        for key, least in (("n_trials", 1), ("seeds", 1), ("dead_after_seconds", 0)):
            value = self._settings[key]
            number = (
                isinstance(value, int | float) and value > 0
                if key == "dead_after_seconds"
                else type(value) is int
            )
            if not (number and value >= least) and not (key == "n_trials" and value is None):
                raise UserError(f"sweep.{key}={value}: it should be a number from 1 up")
        if not self._settings["study"] or "/" in str(self._settings["study"]):
            raise UserError(f"sweep.study={self._settings['study']}: it should be a name, without /")

    def _space(self, arguments: Sequence[str]) -> Space:
        from ganforge.commands.sweeps.space import space_of

        given = OmegaConf.to_container(self._settings["params"]) if self._settings["params"] else {}
        assert isinstance(given, dict)
        words = [*(f"{key!s}={value}" for key, value in given.items()), *arguments]
        overrides = self._parsed(words)
        space = space_of(overrides, [each.key_or_group for each in overrides if self._is_group(each)])
        if not space.dimensions:
            raise UserError(
                "sweep=optuna has nothing to search: give some settings several values, such as loss=hinge,wasserstein "
                "or 'optimizer.generator.lr=tag(log, interval(1e-5, 1e-2))'"
            )
        if self._settings["seeds"] > 1 and "seed" in space.dimensions:
            raise UserError(
                "sweep.seeds repeats each point with several seeds: leave seed=... with several values out"
            )
        return space

    def _parsed(self, words: Sequence[str]) -> list[Override]:
        parser = OverridesParser.create(config_loader=self._hydra.config_loader)
        overrides: list[Override] = parser.parse_overrides(list(words))
        return overrides

    def _is_group(self, override: Override) -> bool:
        return bool(self._hydra.config_loader.get_group_options(override.key_or_group, ObjectType.CONFIG))

    def _compose(self, space: Space) -> DictConfig:
        """The first point's configuration, once it is sure that the others compose as well."""
        configs = [
            self._hydra.config_loader.load_sweep_config(self._config, space.words(point))
            for point in space.corners()
        ]
        with open_dict(configs[0]):
            del configs[0]["hydra"]
        return configs[0]

    def _plan(self, space: Space, config: DictConfig, folder: Path) -> tuple[Plan, SharedStudy]:
        from ganforge.commands.checks import check_settings  # seconds, not spent on a mistyped key
        from ganforge.commands.sweeps.search import Plan
        from ganforge.commands.sweeps.study import SharedStudy, open_storage

        settings = plain(config)
        check_settings(settings)
        metrics, directions = self._metrics(settings)
        pruner = self._part("pruner")
        if len(metrics) > 1 and not self._config.hydra.runtime.choices["hydra/sweeper/pruner"] == "none":
            raise UserError("sweep.pruner=...: only a search by one metric can end trials early")
        grid_only = self._config.hydra.runtime.choices["hydra/sweeper/sampler"] == "grid"
        given: dict[str, Any] = {"directions": directions, "search_space": space.grid() if grid_only else {}}
        seeds = self._settings["seeds"]
        plan = Plan(
            folder=folder,
            metrics=metrics,
            sampler=type(self._sampler(0, given)).__name__.removesuffix("Sampler"),
            space=space,
            words=lambda number, words, folder: words_of_job(self._config, number, words, folder),
            seeds=[settings["seed"] + at for at in range(seeds)] if seeds > 1 else [],
            gpus=wanted_by(settings["trainer"]),
        )
        n_trials = self._settings["n_trials"]
        if grid_only:
            points = 1
            for values in given["search_space"].values():
                points *= len(values)
            n_trials = min(n_trials or points, points)
        make_folder(folder, "hydra.sweep.dir")
        storage = open_storage(self._storage, folder)
        study = SharedStudy(
            storage,
            str(self._settings["study"]),
            directions,
            n_trials or _TRIALS,
            space.distributions,
            sampler=lambda number: self._sampler(number, given),
            pruner=pruner,
            facts={**space.facts(), "metrics": metrics, "seeds": seeds},
            dead_after_seconds=float(self._settings["dead_after_seconds"]),
        )
        if not study.trials() and any(folder.glob("*/config.yaml")):
            raise UserError(
                f"{folder} holds runs, and {shown(str(self._storage or 'its study'))} knows of none: remove it, or "
                "begin another study with sweep.study=..."
            )
        return plan, study

    def _metrics(self, settings: Mapping[str, Any]) -> tuple[list[str], list[Direction]]:
        """The figures to search by, and `minimize` or `maximize` for each."""
        evaluator = building.build(settings["metrics"], "metrics")
        asked = self._settings["metric"]
        if asked is None:
            asked = evaluator.monitor
        metrics = [asked] if isinstance(asked, str) else list(asked)
        figures = {**evaluator.figures, SPEED: "higher"}
        sided = [name for name, better in figures.items() if better != "neither"]
        for metric in metrics:
            if metric not in sided:
                raise UserError(f"sweep.metric={metric or 'null'}: it can be {', '.join(sided)}")
        if len(set(metrics)) < len(metrics) or not metrics:
            raise UserError(f"sweep.metric={metrics}: it should name one figure, or several different ones")
        return metrics, [_DIRECTIONS[figures[metric]] for metric in metrics]

    def _sampler(self, number: int, given: Mapping[str, Any]) -> Any:
        """What it draws follows from the seed, the trial's number and the trials before: a killed search goes on so."""
        from ganforge.draws import derive_seed

        seed = derive_seed(self._settings["seed"], "sampler", number) % 2**32
        return self._part("sampler", {**given, "seed": seed})

    def _part(self, name: str, given: Mapping[str, Any] | None = None) -> Any:
        where = f"sweep.{name}"
        config = plain(self._config.hydra.sweeper[name])
        takes = building.parameters_of(config, where)
        return building.build(
            config, where, **{key: value for key, value in (given or {}).items() if key in takes}
        )

    def _write_best(self, plan: Plan, study: SharedStudy) -> None:
        """`experiment/best.yaml` in the sweep's folder; with several metrics one for each point of the front."""
        from ganforge.commands.sweeps.results import write_among_others

        folder = plan.folder / "experiment"
        for trial in study.best():
            words = plan.space.words(trial.params)
            name = "best" if len(plan.metrics) == 1 else f"best_{trial.number}"
            title = f"Trial {trial.number} of {len(study.trials())} of the study {study.name}"
            figures = ", ".join(f"{m} {v:.5g}" for m, v in zip(plan.metrics, trial.values, strict=True))
            base = self._config.hydra.runtime.choices.get("experiment")
            text, left_out = experiment_of(self._parsed(words), self._is_group, base, f"{title}: {figures}.")
            make_folder(folder, "hydra.sweep.dir")
            write_among_others(folder / f"{name}.yaml", text)
            if left_out:
                log.warning(
                    "%s leaves out %s, which no experiment can say",
                    folder / f"{name}.yaml",
                    ", ".join(left_out),
                )
            if len(plan.metrics) == 1:
                log.info("the best again: ganforge train --config-dir %s experiment=best", plan.folder)
                return  # and not another one that is as good
            log.info("of the front: ganforge train --config-dir %s experiment=%s", plan.folder, name)


@contextlib.contextmanager
def _optuna() -> Iterator[None]:
    """Optuna's warnings are said as ours; where it is missing, what to install.

    Raises:
        UserError: it is not installed, or a part of it.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("sweep=optuna needs Optuna: pip install 'ganforge[optuna]'") from error
    optuna.logging.disable_default_handler()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    log_to_stderr_too("optuna")
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    try:
        yield
    except ImportError as error:
        raise UserError(f"{str(error).splitlines()[0]}: pip install 'ganforge[optuna]'") from error
