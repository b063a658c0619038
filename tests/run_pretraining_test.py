"""run_pretraining.py as users start it: what it writes and what it refuses."""

import hashlib
import json
import math
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from model import checkpoint
from tests.pretraining_home import HELD_OUT, LENGTH, SHAPE, VOCAB, assert_refused, contents, example, flags, history, make_home, variables


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("data") / "home")


# --- one run and what it leaves ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(home, pretrain):
    """(model_dir of a run of six steps with evaluation, its Result)."""
    result = pretrain(*flags(home, "mini", do_eval=True, num_eval_steps=0))
    return home / "models" / "mini", result


def test_a_run_writes_checkpoints_in_the_originals_format(trained):
    folder, _ = trained
    assert {path.name for path in folder.iterdir()} == {
        *(".lock", "config.json", "checkpoint", "train_metrics.jsonl", "loss_curve.png", "events", "results"),
        *(f"model.ckpt-{step}.{suffix}" for step in (3, 6) for suffix in ("index", "data-00000-of-00001")),
    }
    names = set(checkpoint.read_shapes(str(folder / "model.ckpt-6")))
    weights = {name for name in names if not name.endswith(("/adam_m", "/adam_v")) and name != "global_step"}
    assert names == weights | {f"{name}/{slot}" for name in weights for slot in ("adam_m", "adam_v")} | {"global_step"}
    assert {name.split("/")[0] for name in weights} == {"electra", "generator", "generator_predictions", "discriminator_predictions"}
    assert variables(folder / "model.ckpt-6")["global_step"] == 6


def test_config_json_holds_settings_shapes_and_how_text_became_ids(trained, home):
    folder, _ = trained
    config = json.loads((folder / "config.json").read_text())
    assert config["pretraining"]["vocab_size"] == VOCAB and config["pretraining"]["learning_rate"] == 5e-4
    assert config["bert_config"]["hidden_size"] == 32 and config["bert_config"]["vocab_size"] == VOCAB
    assert config["generator_config"]["hidden_size"] == 16 and config["embedding_size"] == 16
    assert config["max_predictions_per_seq"] == 3 and config["tensorflow"] == tf.__version__
    assert config["tokenizer"] == json.loads((home / "pretrain_tfrecords" / "manifest.json").read_text())["tokenizer"]


