"""Scorers of tasks that have one answer per example."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import metrics

from finetune.scorer import Scorer


class SentenceLevelScorer(Scorer):
    """Keeps the label, the prediction and the loss of every example."""

    def __init__(self) -> None:
        self._labels: list[Any] = []
        self._predictions: list[Any] = []
        self._losses: list[float] = []

    def update(self, results: Mapping[str, Any]) -> None:
        """`results`: label_ids and predictions (one number each) and loss."""
        self._labels.append(results["label_ids"])
        self._predictions.append(results["predictions"])
        self._losses.append(float(results["loss"]))

    def get_loss(self) -> float:
        return float(np.mean(self._losses))

    @abc.abstractmethod
    def _get_results(self) -> list[tuple[str, float]]: ...


class AccuracyScorer(SentenceLevelScorer):
    """Share of the examples with the right label."""

    main_metric = "accuracy"

    def _get_results(self) -> list[tuple[str, float]]:
        return [("accuracy", 100.0 * float(metrics.accuracy_score(self._labels, self._predictions)))]


class F1Scorer(SentenceLevelScorer):
    """Accuracy and F1 over the classes `labels` (ids): their macro average, or with one class that class's own.

    Unlike google-research/electra, which counted the gold examples among the predictions, so that recall always equalled
    precision, recall is over the examples that really have the class. A class that never occurs has F1 0.
    """

    main_metric = "f1"

    def __init__(self, labels: Sequence[int]):
        super().__init__()
        self._classes = list(labels)

    def _get_results(self) -> list[tuple[str, float]]:
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            self._labels, self._predictions, labels=self._classes, average="macro", zero_division=0
        )
        accuracy = metrics.accuracy_score(self._labels, self._predictions)
        scores = (("precision", precision), ("recall", recall), ("f1", f1), ("accuracy", accuracy))
        return [(name, 100.0 * float(value)) for name, value in scores]
