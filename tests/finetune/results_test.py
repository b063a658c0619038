import json

import pytest

from finetune.results import Results, summarize
from model.command import DataError

DESCRIPTION = {"config_hash": "abc", "model": "tiny", "recipe": "google", "start": "random weights"}


def trial(seed, accuracy, seconds=70.0, **splits):
    scores = {"dev": {"accuracy": accuracy + 1}, "test": {"accuracy": accuracy}}
    rows = {"nsmc": {"dev": 30, "test": 50000}}
    return {"seed": seed, "selected_step": 4, "num_train_steps": 4, "seconds": seconds, "rows": rows, "scores": {"nsmc": scores}}


def test_mean_and_spread_by_hand():
    # 86, 88, 93: mean 89, squared deviations 9 + 1 + 16 = 26, over n - 1 = 2: variance 13.
    summary = summarize([trial(1, 86.0), trial(2, 88.0), trial(3, 93.0)])["nsmc"]["test"]["accuracy"]
    assert summary == {"trials": 3, "mean": 89.0, "std": pytest.approx(13**0.5), "min": 86.0, "max": 93.0}
    assert summarize([trial(1, 86.0)])["nsmc"]["test"]["accuracy"]["std"] is None


def test_trials_are_kept_by_seed_and_read_back(tmp_path):
    results = Results(str(tmp_path / "new"), DESCRIPTION)
    for finished in (trial(43, 80.0), trial(42, 90.0), trial(43, 88.0)):
        results.add(finished)
    again = Results(str(tmp_path / "new"), DESCRIPTION)
    assert [kept["seed"] for kept in again.trials] == [42, 43]
    assert again.find(43)["scores"]["nsmc"]["test"]["accuracy"] == 88.0 and again.find(44) is None
    stored = json.loads((tmp_path / "new" / "results.json").read_text())
    assert stored["config_hash"] == "abc" and stored["summary"]["nsmc"]["test"]["accuracy"]["mean"] == 89.0


def test_the_table_says_what_was_scored_how_often_and_on_how_many_rows(tmp_path):
    results = Results(str(tmp_path), DESCRIPTION)
    results.add(trial(42, 90.0, seconds=60.0))
    results.add(trial(43, 88.0, seconds=70.0))
    assert (tmp_path / "results.txt").read_text() == results.table() + "\n"
    assert results.table().splitlines() == [
        "model: tiny",
        "recipe: google",
        "start: random weights",
        "config_hash: abc",
        "seeds: 42, 43",
        "",
        "task  split  metric     mean   std  trials    rows  time/trial",
        "nsmc  dev    accuracy  90.00  1.41       2      30  1 min 05 s",
        "nsmc  test   accuracy  89.00  1.41       2  50,000  1 min 05 s",
    ]


def test_results_of_another_configuration_are_refused(tmp_path):
    Results(str(tmp_path), DESCRIPTION).add(trial(42, 90.0))
    with pytest.raises(DataError, match="another configuration.*--results_dir"):
        Results(str(tmp_path), DESCRIPTION | {"config_hash": "def"})
