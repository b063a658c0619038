import numpy as np
import pytest

from finetune.classification.classification_metrics import AccuracyScorer, F1Scorer

# Ten examples of three classes. Right: 3 of 4 zeros, 2 of 4 ones, 1 of 2 twos.
LABELS = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
PREDICTIONS = [0, 0, 0, 1, 1, 1, 0, 2, 2, 0]


def fill(scorer, labels=LABELS, predictions=PREDICTIONS):
    for index, (label, prediction) in enumerate(zip(labels, predictions, strict=True)):
        scorer.update({"label_ids": np.int32(label), "predictions": np.int32(prediction), "loss": np.float32(index)})
    return scorer


def test_accuracy_by_hand():
    scorer = fill(AccuracyScorer())
    assert dict(scorer.get_results()) == {"accuracy": pytest.approx(60.0), "loss": pytest.approx(4.5)}
    assert scorer.main_metric == "accuracy"


def test_macro_f1_by_hand():
    # Precision: 3/5, 2/3, 1/2. Recall: 3/4, 2/4, 1/2. F1: 2/3, 4/7, 1/2.
    results = dict(fill(F1Scorer([0, 1, 2])).get_results())
    assert results["precision"] == pytest.approx(100 * (3 / 5 + 2 / 3 + 1 / 2) / 3)
    assert results["recall"] == pytest.approx(100 * (3 / 4 + 2 / 4 + 1 / 2) / 3)
    assert results["f1"] == pytest.approx(100 * (2 / 3 + 4 / 7 + 1 / 2) / 3)
    assert results["accuracy"] == pytest.approx(60.0)


def test_f1_counts_gold_from_the_labels_not_from_the_predictions():
    # The original's recall equalled its precision. Of one class alone: 2 of 3 predictions right, 2 of 4 found.
    results = dict(fill(F1Scorer([1])).get_results())
    assert results["precision"] == pytest.approx(100 * 2 / 3)
    assert results["recall"] == pytest.approx(50.0)
    assert results["f1"] == pytest.approx(100 * 4 / 7)


def test_f1_of_a_class_that_never_occurs_is_zero():
    assert dict(fill(F1Scorer([0, 7])).get_results())["f1"] == pytest.approx(100 * (2 / 3) / 2)


def test_order_of_updates_does_not_matter():
    order = np.random.default_rng(0).permutation(len(LABELS))
    shuffled = fill(F1Scorer([0, 1, 2]), np.array(LABELS)[order], np.array(PREDICTIONS)[order])
    assert dict(shuffled.get_results())["f1"] == pytest.approx(dict(fill(F1Scorer([0, 1, 2])).get_results())["f1"])
