import numpy as np
import pytest

from finetune.classification.classification_metrics import (
    AccuracyScorer,
    F1Scorer,
    MatthewsScorer,
    RegressionScorer,
    classification_report,
)

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


def test_matthews_correlation_by_hand():
    # Of two classes: tp 2, tn 3, fp 1, fn 2 -> (2 * 3 - 1 * 2) / sqrt(3 * 4 * 4 * 5).
    results = dict(fill(MatthewsScorer(), [1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 1]).get_results())
    assert results["matthews"] == pytest.approx(100 * 4 / 240**0.5) and results["accuracy"] == pytest.approx(62.5)
    assert dict(fill(MatthewsScorer(), [0, 1], [1, 1]).get_results())["matthews"] == 0.0


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


def fill_regression(targets, predictions):
    scorer = RegressionScorer()
    for target, prediction in zip(targets, predictions, strict=True):
        scorer.update({"targets": np.float32(target), "predictions": np.float32(prediction), "loss": np.float32(2.0)})
    return dict(scorer.get_results())


def test_correlations_by_hand():
    # Ranks 1 2 3 4 against 1 2 4 3: 1 - 6 * 2 / (4 * 15) = 0.8. Deviations -1.5 -.5 .5 1.5 and -1.75 -.75 2.25 .25:
    # products 2.625 + .375 + 1.125 + .375 = 4.5, squares 5 and 3.0625 + .5625 + 5.0625 + .0625 = 8.75.
    results = fill_regression([1, 2, 3, 4], [0, 1, 4, 2])
    assert results["spearman"] == pytest.approx(80.0)
    assert results["pearson"] == pytest.approx(100 * 4.5 / (5 * 8.75) ** 0.5)
    assert results["mse"] == pytest.approx((1 + 1 + 1 + 4) / 4) and results["loss"] == pytest.approx(2.0)
    assert RegressionScorer().main_metric == "spearman"


def test_ties_share_their_mean_rank():
    # Ranks 1 2.5 2.5 4 against 1 2 3 4: deviations -1.5 0 0 1.5 and -1.5 -.5 .5 1.5: 4.5 / sqrt(4.5 * 5).
    assert fill_regression([0, 2, 2, 5], [1, 2, 3, 4])["spearman"] == pytest.approx(100 * 4.5 / (4.5 * 5) ** 0.5)


def test_predictions_that_are_all_the_same_correlate_with_nothing():
    results = fill_regression([1, 2, 3], [2.5, 2.5, 2.5])
    assert (results["spearman"], results["pearson"]) == (0.0, 0.0) and results["mse"] == pytest.approx((2.25 + 0.25 + 0.25) / 3)


def test_report_by_hand():
    report = classification_report(["a", "b", "c", "d"], LABELS, PREDICTIONS)
    assert report["confusion"] == [[3, 1, 0, 0], [1, 2, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert report["labels"]["b"] == {
        "precision": pytest.approx(100 * 2 / 3),
        "recall": pytest.approx(50.0),
        "f1": pytest.approx(100 * 4 / 7),
        "rows": 4,
    }
    assert report["labels"]["d"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 0}
