"""What a user can ask for that cannot be had, and that nothing is left behind then."""

import json
import os
import re

import pytest
import tensorflow as tf

from export import transformers_export
from export.exporter import ExportConfig, export
from finetune.finetuning_run import FinetuningRun
from model import checkpoint
from model.command import DataError, UserError
from model.layers import variable_name
from model.modeling import BertConfig, BertModel


def attempt(tmp_path, fields):
    with pytest.raises(UserError) as error:
        export(ExportConfig.create({"output_dir": str(tmp_path / "out"), **fields}))
    assert not re.search("--(init_checkpoint|model|model_size|model_hparam_overrides|vocab_size)", str(error.value))
    assert not list(tmp_path.glob("out*")) and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"checkpoint": ""}, ["--checkpoint is required"]),
        ({"checkpoint": "/nowhere"}, ["no checkpoint at '/nowhere'"]),
        ({"part": "encoder"}, ["part", "discriminator, generator, finetuned", "'encoder'"]),
        ({"format": "pdf"}, ["format", "'pdf'", "transformers, tf1"]),
        ({"everything": True}, ["--everything has a meaning with --format=tf1 only", "'transformers'"]),
        ({"task_name": "nsmc"}, ["--task_name has no meaning for the discriminator"]),
        ({"part": "finetuned"}, ["no fine-tuned model in", "--checkpoint"]),
        ({"hparams": '{"num_heads": 3}'}, ["unknown hparam 'num_heads'", "--hparams"]),
        ({"hparams": '{"model_hparam_overrides": {"hidden_size": 32}}'}, ["hidden_size 64, but --hparams asks for 32 (--hparams)"]),
        ({"hparams": '{"vocab_size": 30000}'}, ["vocab_size 1000, but --hparams asks for 30000"]),
        (
            {"part": "generator", "hparams": '{"generator_hidden_size": 0.25, "model_hparam_overrides": {"num_attention_heads": 2}}'},
            ["has hidden_size 32, but generator_hidden_size 0.25 asks for 16"],
        ),
        (
            {"hparams": '{"generator_layers": 0.5, "model_hparam_overrides": {"num_attention_heads": 2}}'},
            ["generator_layers 0.5 asks for 1"],
        ),
        ({"output_dir": "gs://bucket/out"}, ["no folder of this machine", "--output_dir"]),
        ({"checkpoint": "nowhere://bucket/model.ckpt-1"}, ["nowhere://bucket", "--checkpoint"]),
        ({"vocab_file": "/no/vocab.txt"}, ["no vocabulary at /no/vocab.txt", "--vocab_file"]),
    ],
)
def test_what_cannot_be_had_is_one_sentence(original, tmp_path, fields, words):
    message = attempt(tmp_path, {**original, **fields})
    assert all(word in message for word in words), message


def test_a_part_that_is_not_there(golden, tmp_path):
    shape = BertConfig(1000, 16, 1, 2, 32, max_position_embeddings=16)
    prefix = checkpoint.save(str(tmp_path / "encoder"), 3, BertModel(shape, 8).trainable_variables, 1)
    (tmp_path / "encoder" / "vocab.txt").write_bytes((golden / "small" / "vocab.txt").read_bytes())
    heads = '{"model_hparam_overrides": {"num_attention_heads": 2}}'
    for part in ("discriminator", "generator"):
        message = attempt(tmp_path, {"checkpoint": prefix, "part": part, "hparams": heads})
        assert f"no {part}_predictions/ variables in {prefix}" in message and "--part" in message


def test_nothing_is_written_over_and_nothing_is_left_of_what_fails(original, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists: nothing is written over.*--output_dir"):
        export(ExportConfig.create({**original, "output_dir": str(tmp_path / "out")}))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write.*Not a directory.*--output_dir"):
        export(ExportConfig.create({**original, "output_dir": str(tmp_path / "file" / "out")}))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transformers_export, "write_tokenizer", full)
    with pytest.raises(DataError, match="No space left on device"):
        export(ExportConfig.create({**original, "output_dir": str(tmp_path / "new")}))
    assert sorted(os.listdir(tmp_path)) == ["file", "out"]


