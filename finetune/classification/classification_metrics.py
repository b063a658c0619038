"""Scorers of tasks that have one answer per example, and their report label by label."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats
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


class MatthewsScorer(SentenceLevelScorer):
    """Matthews' correlation coefficient of labels and predictions in percent, and accuracy. Predictions that are all the same: 0."""

    main_metric = "matthews"

    def _get_results(self) -> list[tuple[str, float]]:
        scores = (("matthews", metrics.matthews_corrcoef), ("accuracy", metrics.accuracy_score))
        return [(name, 100.0 * float(function(self._labels, self._predictions))) for name, function in scores]


class RegressionScorer(Scorer):
    """Rank and linear correlation of predictions and targets in percent, and the mean squared error in units of the scores.

    Predictions that are all the same go with nothing: their correlation is 0.
    """

    def __init__(self, main_metric: str = "spearman"):
        self.main_metric = main_metric
        self._targets: list[float] = []
        self._predictions: list[float] = []
        self._losses: list[float] = []

    def update(self, results: Mapping[str, Any]) -> None:
        """`results`: targets and predictions (one number each) and loss."""
        for kept, name in ((self._targets, "targets"), (self._predictions, "predictions"), (self._losses, "loss")):
            kept.append(float(results[name]))

    def get_loss(self) -> float:
        return float(np.mean(self._losses))

    def _get_results(self) -> list[tuple[str, float]]:
        varies = min(np.ptp(self._targets), np.ptp(self._predictions)) > 0
        correlations = [
            (name, 100.0 * float(function(self._targets, self._predictions).statistic) if varies else 0.0)
            for name, function in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr))
        ]
        return [*correlations, ("mse", float(np.mean(np.square(np.subtract(self._targets, self._predictions)))))]


def classification_report(labels: Sequence[str], right: Sequence[int], predicted: Sequence[int]) -> dict[str, Any]:
    """Precision, recall, F1 and rows of each label, and the confusion matrix: one row per right label, one column per predicted.

    ("a", "b"), [0, 0, 1], [0, 1, 1] -> {"labels": {"a": {"precision": 100.0, "recall": 50.0, "f1": 66.7, "rows": 2}, "b": ...},
                                         "confusion": [[1, 1], [0, 1]]}
    """
    classes = range(len(labels))
    columns = metrics.precision_recall_fscore_support(right, predicted, labels=classes, zero_division=0)
    lines = {
        label: {"precision": 100.0 * float(p), "recall": 100.0 * float(r), "f1": 100.0 * float(f), "rows": int(rows)}
        for label, p, r, f, rows in zip(labels, *columns, strict=True)
    }
    return {"labels": lines, "confusion": metrics.confusion_matrix(right, predicted, labels=classes).tolist()}
