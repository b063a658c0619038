import pytest

from finetune.tagging.tagging_metrics import EntityF1Scorer, entity_report

# Entities: PER (2 words), LOC, ORG, and in the third sentence DAT. Found: PER whole, ORG; LOC with another type; DAT too short.
RIGHT = [["PER-B", "PER-I", "O", "LOC-B"], ["ORG-B", "O"], ["DAT-B", "DAT-I", "O"]]
PREDICTED = [["PER-B", "PER-I", "O", "ORG-B"], ["ORG-B", "O"], ["DAT-B", "O", "PER-B"]]


def fill(right, predicted):
    scorer = EntityF1Scorer()
    for tags, predicted_tags in zip(right, predicted, strict=True):
        scorer.update({"tags": tags, "predicted_tags": predicted_tags, "loss": 2.0 * len(tags), "num_seen": len(tags)})
    return dict(scorer.get_results())


def test_entities_count_when_type_and_every_word_are_right():
    # 2 of 5 predicted entities are right, 2 of 4 are found: F1 = 2 * 2 / (5 + 4).
    results = fill(RIGHT, PREDICTED)
    assert results["precision"] == pytest.approx(40.0) and results["recall"] == pytest.approx(50.0)
    assert results["f1"] == pytest.approx(100 * 4 / 9) and EntityF1Scorer().main_metric == "f1"


def test_the_loss_is_the_mean_over_words_and_counted_once():
    assert fill(RIGHT, PREDICTED)["loss"] == pytest.approx(2.0)
    assert list(fill(RIGHT, PREDICTED)) == ["precision", "recall", "f1", "loss"]


def test_an_i_without_its_b_begins_an_entity():
    assert fill([["O", "PER-B"]], [["O", "PER-I"]])["f1"] == pytest.approx(100.0)
    assert fill([["PER-B", "PER-I"]], [["PER-I", "PER-I"]])["f1"] == pytest.approx(100.0)


def test_neighbours_of_one_type_are_two_entities():
    assert fill([["PER-B", "PER-B"]], [["PER-B", "PER-I"]])["f1"] == 0.0


def test_sentences_without_entities_score_zero():
    assert fill([["O", "O"]], [["O", "O"]])["f1"] == 0.0
    assert entity_report([["O"]], [["O"]]) == {"labels": {}}


def test_report_by_hand():
    report = entity_report(RIGHT, PREDICTED)["labels"]
    assert list(report) == ["DAT", "LOC", "ORG", "PER"]
    assert report["ORG"] == {"precision": 50.0, "recall": 100.0, "f1": pytest.approx(200 / 3), "rows": 1}
    assert report["PER"] == {"precision": 50.0, "recall": 100.0, "f1": pytest.approx(200 / 3), "rows": 1}
    assert report["LOC"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 1} and report["DAT"]["f1"] == 0.0
    assert all(type(value) in (float, int) for line in report.values() for value in line.values())


def test_a_type_that_is_only_predicted_is_not_in_the_report():
    assert list(entity_report([["PER-B", "O"]], [["PER-B", "MAT-B"]])["labels"]) == ["PER"]
    assert entity_report([["O"]], [["MAT-B"]]) == {"labels": {}}