def test_history_starts_at_the_untrained_loss_and_falls(trained):
    folder, _ = trained
    rows = history(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert abs(rows[0]["loss"] - (math.log(VOCAB) + 50 * math.log(2))) < 1.0
    assert rows[0]["learning_rate"] == 0.0 and rows[1]["learning_rate"] == pytest.approx(5e-4 * (1 - 1 / 6) / 2)
    assert {"masked_lm_loss", "masked_lm_accuracy", "disc_loss", "disc_recall", "gradient_norm", "tokens"} <= set(rows[0])
    assert rows[-1]["disc_loss"] < rows[0]["disc_loss"] and all(row["examples"] == 8 for row in rows)


def test_tensorboard_gets_generator_discriminator_and_training_apart(trained):
    folder, _ = trained
    points: dict[str, list] = {}
    for path in sorted((folder / "events").iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                points.setdefault(value.tag, []).append((event.step, float(tf.make_ndarray(value.tensor))))
    assert {
        *("generator/masked_lm_loss", "generator/masked_lm_accuracy", "discriminator/disc_loss", "discriminator/disc_accuracy"),
        *("training/loss", "training/learning_rate", "training/gradient_norm", "training/tokens_per_second"),
    } <= set(points)
    for tag, name in (("generator/masked_lm_loss", "masked_lm_loss"), ("discriminator/disc_loss", "disc_loss"), ("training/loss", "loss")):
        assert [step for step, _ in points[tag]] == [1, 2, 3, 4, 5, 6]
        np.testing.assert_allclose([value for _, value in points[tag]], [row[name] for row in history(folder)], rtol=1e-6)


def test_the_loss_curve_is_a_picture(trained):
    folder, _ = trained
    picture = (folder / "loss_curve.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000


def test_the_console_shows_progress_with_time_left(trained):
    _, result = trained
    line = next(line for line in result.err.splitlines() if "step 4/6" in line)
    for part in ("66.7 %", "loss ", "masked_lm_loss ", "disc_loss ", "steps/s", "tokens/s", "left"):
        assert part in line
    assert result.out == ""


METRICS = {
    *("masked_lm_accuracy", "masked_lm_loss", "sampled_masked_lm_accuracy", "disc_loss", "disc_auc", "disc_accuracy"),
    *("disc_precision", "disc_recall", "loss"),
}


def test_fixed_evaluation_results_are_written_as_json_and_text_over_every_held_out_example(trained):
    folder, _ = trained
    results = json.loads((folder / "results" / "unsup_results.json").read_text())
    assert METRICS <= set(results) and all(math.isfinite(results[name]) for name in METRICS)
    assert results["global_step"] == 6 and results["examples"] == results["held_out_examples"] == HELD_OUT
    lines = (folder / "results" / "unsup_results.txt").read_text().splitlines()
    assert dict(line.split(": ") for line in lines) == {name: str(value) for name, value in results.items()}
    assert results["loss"] == pytest.approx(results["masked_lm_loss"] + 50 * results["disc_loss"], rel=1e-6)


def test_evaluation_alone_gives_the_same_in_batches_of_any_size_and_leaves_the_run_alone(trained, home, pretrain, tmp_path):
    folder, _ = trained
    before = contents(folder)
    settings = {
        "do_train": False,
        "do_eval": True,
        "num_eval_steps": 0,
        "eval_batch_size": 10,
        "results_txt": str(tmp_path / "out" / "r.txt"),
    }
    # Training shards are not asked for: held-out ones are often all that is on the machine.
    pretrain(*flags(home, "mini", pretrain_tfrecords="/none", **settings))
    again, first = json.loads((tmp_path / "out" / "r.json").read_text()), json.loads(before["results/unsup_results.json"])
    assert contents(folder) == before and set(again) == set(first)
    for name, value in first.items():
        assert again[name] == pytest.approx(value, rel=1e-5, abs=2e-3 if name == "disc_auc" else 1e-6), name


# --- going on with an earlier run ------------------------------------------------------------------------------------------------------


@pytest.fixture
def earlier(trained, tmp_path):
    """A copy of the run of six steps."""
    return pathlib.Path(shutil.copytree(trained[0], tmp_path / "earlier"))


def test_a_run_goes_on_with_more_steps_and_another_learning_rate_and_says_so(earlier, home, pretrain):
    changed = {"num_train_steps": 8, "learning_rate": 1e-3, "model_dir": str(earlier)}
    result = pretrain(*flags(home, "mini", **changed))
    assert f"Resumed from {earlier}/model.ckpt-6" in result.err
    assert "another learning_rate than before: 0.001, it was 0.0005" in result.err
    assert "another num_train_steps than before: 8, it was 6" in result.err
    rows = history(earlier)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert rows[6]["learning_rate"] == pytest.approx(1e-3 * (1 - 6 / 8))  # the new schedule
    assert json.loads((earlier / "config.json").read_text())["pretraining"]["learning_rate"] == 1e-3
    assert variables(earlier / "model.ckpt-8")["global_step"] == 8


@pytest.mark.parametrize(
    "settings, parts",
    [
        ({"model_hparam_overrides": {**SHAPE, "hidden_size": 64}}, ["bert_config hidden_size 32", "64", "--model_dir"]),
        ({"model_hparam_overrides": {**SHAPE, "num_attention_heads": 4}}, ["bert_config num_attention_heads 2", "4"]),
        ({"generator_hidden_size": 1.0}, ["generator_config hidden_size 16", "32"]),
        ({"electra_objective": False}, ["electra_objective True", "False"]),
        ({"untied_generator": False}, ["untied_generator True", "False"]),
        ({"embedding_size": 32}, ["embedding_size 16", "32"]),
        ({"vocab_size": VOCAB + 8}, [f"bert_config vocab_size {VOCAB}", f"{VOCAB + 8}"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_run_of_another_network_or_objective_is_refused_and_changes_nothing(earlier, home, pretrain, settings, parts):
    before = contents(earlier)
    assert_refused(pretrain(*flags(home, "mini", model_dir=str(earlier), num_train_steps=9, **settings), code=2), *parts)
    assert contents(earlier) == before


def test_a_run_on_text_of_another_vocabulary_is_refused_and_changes_nothing(earlier, home, pretrain, tmp_path):
    other = pathlib.Path(shutil.copytree(home / "pretrain_tfrecords", tmp_path / "other" / "pretrain_tfrecords"))
    vocabulary = (home / "vocab.txt").read_text().replace("piece7\n", "stück7\n")
    (other.parent / "vocab.txt").write_text(vocabulary)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["tokenizer"]["vocab_sha256"] = hashlib.sha256(vocabulary.encode()).hexdigest()
    (other / "manifest.json").write_text(json.dumps(manifest))
    before = contents(earlier)
    result = pretrain(*flags(other.parent, "mini", model_dir=str(earlier), num_train_steps=9), code=2)
    assert_refused(result, "the checkpoints in", "vocab_sha256", manifest["tokenizer"]["vocab_sha256"])
    assert contents(earlier) == before


def test_a_checkpoint_that_config_json_says_nothing_about_is_refused_by_its_shapes(earlier, home, pretrain):
    os.remove(earlier / "config.json")
    before = contents(earlier)
    overrides = {**SHAPE, "intermediate_size": 96}
    result = pretrain(*flags(home, "mini", model_dir=str(earlier), num_train_steps=9, model_hparam_overrides=overrides), code=2)
    assert_refused(result, "has shape [64]", "[96]", "model.ckpt-6")
    assert contents(earlier) == before


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(earlier, home, pretrain):
    before = contents(earlier)
    settings = {"learning_rate": 1e35, "num_train_steps": 60, "save_checkpoints_steps": 100, "num_warmup_steps": 0}
    result = pretrain(*flags(home, "mini", model_dir=str(earlier), **settings), code=1)
    assert_refused(result, "at step ", "diverged", "--learning_rate", "the last checkpoint is untouched")
    assert any(f"error: {name} is " in result.last_line for name in ("loss", "mlm_loss", "disc_loss", "gradient_norm"))
    after = contents(earlier)
    assert {name: after.get(name) for name in before if "ckpt" in name or name == "checkpoint"} == {
        name: value for name, value in before.items() if "ckpt" in name or name == "checkpoint"
    }
    assert not [name for name in after if "saving" in name or "tmp" in name]


def test_warm_start_from_the_originals_weights_without_adam_slots_in_accumulated_parts(home, golden, pretrain, tmp_path):
    """The first step has learning rate 0, so that after it the weights are still those of the checkpoint."""
    original = variables(golden / "small" / "model.ckpt-30")
    weights = {name: value for name, value in original.items() if not name.endswith(("adam_m", "adam_v")) and name != "global_step"}
    (tmp_path / "released").mkdir()
    tensors = [tf.constant(value) for value in weights.values()]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "released" / "model.ckpt"), tensor_names=list(weights), shape_and_slices=[""] * len(weights), tensors=tensors
    )
    hparams = json.loads((golden / "small" / "hparams.json").read_text())
    settings = {
        "model_hparam_overrides": hparams["model_hparam_overrides"],
        "embedding_size": 128,
        "vocab_size": 1000,
        "num_train_steps": 1,
    }
    settings |= {"init_checkpoint": str(tmp_path / "released" / "model.ckpt"), "model_dir": str(tmp_path / "model")}
    result = pretrain(*flags(home, "mini", gradient_accumulation_steps=2, **settings))
    assert f"Warm start from {tmp_path}/released/model.ckpt: {len(weights)} variables loaded, 0 not in it" in result.err
    found = variables(tmp_path / "model" / "model.ckpt-1")
    assert found["global_step"] == 1 and any(found[f"{name}/adam_v"].any() for name in weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert history(tmp_path / "model")[0]["examples"] == 8


# --- what is refused -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["--learning_rat=3"], ["Unknown command line flag 'learning_rat'"]),
        (["--learning_rate=fast"], ["--learning_rate=fast", "could not convert"]),
        (["--num_train_steps=1.5"], ["--num_train_steps=1.5"]),
        (["--model_size=huge"], ["--model_size=huge", "small|base|large"]),
        (["--do_train", "False"], ["unexpected argument 'False'", "--name=value"]),
        (['--hparams={"learning_rat": 3}'], ["unknown hparam 'learning_rat'", "did you mean 'learning_rate'?", "--hparams"]),
        (['--hparams={"do_eval": "False"}'], ["'do_eval' must be bool, got str 'False'", "--do_eval"]),
        (["--hparams={learning_rate: 3}"], ["--hparams is not JSON"]),
        (["--hparams=/missing.json"], ["no file '/missing.json'", "--hparams"]),
        (["--hparams=configs"], ["no file 'configs'", "--hparams"]),
        (["--model_hparam_overrides=3"], ["'model_hparam_overrides' must be dict, got int 3", "--model_hparam_overrides"]),
        (["--model_name="], ["--model_name is required"]),
        (["--vocab_file=/missing.txt"], ["'/missing.txt'", "--vocab_file"]),
        (["--vocab_file=README_OF_NOTHING"], ["'README_OF_NOTHING'", "--vocab_file"]),
        (["--max_seq_length=48"], ["max_seq_length 48 is beyond max_position_embeddings 24", "--max_seq_length"]),
        (["--max_seq_length=16"], ["built for max_seq_length 24, but this run has 16", "--max_seq_length=24"]),
        (["--vocab_size=299"], ["vocab_size 299 is less than the 300 entries", "--vocab_size"]),
        (["--tokenizer_type=wordpiece"], ["tokenizer_type 'mecab_wordpiece'", "'wordpiece'", "--tokenizer_type"]),
        (["--do_lower_case"], ["do_lower_case False", "True", "--do_lower_case"]),
        (["--pretrain_tfrecords=/missing*"], ["no TFRecord files match '/missing*'", "--pretrain_tfrecords"]),
        (["--do_eval", "--eval_tfrecords=/missing*"], ["no TFRecord files match '/missing*'", "--eval_tfrecords"]),
        (
            ["--train_batch_size=9", "--gradient_accumulation_steps=2"],
            ["train_batch_size 9 is not a multiple", "--gradient_accumulation_steps"],
        ),
        (["--input_streams=3"], ["input_streams 3 is not possible", "train_batch_size 8 is not a multiple of 3", "--input_streams"]),
        (["--input_streams=4"], ["of 2 shards, 4 streams would get from 0 to 20 examples", "--num_out_files", "--input_streams"]),
        (["--generator_hidden_size=0.001"], ["makes a generator 0 wide", "--generator_hidden_size"]),
        (["--nodo_train"], ["nothing to do", "--do_eval"]),
        (["--nodo_train", "--do_eval"], ["there is no checkpoint in", "to evaluate", "--init_checkpoint"]),
        (["--init_checkpoint=/missing"], ["no checkpoint at '/missing'", "--init_checkpoint"]),
        (["--model_dir=/dev/null/x"], ["cannot make the folder '/dev/null/x'", "--model_dir"]),
    ],
    ids=lambda value: value[0][:36] if isinstance(value, list) and value[0].startswith("-") else "",
)
def test_bad_input_is_one_sentence_and_code_2_and_nothing_is_written(home, pretrain, arguments, parts):
    given = flags(home, "refused")
    if arguments[0].startswith("--hparams"):
        given = given[:2]
    before = contents(home)
    assert_refused(pretrain(*given, *arguments, code=2), *parts)
    assert contents(home) == before and not (home / "models" / "refused").exists()


@pytest.mark.parametrize(
    "vocabulary, code, parts",
    [
        ("[PAD]\n[UNK]\n[CLS]\n", 2, ["has no [SEP] among its 3 entries", "--vocab_file"]),
        ("", 2, ["is empty", "--vocab_file"]),
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", 2, ["vocab_sha256", "--vocab_file"]),
        (b"[PAD]\n\xff\n", 1, ["line 2", "not UTF-8"]),
    ],
    ids=["smaller than the specials", "empty", "another one", "not UTF-8"],
)
def test_a_vocabulary_that_cannot_be_is_refused(home, pretrain, tmp_path, vocabulary, code, parts):
    path = tmp_path / "vocab.txt"
    path.write_bytes(vocabulary if isinstance(vocabulary, bytes) else vocabulary.encode())
    assert_refused(pretrain(*flags(home, "refused", vocab_file=str(path)), code=code), *parts)
    assert not (home / "models" / "refused").exists()


def test_records_without_manifest_that_hold_ids_beyond_the_vocabulary_are_refused(home, pretrain, tmp_path):
    path = tmp_path / "pretrain_data.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        generator = np.random.default_rng(0)
        for _ in range(200):
            writer.write(example(generator, vocab_size=VOCAB + 50))
    result = pretrain(*flags(home, "refused", pretrain_tfrecords=str(path)), code=2)
    assert_refused(result, "hold the id ", f"makes a model of {VOCAB} ids", "--vocab_file")


def test_a_truncated_shard_is_refused_before_anything_is_written(pretrain, tmp_path):
    home = make_home(tmp_path / "home")
    path = home / "pretrain_tfrecords" / "pretrain_data.tfrecord-00001-of-00002"
    os.truncate(path, path.stat().st_size - 30)
    assert_refused(pretrain(*flags(home, "mini"), code=1), f"record 19 of {path} is truncated", "build the data set again")
    assert not (home / "models").exists()


# --- slow: every objective, debug mode, damage ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings, scopes",
    [
        ({"electra_objective": False}, {"electra", "generator_predictions"}),
        ({"electric_objective": True}, {"electra", "generator_ltr", "generator_rtl", "generator_predictions", "discriminator_predictions"}),
        ({"uniform_generator": True}, {"electra", "discriminator_predictions"}),
        ({"untied_generator": False}, {"electra", "generator_predictions", "discriminator_predictions"}),
        ({"untied_generator_embeddings": True}, {"electra", "generator", "generator_predictions", "discriminator_predictions"}),
        ({"masking": "original"}, {"electra", "generator", "generator_predictions", "discriminator_predictions"}),
        ({"disallow_correct": True, "temperature": 2.0}, {"electra", "generator", "generator_predictions", "discriminator_predictions"}),
        ({"mixed_precision": True}, {"electra", "generator", "generator_predictions", "discriminator_predictions"}),
        ({"jit_compile": True}, {"electra", "generator", "generator_predictions", "discriminator_predictions"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_every_objective_trains_and_is_evaluated(home, pretrain, tmp_path, settings, scopes):
    pretrain(*flags(home, "mini", model_dir=str(tmp_path / "model"), num_train_steps=20, do_eval=True, learning_rate=5e-3, **settings))
    assert {name.split("/")[0] for name in checkpoint.read_shapes(str(tmp_path / "model" / "model.ckpt-20"))} == scopes | {"global_step"}
    rows = history(tmp_path / "model")
    assert [row["step"] for row in rows] == list(range(1, 21)) and rows[-1]["loss"] < rows[0]["loss"]
    results = json.loads((tmp_path / "model" / "results" / "unsup_results.json").read_text())
    expected = {name for name in METRICS if not name.startswith("disc")} if settings.get("electra_objective") is False else METRICS
    assert expected <= set(results) and all(math.isfinite(results[name]) for name in expected)


@pytest.mark.slow
def test_warm_start_from_one_scope_leaves_the_other_variables_at_their_start_values(home, pretrain, tmp_path):
    """The encoder of a masked language model, for a discriminator; with learning rate 0 in the first step nothing else moves it."""
    folders = {name: tmp_path / name for name in ("mlm", "fresh", "started")}
    pretrain(*flags(home, "mini", model_dir=str(folders["mlm"]), electra_objective=False, learning_rate=1e-2))
    pretrain(*flags(home, "mini", model_dir=str(folders["fresh"]), num_train_steps=1))
    scope = {"init_checkpoint": str(folders["mlm"]), "init_scope": "electra/"}
    pretrain(*flags(home, "mini", model_dir=str(folders["started"]), num_train_steps=1, **scope))
    mlm, fresh = variables(folders["mlm"] / "model.ckpt-6"), variables(folders["fresh"] / "model.ckpt-1")
    started = variables(folders["started"] / "model.ckpt-1")
    weights = [name for name in started if not name.endswith(("/adam_m", "/adam_v"))]
    for name in weights:
        np.testing.assert_array_equal(started[name], (mlm if name.startswith("electra/") else fresh)[name], err_msg=name)
    assert np.any(mlm["electra/embeddings/word_embeddings"] != fresh["electra/embeddings/word_embeddings"])


@pytest.mark.slow
def test_accumulated_parts_make_the_same_steps_as_whole_batches(home, pretrain, tmp_path):
    rows = {}
    for parts in (1, 2, 4):
        folder = tmp_path / f"parts-{parts}"
        pretrain(*flags(home, "mini", model_dir=str(folder), gradient_accumulation_steps=parts))
        rows[parts] = history(folder)
    for parts in (2, 4):
        for whole, accumulated in zip(rows[1], rows[parts], strict=True):
            for name in ("loss", "masked_lm_loss", "disc_loss", "gradient_norm", "tokens"):
                assert accumulated[name] == pytest.approx(whole[name], rel=1e-4), (parts, name)


@pytest.mark.slow
def test_debug_mode_takes_20_steps_of_a_tiny_model(home, pretrain, tmp_path):
    arguments = [f"--data_dir={home}", "--model_name=debug", f"--max_seq_length={LENGTH}", f"--model_dir={tmp_path}/model"]
    pretrain(*arguments, "--debug", "--do_eval", "--log_steps=10")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["bert_config"]["hidden_size"], config["bert_config"]["num_hidden_layers"]) == (144, 3)
    rows = history(tmp_path / "model")
    assert [row["step"] for row in rows] == [10, 20] and rows[0]["examples"] == 80
    assert json.loads((tmp_path / "model" / "results" / "unsup_results.json").read_text())["examples"] == 8  # two batches of four
