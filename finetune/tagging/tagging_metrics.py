"""Scores of tagged sentences: entities found whole, as seqeval counts them for tags like PER-B and PER-I."""

from collections.abc import Mapping, Sequence
from typing import Any

from seqeval.metrics import classification_report
from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

from finetune.scorer import Scorer

Tags = Sequence[str]


class EntityF1Scorer(Scorer):
    """Precision, recall and F1 over all entities: one counts as found if its type and every one of its words are right.

    As seqeval does it by default, and the published scores with it, an I without a B before it begins an entity.
    """

    main_metric = "f1"

    def __init__(self) -> None:
        self._right: list[Tags] = []
        self._predicted: list[Tags] = []
        self._loss = 0.0
        self._answers = 0

    def update(self, results: Mapping[str, Any]) -> None:
        """`results`: tags and predicted_tags (a str for each word), loss (the sum over the words that were seen) and num_seen."""
        self._right.append(results["tags"])
        self._predicted.append(results["predicted_tags"])
        self._loss += float(results["loss"])
        self._answers += int(results["num_seen"])

    def get_loss(self) -> float:
        """Mean loss of a word. Unlike google-research/electra, whose scorer counted the loss twice."""
        return self._loss / self._answers

    def _get_results(self) -> list[tuple[str, float]]:
        precision, recall, f1, _ = precision_recall_fscore_support(
            self._right, self._predicted, average="micro", suffix=True, zero_division=0
        )
        return [(name, 100.0 * float(value)) for name, value in (("precision", precision), ("recall", recall), ("f1", f1))]


def find_entities(tags: Tags) -> list[tuple[str, int, int]]:
    """(type, first word, last word) of each entity: ["O", "PER-B", "PER-I"] -> [("PER", 1, 2)]; cut as EntityF1Scorer counts them."""
    return get_entities(list(tags), suffix=True)


def entity_report(right: Sequence[Tags], predicted: Sequence[Tags]) -> dict[str, Any]:
    """Precision, recall, F1 and number of entities for each type that occurs in `right`, so that all trials have the same types.

    [["PER-B", "O"]], [["PER-B", "O"]] -> {"labels": {"PER": {"precision": 100.0, "recall": 100.0, "f1": 100.0, "rows": 1}}}
    """
    if all(tag == "O" for tags in right for tag in tags):
        return {"labels": {}}  # seqeval would divide by zero
    found = classification_report(right, predicted, suffix=True, output_dict=True, zero_division=0)
    lines = {
        entity: {**{name: 100.0 * float(line[key]) for name, key in _METRICS.items()}, "rows": int(line["support"])}
        for entity, line in found.items()
        if line["support"] and not entity.endswith(" avg")
    }
    return {"labels": lines}


_METRICS = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
