import json

import pytest
import tensorflow as tf

from finetune.starting_point import find_starting_point
from model import checkpoint
from model.command import UserError
from model.modeling import BertConfig, BertModel
from model.tokenization import FullTokenizer


@pytest.fixture
def pretrained(home):
    """A model as run_pretraining.py leaves it in models/tiny: weights, config.json, vocab.txt in data_dir."""
    shape = BertConfig(19, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=24)
    folder = home / "models" / "tiny"
    checkpoint.save(str(folder), 7, BertModel(shape, 4).trainable_variables, keep_max=1)
    tokenizer = FullTokenizer(str(home / "vocab.txt"), tokenizer_type="wordpiece")
    record = {"bert_config": shape.to_dict(), "embedding_size": 4, "tokenizer": tokenizer.provenance()}
    (folder / "config.json").write_text(json.dumps(record))
    return folder


def test_shape_and_tokenizer_come_from_the_checkpoints_config(make_config, pretrained):
    start = find_starting_point(make_config(init_checkpoint="", tokenizer_type=None, model_hparam_overrides={}))
    assert start.prefix == str(pretrained / "model.ckpt-7")
    assert (start.bert_config.hidden_size, start.bert_config.max_position_embeddings, start.embedding_size) == (8, 24, 4)
    assert start.tokenizer.provenance()["tokenizer_type"] == "wordpiece"


def test_random_weights_have_the_same_shape_and_tokenizer(make_config, pretrained):
    trained, untrained = (
        find_starting_point(make_config(init_checkpoint=name, tokenizer_type=None, model_hparam_overrides={})) for name in ("", "none")
    )
    assert untrained.prefix is None
    assert untrained.bert_config == trained.bert_config and untrained.embedding_size == trained.embedding_size
    assert untrained.tokenizer.provenance() == trained.tokenizer.provenance()


def test_without_config_json_the_shape_comes_from_the_hparams(make_config, pretrained):
    (pretrained / "config.json").unlink()
    start = find_starting_point(make_config(init_checkpoint=str(pretrained / "model.ckpt-7")))
    assert start.bert_config.hidden_size == 16 and start.embedding_size == 16 and start.bert_config.vocab_size == 19


def test_dropout_may_be_overridden(make_config, pretrained):
    start = find_starting_point(make_config(init_checkpoint="", model_hparam_overrides={"hidden_dropout_prob": 0.3}))
    assert start.bert_config.hidden_dropout_prob == 0.3 and start.bert_config.hidden_size == 8


def test_the_models_own_vocabulary_comes_first(make_config, home, pretrained):
    (pretrained / "vocab.txt").write_bytes((home / "vocab.txt").read_bytes())
    assert find_starting_point(make_config(init_checkpoint="")).tokenizer.vocab_file == str(pretrained / "vocab.txt")


@pytest.mark.parametrize(
    "user, words",
    [
        ({"init_checkpoint": "/nowhere"}, ["no checkpoint at '/nowhere'", "--init_checkpoint"]),
        ({"init_checkpoint": "", "tokenizer_type": "mecab_wordpiece"}, ["tokenizer_type", "'wordpiece'", "'mecab_wordpiece'"]),
        ({"init_checkpoint": "", "do_lower_case": True}, ["do_lower_case", "False", "True", "--do_lower_case"]),
        ({"init_checkpoint": "", "max_seq_length": 25}, ["max_seq_length 25", "24", "--max_seq_length"]),
        ({"init_checkpoint": "", "reinit_top_layers": 2}, ["reinit_top_layers", "layers, 1, got 2", "--reinit_top_layers"]),
        ({"init_checkpoint": "", "vocab_file": "/no/vocab.txt"}, ["no vocabulary at /no/vocab.txt", "--vocab_file"]),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_refused(make_config, pretrained, user, words):
    with pytest.raises(UserError) as error:
        find_starting_point(make_config(**{"model_hparam_overrides": {}, **user}))
    assert all(word in str(error.value) for word in words), error.value


def test_another_vocabulary_is_refused(make_config, home, pretrained):
    (pretrained / "vocab.txt").write_text((home / "vocab.txt").read_text().replace("영화", "연극"))
    with pytest.raises(UserError, match="vocab_sha256.*--vocab_file"):
        find_starting_point(make_config(init_checkpoint=""))


def test_a_vocabulary_larger_than_the_model_is_refused(make_config, home):
    with pytest.raises(UserError, match="19 entries, but the model only 18"):
        find_starting_point(make_config(vocab_size=18))
    assert not tf.io.gfile.exists(str(home / "models"))
