"""The first evaluator that can work with the data at hand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ganforge.evaluation.evaluator import Batches, Evaluator, KnownStatistics, RealData
from ganforge.evaluation.sample import Model
from ganforge.evaluation.stamp import Stamp

log = logging.getLogger("ganforge")


class FirstThatWorks(Evaluator):
    """Tries evaluators in order and stays with the first whose `prepare` finds nothing wrong.

    Args:
        evaluators: in order of preference; what is left out is said, with the reason.
        compute: the metrics that the evaluators' settings refer to; of no use here.
    """

    def __init__(self, evaluators: Sequence[Any], compute: Mapping[str, Any] | None = None) -> None:
        if not evaluators:
            raise ValueError("metrics.evaluators is empty; name at least one")
        self.evaluators: Sequence[Evaluator] = evaluators
        self._choose(0)

    @property
    def chosen(self) -> Evaluator:
        return self.evaluators[self._chosen]

    def prepare(
        self,
        data: RealData | KnownStatistics | None,
        device: torch.device | str,
        held_out: RealData | None = None,
    ) -> None:
        for index in range(self._chosen, len(self.evaluators)):
            try:
                self.evaluators[index].prepare(data, device, held_out)
            except ValueError as error:
                if index == len(self.evaluators) - 1:
                    raise
                log.warning("metrics: %s is left out: %s", self.evaluators[index].name, error)
            else:
                return self._choose(index)

    def evaluate(
        self, batches: Batches, *, conditional: bool, model: Model | None = None
    ) -> dict[str, float]:
        return self.chosen.evaluate(batches, conditional=conditional, model=model)

    def evaluate_data(self, data: RealData | KnownStatistics) -> dict[str, float]:
        return self.chosen.evaluate_data(data)

    def state(self) -> dict[str, Any]:
        state = self.chosen.state()
        return {"chosen": self._chosen, "state": state} if state else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if state:
            self._choose(state["chosen"])
            self.chosen.load_state(state["state"])

    def stamp(self) -> Stamp:
        return self.chosen.stamp()

    def _choose(self, index: int) -> None:
        chosen = self.evaluators[index]
        self._chosen = index
        self.name, self.monitor, self.figures = chosen.name, chosen.monitor, chosen.figures
        self.comparable_with_papers = chosen.comparable_with_papers
        self.num_samples, self.final_num_samples = chosen.num_samples, chosen.final_num_samples
