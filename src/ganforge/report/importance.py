"""How much each parameter of a search matters, by Optuna (fANOVA) where it is installed."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from ganforge.runs import Search, Trial

FEWEST_TRIALS = 4


def importances(search: Search) -> dict[str, float]:
    """Shares that add up to 1, largest first, for the search's first figure; {} without Optuna or with few trials."""
    done = [trial for trial in search.trials if trial.state == "complete" and trial.values]
    names = [name for name in dict.fromkeys(k for t in done for k in t.params) if _varies(done, name)]
    if len(done) < FEWEST_TRIALS or not names:
        return {}
    try:
        import optuna
    except ImportError:
        return {}
    spaces = {name: _space(optuna, [t.params[name] for t in done if name in t.params]) for name in names}
    with warnings.catch_warnings(), _silence(optuna):
        warnings.simplefilter("ignore")
        direction: Any = search.directions[0]
        study = optuna.create_study(direction=direction)
        for trial in done:
            params = {name: trial.params[name] for name in names if name in trial.params}
            study.add_trial(
                optuna.trial.create_trial(
                    params=params,
                    distributions={name: spaces[name] for name in params},
                    value=float(trial.values[0]),  # type: ignore[index]
                )
            )
        try:
            found = optuna.importance.get_param_importances(study)
        except (RuntimeError, ValueError):  # every value is the same, or no parameter is in every trial
            return {}
    return {name: round(float(share), 4) for name, share in found.items()}


@contextlib.contextmanager
def _silence(optuna: Any) -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _varies(trials: list[Trial], name: str) -> bool:
    return len({str(trial.params.get(name)) for trial in trials}) > 1


def _space(optuna: Any, values: list[Any]) -> Any:
    """The distribution that holds these values; which one they were drawn from makes no difference here."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        whole = all(isinstance(value, int) for value in values)
        if whole:
            return optuna.distributions.IntDistribution(low, high)
        return optuna.distributions.FloatDistribution(low, high, log=low > 0 and high / low > 100)
    return optuna.distributions.CategoricalDistribution(list(dict.fromkeys(values)))
