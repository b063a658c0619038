"""Scorer: collects a model's outputs example by example and turns them into a task's metrics."""

import abc
from collections.abc import Mapping
from typing import Any


class Scorer(abc.ABC):
    """Metrics of one pass over a split. Scores are percentages, losses are not.

    main_metric: name of the metric by which weights are selected; more is better.
    """

    main_metric: str

    @abc.abstractmethod
    def update(self, results: Mapping[str, Any]) -> None:
        """Adds one example: the outputs of the task's prediction module as numpy values, `loss` among them."""

    @abc.abstractmethod
    def get_loss(self) -> float:
        """Mean loss of the examples seen."""

    @abc.abstractmethod
    def _get_results(self) -> list[tuple[str, float]]:
        """(metric, value) of the examples seen, the loss left out."""

    def get_results(self, prefix: str = "") -> list[tuple[str, float]]:
        """(prefix + metric, value), the mean loss last."""
        return [(prefix + name, value) for name, value in [*self._get_results(), ("loss", self.get_loss())]]

    def results_str(self) -> str:
        return " - ".join(f"{name}: {value:.2f}" for name, value in self.get_results())
