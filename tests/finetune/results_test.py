import json

import numpy as np
import pytest

from finetune.results import Results, summarize
from model.command import DataError

FILES = {
    "train": {"file": "ratings_train.txt", "standin_for": None},
    "dev": {"file": "ratings_train.txt", "standin_for": None, "share_of_train": 0.05},
}
DESCRIPTION = {
    "config_hash": "abc",
    "model": "tiny",
    "recipe": "google",
    "start": "random weights",
    "files": {"nsmc": FILES | {"test": {"file": "ratings_test.txt", "standin_for": None}}},
    "config": {"max_seq_length": 128},
}


def trial(seed, accuracy, seconds=70.0, cut=0, reports=()):
    scores = {"dev": {"accuracy": accuracy + 1}, "test": {"accuracy": accuracy}}
    return {
        "seed": seed,
        "selected_step": 4,
        "num_train_steps": 4,
        "seconds": seconds,
        "rows": {"nsmc": {"dev": 30, "test": 50000}},
        "cut": {"nsmc": {"dev": {"examples": 0, "pieces": 0}, "test": {"examples": cut, "pieces": 3 * cut}}},
        "scores": {"nsmc": scores},
        "reports": {"nsmc": dict(reports)},
    }


def test_mean_and_spread_by_hand():
    # 86, 88, 93: mean 89, squared deviations 9 + 1 + 16 = 26, over n - 1 = 2: variance 13.
    summary = summarize([trial(1, 86.0), trial(2, 88.0), trial(3, 93.0)])["nsmc"]["test"]["accuracy"]
    # The interval: of the 27 equally likely samples of three, one has mean 86 and one 93, each 3.7 % of all.
    assert summary == {
        "trials": 3,
        "mean": 89.0,
        "median": 88.0,
        "std": pytest.approx(13**0.5),
        "interval": pytest.approx([86.0, 93.0]),
        "min": 86.0,
        "max": 93.0,
    }
    one = summarize([trial(1, 86.0)])["nsmc"]["test"]["accuracy"]
    assert one["std"] is None and one["interval"] is None and one["median"] == 86.0


def test_the_interval_narrows_with_more_trials_and_never_changes():
    scores = [86.0, 87.0, 88.0, 89.0, 90.0]
    few, many = (summarize([trial(seed, score) for seed, score in enumerate(found)]) for found in (scores, scores * 4))
    widths = [np.ptp(summary["nsmc"]["test"]["accuracy"]["interval"]) for summary in (few, many)]
    # The mean of 20 draws has a standard error of sqrt(2 / 20) = 0.316: 95 % lie within 1.96 of it on both sides.
    assert widths[0] > 1.8 * widths[1] and widths[1] == pytest.approx(2 * 1.96 * (2 / 20) ** 0.5, rel=0.1)
    assert few == summarize([trial(seed, score) for seed, score in enumerate(scores)])


def test_trials_are_kept_by_seed_and_read_back(tmp_path):
    results = Results(str(tmp_path / "new"), DESCRIPTION)
    for finished in (trial(43, 80.0), trial(42, 90.0), trial(43, 88.0)):
        results.add(finished)
    again = Results(str(tmp_path / "new"), DESCRIPTION)
    assert [kept["seed"] for kept in again.trials] == [42, 43]
    assert again.find(43)["scores"]["nsmc"]["test"]["accuracy"] == 88.0 and again.find(44) is None
    stored = json.loads((tmp_path / "new" / "results.json").read_text())
    assert stored["config_hash"] == "abc" and stored["summary"]["nsmc"]["test"]["accuracy"]["mean"] == 89.0


def test_two_processes_that_add_trials_keep_each_others(tmp_path):
    first, second = (Results(str(tmp_path), DESCRIPTION) for _ in range(2))
    first.add(trial(42, 80.0))
    second.add(trial(43, 90.0))
    assert [kept["seed"] for kept in second.trials] == [42, 43] == [kept["seed"] for kept in Results(str(tmp_path), DESCRIPTION).trials]


def test_the_table_says_what_was_scored_how_often_and_on_how_many_rows(tmp_path):
    results = Results(str(tmp_path), DESCRIPTION)
    results.add(trial(42, 90.0, seconds=60.0, cut=1200))
    results.add(trial(43, 88.0, seconds=70.0, cut=1200))
    assert (tmp_path / "results.txt").read_text() == results.table() + "\n"
    assert results.table().splitlines() == [
        "model: tiny",
        "recipe: google",
        "start: random weights",
        "config_hash: abc",
        "files of nsmc: train ratings_train.txt, dev 5 % of ratings_train.txt, test ratings_test.txt",
        "seeds: 42, 43",
        "cut to 128 pieces: 1,200 examples of nsmc test, 3,600 pieces lost",
        "",
        "task  split  metric     mean   std  median   95 % of means  trials    rows  time/trial",
        "nsmc  dev    accuracy  90.00  1.41   90.00  89.00 to 91.00       2      30  1 min 05 s",
        "nsmc  test   accuracy  89.00  1.41   89.00  88.00 to 90.00       2  50,000  1 min 05 s",
    ]


def test_the_table_says_where_a_standin_was_read(tmp_path):
    files = {"nsmc": FILES | {"test": {"file": "other.txt", "standin_for": "ratings_test.txt"}}}
    results = Results(str(tmp_path), DESCRIPTION | {"files": files})
    results.add(trial(42, 90.0, seconds=60.0))
    lines = results.table().splitlines()
    assert "test other.txt (stand-in for ratings_test.txt)" in lines[4]
    assert lines[-1] == "nsmc  test   accuracy  90.00    -   90.00              -       1  50,000  1 min 00 s  ratings_test.txt"
    assert json.loads((tmp_path / "results.json").read_text())["files"] == files


def report(f1, confusion):
    labels = {name: {"precision": 50.0, "recall": 60.0, "f1": f1, "rows": 3} for name in ("none", "offensive")}
    return {"test": {"labels": labels, "confusion": confusion}}


def test_the_table_shows_each_label_and_what_it_was_taken_for(tmp_path):
    results = Results(str(tmp_path), DESCRIPTION)
    results.add(trial(42, 90.0, reports=report(10.0, [[1, 2], [0, 3]])))
    results.add(trial(43, 88.0, reports=report(20.0, [[3, 0], [1, 2]])))
    assert results.table().splitlines()[-8:] == [
        "",
        "nsmc test  precision  recall     f1  rows",
        "none           50.00   60.00  15.00     3",
        "offensive      50.00   60.00  15.00     3",
        "",
        "is \\ taken for, 2 trials  none  offensive",
        "none                         4          2",
        "offensive                    1          5",
    ]


def test_results_of_another_configuration_are_refused(tmp_path):
    Results(str(tmp_path), DESCRIPTION).add(trial(42, 90.0))
    with pytest.raises(DataError, match="another configuration.*--results_dir"):
        Results(str(tmp_path), DESCRIPTION | {"config_hash": "def"})