def test_the_script_exports_and_explains(run_script, original, tmp_path):
    flags = [f"--{name}={value}" for name, value in original.items()]
    run_script("export_checkpoint.py", *flags, f"--output_dir={tmp_path / 'out'}")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["ElectraForPreTraining"]
    again = run_script("export_checkpoint.py", *flags, f"--output_dir={tmp_path / 'out'}", check=False)
    assert again.returncode == 2 and "error: " in again.stderr and "Traceback" not in again.stderr


def test_a_model_of_another_kind_has_no_discriminator(make_transformers_folder, tmp_path):
    folder = make_transformers_folder("bert")
    assert "is a bert model, which has no discriminator" in attempt(tmp_path / "none", {"checkpoint": str(folder)})


def test_a_checkpoint_of_a_masked_language_model_has_a_generator_that_is_its_encoder(golden, tmp_path):
    from export.exported_model import _build
    from finetune.starting_point import StartingPoint

    shape = BertConfig(1000, 16, 1, 2, 32, max_position_embeddings=16)
    model = _build("generator", shape, 8, StartingPoint(None, shape, 8, None))
    prefix = checkpoint.save(str(tmp_path / "mlm"), 3, list(model.variables_by_name.values()), 1)
    (tmp_path / "mlm" / "vocab.txt").write_bytes((golden / "small" / "vocab.txt").read_bytes())
    found = export(
        ExportConfig.create(
            {
                "checkpoint": prefix,
                "part": "generator",
                "hparams": '{"model_hparam_overrides": {"num_attention_heads": 2}}',
                "output_dir": str(tmp_path / "out"),
            }
        )
    )
    assert found.config.hidden_size == 16 and variable_name(found.encoder.embeddings.word_embeddings).startswith("electra/")


def test_settings_of_a_fine_tuned_model_must_not_contradict_it(make_config, home, tmp_path):
    FinetuningRun(make_config(num_train_epochs=0.1)).run()
    fields = {"checkpoint": str(home / "models"), "part": "finetuned"}
    for hparams, words in (('{"nonsense": 3}', "unknown hparam"), ('{"vocab_size": 5}', "vocab_size 19, but --hparams asks for 5")):
        assert words in attempt(tmp_path / "none", {**fields, "hparams": hparams})


def test_an_output_layer_of_its_own_is_refused(original, tmp_path):
    export(ExportConfig.create({**original, "part": "generator", "output_dir": str(tmp_path / "theirs")}))
    path = tmp_path / "theirs" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": False}))
    fields = {"checkpoint": str(tmp_path / "theirs"), "part": "generator", "format": "tf1"}
    assert "an output layer apart from its embeddings" in attempt(tmp_path, fields)
    assert "does the folder hold a discriminator? (--part)" in attempt(tmp_path, {**fields, "part": "discriminator"})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))
    assert "holds its generator alone (--everything" in attempt(tmp_path, {**fields, "everything": True})


@pytest.mark.parametrize(
    "change, words",
    [
        ({"embedding_size": "128"}, "embedding_size must be a number"),
        ({"embedding_size": -3}, "embedding_size must be a number"),
        ({"generator_config": {}}, "lacks vocab_size"),
        (
            {"bert_config": {"vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}},
            "says num_hidden_layers 1",
        ),
        ({"pretraining": {"electric_objective": True}}, "is an Electric model"),
        ({"pretraining": 3, "vocab_file": 7}, ""),
    ],
)
def test_a_config_json_that_is_damaged_or_of_another_model(golden, original, tmp_path, change, words):
    source = tmp_path / "source"
    source.mkdir()
    for path in (golden / "small").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    shape = {"vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    record = {"bert_config": {**shape, "max_position_embeddings": 64}, "embedding_size": 128, "tokenizer": {"tokenizer_type": "wordpiece"}}
    (source / "config.json").write_text(json.dumps(record | change))
    if words:
        assert words in attempt(tmp_path / "none", {"checkpoint": str(source)})
    else:
        export(ExportConfig.create({"checkpoint": str(source), "output_dir": str(tmp_path / "out")}))


def test_a_full_disk_in_tensorflow_is_one_sentence_too(original, tmp_path, monkeypatch):
    def full(**arguments):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.raw_ops, "SaveV2", full)
    assert "No space left on device (--output_dir)" in attempt(tmp_path, {**original, "format": "tf1"})
