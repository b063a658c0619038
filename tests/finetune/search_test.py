import importlib
import json
import logging
import sys

import pytest

from configure_finetuning import FinetuningConfig
from finetune.finetuning_run import FinetuningRun
from finetune.model_runner import ModelRunner
from model.command import DataError, UserError, locked
from model.estimator import Diverged, Estimator

pytest.importorskip("optuna", reason="Optuna is an extra: pip install .[search]")

from finetune import search, search_report  # noqa: E402
from finetune.search import Search  # noqa: E402

SPACE = {"learning_rate": [1e-5, 1e-4, 1e-3], "warmup_proportion": [0.0, 0.05, 0.1], "adam_epsilon": [1e-8, 1e-7, 1e-6]}
DRAW = search_report.draw
SHAPE = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "max_position_embeddings": 32}
VALUES = {
    "init_checkpoint": "none",
    "tokenizer_type": "wordpiece",
    "model_hparam_overrides": SHAPE,
    "embedding_size": 16,
    "max_seq_length": 16,
    "layerwise_lr_decay": 0.0,
    "train_batch_size": 16,
    "dev_fraction": 0.2,
    "num_train_epochs": 4.0,
}


@pytest.fixture
def make_search(home):
    """make_search(num_trials, space, name=value, ...) -> Search in `home`, which has no test file: a search must not need it."""
    (home / "finetuning_data" / "nsmc" / "ratings_test.txt").unlink()

    def make(num_trials=3, space=SPACE, **user) -> Search:
        return Search("tiny", str(home), VALUES | user, space, num_trials)

    return make


class Pretence:
    """Training without a network: dev scores are a function of the settings and of how far training is."""

    def __init__(self, monkeypatch):
        self.trained: list[float] = []
        self.stop_at: set[int] = set()
        self.diverging_rate = None
        monkeypatch.setattr(ModelRunner, "evaluate", lambda runner, split: self.evaluate(runner, split))
        monkeypatch.setattr(search_report, "draw", lambda *arguments: None)
        monkeypatch.setattr(Estimator, "train", lambda estimator, *arguments: self.train(estimator))

    def train(self, estimator):
        rate = estimator.optimizer._schedule[0]
        if rate == self.diverging_rate:
            raise Diverged("loss is nan at step 3")
        self.trained.append(rate)
        if len(self.trained) in self.stop_at:
            raise KeyboardInterrupt

    def evaluate(self, runner, split):
        assert split == "dev"
        config = runner._config
        score = {1e-5: 20.0, 1e-4: 60.0, 1e-3: 70.0}[config.learning_rate] + 100 * config.warmup_proportion + 2 * len(runner.history)
        return {"nsmc": {"accuracy": score, "loss": 1.0}}


@pytest.fixture
def pretence(monkeypatch) -> Pretence:
    return Pretence(monkeypatch)


def folder_of(home):
    (folder,) = (home / "models" / "tiny" / "results").glob("search-*")
    return folder


def study_of(home):
    """study.json without times."""
    study = json.loads((folder_of(home) / "study.json").read_text(encoding="utf-8"))
    for trial in study["trials"]:
        trial["seconds"] = 0
    return study


@pytest.mark.slow
def test_the_better_rate_is_found_and_its_settings_give_its_score(home, make_search):
    test_file = home / "finetuning_data" / "nsmc" / "ratings_test.txt"
    report = make_search(5, {"learning_rate": [1e-7, 3e-3]}, num_train_epochs=2.0).run()
    study = study_of(home)
    best = study["trials"][study["best"] - 1]
    assert {trial["params"]["learning_rate"] for trial in study["trials"]} == {1e-7, 3e-3}
    assert best["params"] == {"learning_rate": 3e-3} and best["score"] > 90
    path = folder_of(home) / "best_hparams.json"
    assert f"--hparams={path}" in report.splitlines()[-1]
    test_file.write_text("id\tdocument\tlabel\n1\t영화 좋다\t1\n", encoding="utf-8")
    results = FinetuningRun(FinetuningConfig.create("tiny", str(home), json.loads(path.read_text(encoding="utf-8")))).run()
    assert results.trials[0]["scores"]["nsmc"]["dev"]["accuracy"] == best["score"]


def test_trials_that_lag_behind_are_stopped(home, make_search, pretence):
    report = make_search(12).run()
    study = study_of(home)
    states = [trial["state"] for trial in study["trials"]]
    assert len(states) == 12 and set(states[:5]) == {"complete"} and {"pruned", "complete"} == set(states)
    pruned = [trial for trial in study["trials"] if trial["state"] == "pruned"]
    assert all(2 <= len(trial["scores"]) < 4 for trial in pruned) and any(trial["params"]["learning_rate"] == 1e-5 for trial in pruned)
    complete = [trial for trial in study["trials"] if trial["state"] == "complete"]
    assert all(len(trial["scores"]) == 4 for trial in complete)
    assert study["best"] == max(complete, key=lambda trial: trial["score"])["number"]
    assert any("pruned after" in line for line in report.splitlines())


