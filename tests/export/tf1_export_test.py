"""Checkpoints under the original's names: which variables, their bits, and the way from a folder of transformers and back."""

import json

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from configure_pretraining import PretrainingConfig
from export.exported_model import load_model
from export.exporter import ExportConfig, export
from finetune.finetuning_run import FinetuningRun
from finetune.prediction import Predictor
from model import checkpoint
from model.tokenization import FullTokenizer
from pretrain.pretrain_data import SpecialTokens
from pretrain.pretraining_model import PretrainingModel


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


def test_morphemes_are_remembered_on_the_way_through_a_folder_of_transformers(golden, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for path in (golden / "small").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    settings = {"model_hparam_overrides": {"num_attention_heads": 2}, "tokenizer_type": "mecab_wordpiece"}
    fields = {"checkpoint": str(source), "hparams": json.dumps(settings)}
    export(ExportConfig.create({**fields, "output_dir": str(tmp_path / "theirs")}))
    assert json.loads((tmp_path / "theirs" / "text_settings.json").read_text())["tokenizer_type"] == "mecab_wordpiece"
    run(tmp_path, "ours", checkpoint=str(tmp_path / "theirs"))
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["tokenizer"]["tokenizer_type"] == "mecab_wordpiece"


def test_a_fine_tuned_model_can_be_used_as_before(make_config, home, tmp_path):
    FinetuningRun(make_config(num_train_epochs=1.0)).run()
    (best,) = home.glob("models/tiny/finetuning_models/*/*/*/best")
    for checkpoint_, name in ((best, "folder"), (checkpoint.resolve(str(best)), "prefix")):
        run(tmp_path, name, checkpoint=str(checkpoint_), part="finetuned")
        texts = ["영화 좋다", "지루"]
        assert Predictor(str(tmp_path / name)).predict(texts) == Predictor(str(best)).predict(texts)


def test_a_vocabulary_that_was_in_tokenizer_json_comes_as_vocab_txt(original, tmp_path):
    export(ExportConfig.create({**original, "output_dir": str(tmp_path / "theirs")}))
    (tmp_path / "theirs" / "vocab.txt").unlink()
    prefix = run(tmp_path, "ours", checkpoint=str(tmp_path / "theirs"))
    assert (tmp_path / "ours" / "vocab.txt").read_text().startswith("[PAD]\n")
    export(ExportConfig.create({"checkpoint": prefix, "output_dir": str(tmp_path / "again")}))


@pytest.mark.parametrize("layers, width", [(0.2, 1.0), (0.2, 0.5)])
def test_a_generator_without_layers_is_not_its_encoder(golden, tmp_path, layers, width):
    settings = {"generator_layers": layers, "generator_hidden_size": width, "embedding_size": 16, "max_seq_length": 16, "mask_prob": 0.2}
    settings |= {"model_hparam_overrides": {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}}
    config = PretrainingConfig.create("mini", str(tmp_path), settings)
    network = PretrainingModel(config, 1000, SpecialTokens(2, 3, 4))
    prefix = checkpoint.save(str(tmp_path / "mini"), 1, network.trainable_variables, 1)
    tokenizer = FullTokenizer(str(golden / "small" / "vocab.txt"), tokenizer_type="wordpiece")
    (tmp_path / "mini" / "vocab.txt").write_bytes((golden / "small" / "vocab.txt").read_bytes())
    record = {"bert_config": network.bert_config.to_dict(), "embedding_size": 16, "tokenizer": tokenizer.provenance()}
    record["generator_config"] = network.generators[0].config.to_dict()
    (tmp_path / "mini" / "config.json").write_text(json.dumps(record))
    model = load_model(prefix, "generator", {})
    assert model.config.num_hidden_layers == 0 and model.config.hidden_size == 16 * width
    ids = tf.constant([[2, 7, 4, 3]])
    vectors = network.generators[0](ids, tf.ones_like(ids), tf.zeros_like(ids)).get_sequence_output()
    expected = network.generator_predictions(vectors, network.encoder.get_embedding_table())
    found = model.head(model.encoder(ids, tf.ones_like(ids), tf.zeros_like(ids)).get_sequence_output(), model.encoder.get_embedding_table())
    np.testing.assert_allclose(found, expected, atol=1e-6)
