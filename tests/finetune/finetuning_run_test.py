import io
import json
import os
import pathlib

import numpy as np
import pytest
import sentencepiece

from finetune import finetuning_run
from finetune.finetuning_run import LOCK, FinetuningRun
from finetune.starting_point import find_starting_point
from model import checkpoint
from model.command import UserError, locked
from model.modeling import BertConfig, BertModel

FAST = {"num_train_epochs": 0.5}


def folders(home, kind):
    return sorted((home / "models" / "tiny" / kind).glob("*"))


def test_trials_are_scored_summarized_and_not_done_again(make_config, home, monkeypatch):
    results = FinetuningRun(make_config(num_trials=2, write_test_outputs=True, n_writes_test=1, **FAST)).run()
    assert [trial["seed"] for trial in results.trials] == [42, 43]
    (folder,) = folders(home, "results")
    assert {path.name for path in folder.iterdir()} == {
        *("results.json", "results.txt", ".lock", "nsmc_test_seed_42.tsv", "nsmc_test_seed_42.jsonl")
    }
    predictions = [line.split("\t") for line in (folder / "nsmc_test_seed_42.tsv").read_text().splitlines()[1:]]
    accuracy = 100 * np.mean([label == prediction for _, label, prediction, *_ in predictions])
    objects = [json.loads(line) for line in (folder / "nsmc_test_seed_42.jsonl").read_text().splitlines()]
    assert [[str(value) for value in found.values()] for found in objects] == predictions and "p(1)" in objects[0]
    assert len(predictions) == 60 and results.trials[0]["scores"]["nsmc"]["test"]["accuracy"] == pytest.approx(accuracy)
    assert "nsmc  test   accuracy" in results.table() and "60" in results.table()

    trial_dir = folders(home, "finetuning_models")[0] / folder.name.removeprefix("nsmc-") / "seed_42"
    assert not list(trial_dir.glob("model.ckpt*")), "only the selected weights are left"
    assert json.loads((trial_dir / "best" / "config.json").read_text())["finetuning"]["seed"] == 42
    start = find_starting_point(make_config(init_checkpoint=str(trial_dir / "best"), model_hparam_overrides={}, tokenizer_type=None))
    assert start.bert_config.hidden_size == 16 and start.tokenizer.provenance()["tokenizer_type"] == "wordpiece"

    def refuse(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(finetuning_run, "ModelRunner", refuse)
    again = FinetuningRun(make_config(num_trials=2, **FAST)).run()
    assert again.trials == json.loads(json.dumps(results.trials))
    with pytest.raises(AssertionError, match="trained again"):
        FinetuningRun(make_config(num_trials=3, **FAST)).run()
    with pytest.raises(AssertionError, match="trained again"):
        FinetuningRun(make_config(learning_rate=1e-3, **FAST)).run()


def test_results_of_different_texts_and_start_weights_lie_apart(make_config, home):
    def config_hash(**user):
        return FinetuningRun(make_config(**user)).results._description["config_hash"]

    shape = BertConfig(19, 16, 1, 2, 32, max_position_embeddings=32)
    prefixes = [checkpoint.save(str(home / str(seed)), 1, BertModel(shape, seed=seed).trainable_variables, 1) for seed in (1, 2)]
    hashes = {config_hash(), *(config_hash(init_checkpoint=prefix) for prefix in prefixes)}
    test_file = home / "finetuning_data" / "nsmc" / "ratings_test.txt"
    test_file.write_text(test_file.read_text() + "1\t영화\t0\n")
    hashes.add(config_hash())
    assert len(hashes) == 4
    assert config_hash() == config_hash(num_trials=5, write_test_outputs=True, save_checkpoints_steps=3)


def test_a_bad_row_of_the_test_split_is_found_before_training(make_config, home):
    path = home / "finetuning_data" / "nsmc" / "ratings_test.txt"
    path.write_text(path.read_text() + "1\t영화\t2\n")
    with pytest.raises(UserError, match="ratings_test.txt, line 62: label '2'.*allowed: 0, 1"):
        FinetuningRun(make_config()).run()
    assert not folders(home, "finetuning_models") and not folders(home, "results")


def test_a_second_process_at_the_same_trial_is_refused_and_changes_nothing(make_config, home):
    run = FinetuningRun(make_config(num_train_epochs=1.0))
    trial = pathlib.Path(run._trial_dir(42))
    trial.mkdir(parents=True)
    with locked(str(trial / LOCK)), pytest.raises(UserError, match="another process is at work in .*seed_42.*--seed or --model_dir"):
        run.run()
    assert os.listdir(trial) == [LOCK] and not folders(home, "results")


@pytest.mark.parametrize("keep, left", [(True, ["seed_42", "seed_43"]), (False, ["seed_43"])])
def test_only_the_last_trials_weights_are_kept_if_so_asked(make_config, home, monkeypatch, keep, left):
    def pretend(self, seed):
        (home / "models" / "tiny" / "finetuning_models" / self._trial_dir(seed)).mkdir(parents=True)
        return {
            "seed": seed,
            "seconds": 1.0,
            "rows": {"nsmc": {"dev": 9, "test": 9}},
            "cut": {},
            "reports": {},
            "scores": {"nsmc": {"dev": {"accuracy": 50.0}, "test": {"accuracy": 50.0}}},
        }

    monkeypatch.setattr(FinetuningRun, "_run_trial", pretend)
    for num_trials in (1, 2):  # what was the last is the last no more
        FinetuningRun(make_config(num_trials=num_trials, keep_all_models=keep)).run()
    assert sorted(path.name for path in (home / "models" / "tiny" / "finetuning_models" / "nsmc_model").glob("*/*")) == left


def test_texts_without_a_dev_share_are_refused(make_config, home):
    path = home / "finetuning_data" / "nsmc" / "ratings_train.txt"
    path.write_text("id\tdocument\tlabel\n" + "1\t영화\t0\n" * 100)
    with pytest.raises(UserError, match="no (dev )?examples"):
        FinetuningRun(make_config()).run()


def test_scoring_can_be_done_later_without_training(make_config):
    with pytest.raises(UserError, match="no finished trial.*--do_train"):
        FinetuningRun(make_config(do_train=False, **FAST)).run()
    trained = FinetuningRun(make_config(do_eval=False, **FAST)).run()
    assert set(trained.trials[0]["scores"]["nsmc"]) == {"dev"}
    scored = FinetuningRun(make_config(do_train=False, **FAST)).run()
    assert set(scored.trials[0]["scores"]["nsmc"]) == {"dev", "test"}
    assert scored.trials[0]["scores"]["nsmc"]["dev"] == trained.trials[0]["scores"]["nsmc"]["dev"]


@pytest.mark.slow
def test_one_model_learns_several_tasks(make_config, twin):
    results = FinetuningRun(make_config(task_names=["nsmc", "twin"], **FAST)).run()
    assert set(results.trials[0]["scores"]) == {"nsmc", "twin"}
    assert results.trials[0]["rows"]["twin"]["test"] == 20


@pytest.mark.parametrize("recipe", ["google", "dialog"])
def test_scores_of_similarity_and_of_names_are_learned(make_config, home, several, recipe):
    user = {"recipe": recipe, "classifier_head": "linear" if recipe == "google" else "two_layer", "eval_every_steps": 0}
    results = FinetuningRun(make_config(task_names=several, num_train_epochs=8.0, write_test_outputs=True, **user)).run()
    scores = results.trials[0]["scores"]
    assert scores["korsts"]["test"]["spearman"] > 80 and scores["naver-ner"]["test"]["f1"] > 90
    assert results.trials[0]["reports"]["naver-ner"]["test"]["labels"]["PER"]["f1"] == pytest.approx(scores["naver-ner"]["test"]["f1"])
    assert "test standin.klue-ner-dev.test.tsv (stand-in for test.tsv)" in results.table()
    (folder,) = folders(home, "results")
    lines = (folder / "naver-ner_test_seed_42.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "line\tword\ttag\tprediction" and len({line.split("\t")[0] for line in lines[1:]}) == 40
    assert len((folder / "korsts_test_seed_42.tsv").read_text(encoding="utf-8").splitlines()) == 41


def test_what_was_cut_is_counted(make_config, several):
    results = FinetuningRun(make_config(task_names=["naver-ner"], max_seq_length=5, **FAST)).run()
    cut = results.trials[0]["cut"]["naver-ner"]["test"]
    assert 0 < cut["examples"] < 40 and cut["examples"] <= cut["pieces"]
    assert f"cut to 5 pieces: {cut['examples']} examples of naver-ner test, {cut['pieces']} pieces lost" in results.table()


def test_an_example_of_which_two_inputs_are_made_counts_once(make_config, home, several):
    path = home / "finetuning_data" / "korsts" / "sts-train.tsv"
    path.write_text(path.read_text(encoding="utf-8").replace("영화", "영화 영화"), encoding="utf-8")
    both, one = (make_config(task_names=["korsts"], max_seq_length=5, double_unordered=doubled, **FAST) for doubled in (True, False))
    runs = [FinetuningRun(config) for config in (both, one)]
    counts = [(run._preprocessor.num_examples(run.tasks[0], "train"), run._preprocessor.count_cut(run.tasks[0], "train")) for run in runs]
    assert counts[0] == counts[1] and counts[0][1]["examples"] > 0
    steps = [run._preprocessor.prepare_train(1)[1] for run in runs]
    assert steps[0] == pytest.approx(2 * steps[1], abs=1)


def test_class_weights_without_classes_are_told_to_have_no_effect(make_config, several, caplog):
    with caplog.at_level("WARNING", logger="absl"):
        FinetuningRun(make_config(task_names=["korsts"], class_weights=True, **FAST)).run()
    assert "Task korsts is no classification: --class_weights has no effect on it" in caplog.text


# --- from models of other makers -----------------------------------------------------------------------------------------------------

NOTHING_ASKED = {"model_hparam_overrides": {}, "embedding_size": None, "tokenizer_type": None}


@pytest.mark.slow
@pytest.mark.parametrize("kind, head", [("electra", "two_layer"), ("bert", "two_layer"), ("distilbert", "two_layer"), ("bert", "linear")])
def test_from_a_folder_of_transformers_to_a_score_and_on(make_config, make_transformers_folder, home, kind, head):
    asked = {"init_checkpoint": str(make_transformers_folder(kind)), "classifier_head": head, **NOTHING_ASKED, **FAST}
    results = FinetuningRun(make_config(**asked)).run()
    assert 0 <= results.trials[0]["scores"]["nsmc"]["test"]["accuracy"] <= 100 and f"start: {home}/transformers-{kind}" in results.table()
    (best,) = (home / "models" / "tiny" / "finetuning_models").glob("*/*/seed_42/best")
    start = find_starting_point(make_config(**asked | {"init_checkpoint": str(best)}))
    assert start.bert_config.model_type == kind and start.bert_config.num_hidden_layers == 2
    assert start.prefix.startswith(f"{best}/model.ckpt-")


def test_distilkobert_on_sentences_and_words(make_config, make_transformers_folder, home, several):
    """The files of monologg/distilkobert: a sentencepiece model, and vocab.txt with ids of its own."""
    folder, model = make_transformers_folder("distilbert", vocab_size=64), io.BytesIO()
    lines = (home / "finetuning_data" / "nsmc" / "ratings_train.txt").read_text(encoding="utf-8").split("\n")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=60, hard_vocab_limit=False, minloglevel=2, unk_piece="[UNK]"
    )
    (folder / "tokenizer_78b3253a26.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(row) for row in range(3, len(processor))]
    (folder / "vocab.txt").write_text("\n".join(["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *pieces]), encoding="utf-8")
    (folder / "tokenizer_config.json").unlink()
    asked = {"init_checkpoint": str(folder), "recipe": "dialog", "task_names": [*several, "nsmc"], "eval_every_steps": 0}
    run = FinetuningRun(make_config(**asked, **NOTHING_ASKED, **FAST))
    scores = run.run().trials[0]["scores"]
    assert [name in scores[task]["test"] for task, name in (("korsts", "spearman"), ("naver-ner", "f1"), ("nsmc", "accuracy"))] == [
        True
    ] * 3
    assert run._start.tokenizer.tokenizer_type == "kobert" and run._start.tokenizer.pad_id == 1


@pytest.mark.slow
def test_a_checkpoint_of_the_original_is_fine_tuned_with_one_flag_for_its_heads(make_config, golden):
    asked = NOTHING_ASKED | {"model_hparam_overrides": {"num_attention_heads": 2}}
    run = FinetuningRun(make_config(init_checkpoint=str(golden / "small"), **asked, **FAST))
    assert "accuracy" in run.run().trials[0]["scores"]["nsmc"]["test"]