def test_what_is_left_of_a_search(home, make_search, pretence, monkeypatch):
    monkeypatch.setattr(search_report, "draw", DRAW)
    report = make_search(4, write_test_outputs=True).run()
    study, folder = study_of(home), folder_of(home)
    assert {path.name for path in folder.iterdir()} == {"study.db", "study.json", "study.png", "best_hparams.json", "lock"}
    assert not list((home / "models" / "tiny" / "finetuning_models").glob("*/*")), "no weights"
    best = study["trials"][study["best"] - 1]
    values = json.loads((folder / "best_hparams.json").read_text(encoding="utf-8"))
    assert values == {**VALUES, "write_test_outputs": True, **best["params"]}
    assert (folder / "study.png").read_bytes().startswith(b"\x89PNG")
    lines = report.splitlines()
    assert lines[0] == "score: accuracy of nsmc on dev, seed 42" and lines[1] == "space: 27 combinations"
    assert [line.split()[0] for line in lines[4:9]] == ["trial", "1", "2", "3", "4"]
    assert study["score"] == "accuracy of nsmc" and study["space"] == dict(sorted(SPACE.items()))


def test_the_first_trials_try_every_value_equally_often(home, make_search, monkeypatch):
    monkeypatch.setattr(search_report, "draw", lambda *arguments: None)

    def train(self, study, trial, params):
        trial.set_user_attr("seconds", 1.0)
        trial.report(1.0, 1)
        study.tell(trial, 1.0)

    monkeypatch.setattr(Search, "_train", train)
    space = search.PUBLISHED_SPACE
    make_search(9, space).run()
    drawn = [trial["params"] for trial in study_of(home)["trials"]]
    for name, choices in space.items():
        counts = [sum(params[name] == choice for params in drawn) for choice in choices]
        assert max(counts) - min(counts) <= 1, counts
        assert [params[name] for params in drawn[: len(choices)]] != [params[name] for params in drawn[len(choices) : 2 * len(choices)]]


def test_the_same_parameters_are_not_trained_again(home, make_search, pretence):
    make_search(8, {"learning_rate": [1e-4, 1e-3]}).run()
    study = study_of(home)
    assert len(pretence.trained) == 2 * 4
    repeats = [trial for trial in study["trials"] if trial["repeats"]]
    assert len(repeats) == 6
    for trial in repeats:
        first = study["trials"][trial["repeats"] - 1]
        assert not first["repeats"] and all(trial[name] == first[name] for name in ("params", "score", "scores", "state"))


@pytest.mark.slow
def test_a_search_that_was_broken_off_ends_as_one_that_was_not(home, make_search, pretence):
    make_search(12).run()
    whole, trained = study_of(home), len(pretence.trained)
    assert {trial["state"] for trial in whole["trials"]} == {"complete", "pruned"}
    for path in folder_of(home).iterdir():
        path.unlink()
    pretence.trained.clear()
    pretence.stop_at = {1, 6, 19, 30, 31, 33}
    for _ in pretence.stop_at:
        with pytest.raises(KeyboardInterrupt):
            make_search(12).run()
        assert len(list((home / "models" / "tiny" / "finetuning_models").glob("*/search-*/*"))) <= 1, "only the trial it was at"
    make_search(12).run()
    assert study_of(home) == whole
    assert len(pretence.trained) == trained + len(pretence.stop_at), "only what was broken off is done again"


def test_a_finished_trial_counts_though_its_files_were_not_written(home, make_search, pretence, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "write_json", stop)
        with pytest.raises(KeyboardInterrupt):
            make_search(1).run()
    trained = len(pretence.trained)
    assert "best: trial 1" in make_search(1).run() and len(pretence.trained) == trained
    assert not list((home / "models" / "tiny" / "finetuning_models").glob("*/*"))


def test_more_trials_go_on_with_the_study(home, make_search, pretence):
    make_search(3).run()
    first, trained = study_of(home)["trials"], len(pretence.trained)
    make_search(5).run()
    trials = study_of(home)["trials"]
    assert trials[:3] == first and len(trials) == 5 and len(pretence.trained) <= trained + 2 * 4


def test_studies_of_other_data_settings_or_spaces_lie_apart(home, make_search):
    folders = {make_search()._folder, make_search(seed=1)._folder, make_search(num_train_epochs=1.0)._folder}
    folders |= {make_search(space=SPACE | {"weight_decay_rate": [0.0]})._folder}
    same = {make_search(7)._folder, make_search(learning_rate=1.0)._folder, make_search(space=dict(reversed(SPACE.items())))._folder}
    assert len(folders) == 4 and same == {make_search()._folder} and same < folders
    train = home / "finetuning_data" / "nsmc" / "ratings_train.txt"
    train.write_text(train.read_text(encoding="utf-8") + "1\t영화\t0\n", encoding="utf-8")
    assert make_search()._folder not in folders


