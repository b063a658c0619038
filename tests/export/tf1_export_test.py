"""Checkpoints under the original's names: which variables, their bits, and the way from a folder of transformers and back."""

import json

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from export.exporter import ExportConfig, export
from finetune.finetuning_run import FinetuningRun
from model import checkpoint


def run(tmp_path, name="out", **fields):
    export(ExportConfig.create({"format": "tf1", "output_dir": str(tmp_path / name), **fields}))
    return checkpoint.resolve(str(tmp_path / name))


def test_the_discriminator_alone_without_slots(golden, original, tmp_path):
    prefix = run(tmp_path, **original)
    source = checkpoint.resolve(str(golden / "small"))
    names = set(checkpoint.read_shapes(prefix))
    assert prefix.endswith("model.ckpt-30") and {name.split("/")[0] for name in names} == {"electra", "discriminator_predictions"}
    assert not any("adam" in name for name in names)
    for name, value in checkpoint.read(prefix, sorted(names)).items():
        np.testing.assert_array_equal(value, checkpoint.read(source, [name])[name])
    reader = tf.compat.v1.train.NewCheckpointReader(prefix)  # what tools written for the original read with
    assert reader.get_variable_to_shape_map()["electra/embeddings/word_embeddings"] == [1000, 128]


def test_the_generator_with_the_embeddings_it_shares(original, tmp_path):
    names = set(checkpoint.read_shapes(run(tmp_path, **original, part="generator")))
    assert {name.split("/")[0] for name in names} == {"electra", "generator", "generator_predictions"}
    assert all(name.startswith("electra/embeddings/") for name in names if name.startswith("electra/"))


def test_everything_and_the_optimizer_only_where_asked_for(golden, original, tmp_path):
    source = set(checkpoint.read_shapes(checkpoint.resolve(str(golden / "small"))))
    weights = set(checkpoint.read_shapes(run(tmp_path, "weights", **original, everything=True)))
    whole = set(checkpoint.read_shapes(run(tmp_path, "whole", **original, everything=True, with_optimizer=True)))
    assert whole == source and weights < whole and {name for name in weights if name.endswith(("adam_m", "adam_v"))} == set()
    part = set(checkpoint.read_shapes(run(tmp_path, "part", **original, with_optimizer=True)))
    assert "global_step" in part and {name.split("/")[0] for name in part} == {"electra", "discriminator_predictions", "global_step"}


def test_fine_tuning_starts_from_what_was_exported(golden, original, make_config, home, tmp_path):
    run(tmp_path, **original)
    (tmp_path / "out" / "model.ckpt-30.index").stat()
    values = {"init_checkpoint": str(tmp_path / "out"), "model_hparam_overrides": {}, "embedding_size": None, "tokenizer_type": None}
    results = FinetuningRun(make_config(num_train_epochs=0.1, **values)).run()
    assert results._description["bert_config"]["num_attention_heads"] == 2, "as config.json says, which lies beside it"


@pytest.mark.parametrize("part", ["discriminator", "generator"])
def test_to_transformers_and_to_tensorflow_and_back_every_bit_stays(original, tmp_path, part):
    first = {**original, "part": part, "format": "transformers", "output_dir": str(tmp_path / "first")}
    export(ExportConfig.create(first))
    prefix = run(tmp_path, "ours", checkpoint=str(tmp_path / "first"), part=part)
    export(ExportConfig.create({"checkpoint": prefix, "part": part, "output_dir": str(tmp_path / "second")}))
    before, after = (safetensors.numpy.load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value.view(np.uint8), after[name].view(np.uint8))
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("first", "second")]
    assert configs[0] == configs[1]
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