def test_a_trial_that_diverges_does_not_end_the_search(home, make_search, pretence):
    pretence.diverging_rate = 1e-3
    report = make_search(6).run()
    trials = study_of(home)["trials"]
    diverged = [trial for trial in trials if trial["params"]["learning_rate"] == 1e-3]
    assert diverged and all(trial["state"] == "diverged" and trial["score"] is None for trial in diverged)
    assert diverged[0]["note"] == "loss is nan at step 3" and "diverged" in report
    with pytest.raises(DataError, match="none of the 2 trials came to its end: loss is nan.*--search_space"):
        make_search(2, {"learning_rate": [1e-3]}).run()


def test_a_setting_that_is_searched_is_not_the_one_that_was_given(make_search, pretence, caplog):
    with caplog.at_level(logging.WARNING):
        make_search(1, learning_rate=0.5).run()
    assert "learning_rate is searched: the 0.5 that was given is not used" in caplog.text


def test_a_bad_row_of_dev_is_found_before_training(home, make_search, pretence):
    path = home / "finetuning_data" / "nsmc" / "ratings_train.txt"
    path.write_text(path.read_text(encoding="utf-8") + "1\t영화\t2\n", encoding="utf-8")
    with pytest.raises(UserError, match="ratings_train.txt, line 302: label '2'"):
        make_search().run()
    assert not pretence.trained


@pytest.mark.parametrize(
    "space, words",
    [
        ({}, ["--search_space is empty"]),
        ({"learning_rat": [1e-4]}, ["--search_space", "'learning_rat'", "did you mean 'learning_rate'"]),
        ({"raw_data_dir": ["/a"]}, ["'raw_data_dir'", "no setting that can be searched"]),
        ({"seed": [1, 2]}, ["'seed'", "no setting that can be searched"]),
        ({"dev_seed": [1, 2]}, ["'dev_seed'", "no setting that can be searched"]),
        ({"learning_rate": 1e-4}, ["list of values", "'learning_rate'", "0.0001"]),
        ({"learning_rate": []}, ["list of values", "'learning_rate'", "[]"]),
        ({"learning_rate": ["1e-4"]}, ["--search_space", "'learning_rate' must be float", "'1e-4'"]),
        ({"learning_rate": [1e-4, 0]}, ["--search_space", "learning_rate must be above 0"]),
        ({"learning_rate": [1, 1.0]}, ["1.0 of 'learning_rate' is there twice"]),
        ({"model_hparam_overrides": [SHAPE]}, ["'model_hparam_overrides' is neither a number"]),
        ({"max_seq_length": [16, 64]}, ["--search_space", "max_seq_length 64", "32"]),
    ],
)
def test_impossible_spaces_are_refused(home, make_search, space, words):
    with pytest.raises(UserError) as error:
        make_search(space=space)
    assert all(word in str(error.value) for word in words), error.value
    assert not (home / "models").exists()


def test_impossible_numbers_and_places_are_refused(home, make_search):
    with pytest.raises(UserError, match="at least 1, got 0.*--search_trials"):
        make_search(0)
    (home / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder.*Not a directory.*--results_dir"):
        make_search(results_dir=str(home / "file")).run()
    with pytest.raises(UserError, match="local folder.*gs://bucket.*--results_dir"):
        make_search(results_dir="gs://bucket/results")


def test_a_damaged_study_and_one_in_use_are_explained(home, make_search, pretence):
    make_search(1).run()
    with locked(str(folder_of(home) / "lock")), pytest.raises(UserError, match="another process is searching in"):
        make_search(2).run()
    (folder_of(home) / "study.db").write_bytes(b"damaged" * 1000)
    with pytest.raises(DataError, match="study.db cannot be used.*remove it") as error:
        make_search(2).run()
    assert "\n" not in str(error.value)


def test_a_path_may_hold_what_means_something_in_a_url(home, make_search, pretence):
    folder = home / "결과 100%? #1"
    make_search(1, results_dir=str(folder)).run()
    assert [path.name for path in folder.glob("*/study.db")] == ["study.db"]


def test_the_published_space_is_the_default_and_possible(make_search):
    search_ = make_search(space=search.PUBLISHED_SPACE)
    assert {name: len(choices) for name, choices in search_._space.items()} == {
        "learning_rate": 5,
        "warmup_proportion": 3,
        "adam_epsilon": 3,
        "weight_decay_rate": 2,
    }


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "finetune.search")
    with pytest.raises(UserError, match=r"pip install \.\[search\]"):
        importlib.import_module("finetune.search")
