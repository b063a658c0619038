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
    shape = BertConfig(19, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32)
    folder = home / "models" / "tiny"
    checkpoint.save(str(folder), 7, BertModel(shape, 16).trainable_variables, keep_max=1)
    tokenizer = FullTokenizer(str(home / "vocab.txt"), tokenizer_type="wordpiece")
    record = {"bert_config": shape.to_dict(), "embedding_size": 16, "tokenizer": tokenizer.provenance()}
    (folder / "config.json").write_text(json.dumps(record))
    return folder


def test_shape_and_tokenizer_come_from_the_checkpoints_config(make_config, pretrained):
    start = find_starting_point(make_config(init_checkpoint="", tokenizer_type=None, model_hparam_overrides={}))
    assert start.prefix == str(pretrained / "model.ckpt-7")
    assert (start.bert_config.hidden_size, start.bert_config.max_position_embeddings, start.embedding_size) == (16, 32, 16)
    assert start.tokenizer.provenance()["tokenizer_type"] == "wordpiece"


def test_random_weights_have_the_same_shape_and_tokenizer(make_config, pretrained):
    trained, untrained = (
        find_starting_point(make_config(init_checkpoint=name, tokenizer_type=None, model_hparam_overrides={})) for name in ("", "none")
    )
    assert untrained.prefix is None
    assert untrained.bert_config == trained.bert_config and untrained.embedding_size == trained.embedding_size
    assert untrained.tokenizer.provenance() == trained.tokenizer.provenance()


def test_dropout_may_be_overridden(make_config, pretrained):
    start = find_starting_point(make_config(init_checkpoint="", model_hparam_overrides={"hidden_dropout_prob": 0.3}))
    assert start.bert_config.hidden_dropout_prob == 0.3 and start.bert_config.hidden_size == 16


def test_the_models_own_vocabulary_comes_first(make_config, home, pretrained):
    (pretrained / "vocab.txt").write_bytes((home / "vocab.txt").read_bytes())
    assert find_starting_point(make_config(init_checkpoint="")).tokenizer.vocab_file == str(pretrained / "vocab.txt")


@pytest.mark.parametrize(
    "user, words",
    [
        ({"init_checkpoint": "/nowhere"}, ["no checkpoint at '/nowhere'", "--init_checkpoint"]),
        ({"init_checkpoint": "", "tokenizer_type": "mecab_wordpiece"}, ["tokenizer_type", "'wordpiece'", "'mecab_wordpiece'"]),
        ({"init_checkpoint": "", "do_lower_case": True}, ["do_lower_case", "False", "True", "--do_lower_case"]),
        ({"init_checkpoint": "", "max_seq_length": 33}, ["max_seq_length 33", "32", "--max_seq_length"]),
        ({"init_checkpoint": "", "reinit_top_layers": 2}, ["reinit_top_layers", "layers, 1, got 2", "--reinit_top_layers"]),
        ({"init_checkpoint": "", "vocab_file": "/no/vocab.txt"}, ["no vocabulary at /no/vocab.txt", "--vocab_file"]),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_refused(make_config, pretrained, user, words):
    with pytest.raises(UserError) as error:
        find_starting_point(make_config(**{"model_hparam_overrides": {}, **user}))
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    "user, words",
    [
        ({"model_size": "base"}, ["num_hidden_layers 1, but --model_size asks for 12"]),
        ({"embedding_size": 64}, ["embedding_size 16, but --embedding_size asks for 64"]),
        ({"vocab_size": 999}, ["vocab_size 19, but --vocab_size asks for 999"]),
        ({"model_hparam_overrides": {"num_hidden_layers": 2}}, ["num_hidden_layers 1, but --model_hparam_overrides asks for 2"]),
    ],
)
def test_what_was_asked_for_must_be_the_shape_of_our_checkpoint_too(make_config, pretrained, user, words):
    with pytest.raises(UserError) as error:
        find_starting_point(make_config(**{"init_checkpoint": "", "model_hparam_overrides": {}, "embedding_size": None, **user}))
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("text", ["[]", '{"bert_config": 3}', '{"bert_config": {}, "tokenizer": []}'])
def test_a_damaged_config_json_is_named(make_config, pretrained, text):
    (pretrained / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json .*JSON object.*--init_checkpoint"):
        find_starting_point(make_config(init_checkpoint=""))


def test_another_vocabulary_is_refused(make_config, home, pretrained):
    (pretrained / "vocab.txt").write_text((home / "vocab.txt").read_text().replace("영화", "연극"))
    with pytest.raises(UserError, match="vocab_sha256.*--vocab_file"):
        find_starting_point(make_config(init_checkpoint=""))


def test_a_vocabulary_larger_than_the_model_is_refused(make_config, home):
    with pytest.raises(UserError, match="19 entries, but the model only 18"):
        find_starting_point(make_config(vocab_size=18))
    assert not tf.io.gfile.exists(str(home / "models"))


# --- checkpoints without our config.json ---------------------------------------------------------------------------------------------

NOTHING_ASKED = {"model_hparam_overrides": {}, "embedding_size": None, "tokenizer_type": None}


@pytest.fixture
def released(make_config, golden):
    """released(name=value, ...) -> configuration that starts from a checkpoint of the original: hidden size 64, but 2 heads."""

    def make(**user):
        values = {"init_checkpoint": str(golden / "small"), "model_hparam_overrides": {"num_attention_heads": 2}}
        return make_config(**NOTHING_ASKED | values | user)

    return make


def test_the_shape_of_a_released_checkpoint_is_that_of_its_variables(released, golden):
    asked = json.loads((golden / "small" / "hparams.json").read_text())
    start = find_starting_point(released())
    expected = BertConfig(vocab_size=asked["vocab_size"], **asked["model_hparam_overrides"])
    assert start.bert_config == expected and start.embedding_size == 128


def test_heads_are_one_for_64_units_unless_the_user_says_otherwise(released, home):
    assert find_starting_point(released(model_hparam_overrides={})).bert_config.num_attention_heads == 1
    shape = BertConfig(19, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=24)
    checkpoint.save(str(home / "odd"), 7, BertModel(shape, 4).trainable_variables, keep_max=1)
    with pytest.raises(
        UserError, match="does not tell how many attention heads.*hidden_size 8.*num_attention_heads.*--model_hparam_overrides"
    ):
        find_starting_point(released(init_checkpoint=str(home / "odd"), model_hparam_overrides={}))
    assert find_starting_point(released(init_checkpoint=str(home / "odd"))).bert_config == shape


def test_a_released_checkpoint_was_encoded_without_an_analyser(released, make_config):
    assert find_starting_point(released()).tokenizer.tokenizer_type == "wordpiece"
    assert find_starting_point(released(tokenizer_type="mecab_wordpiece")).tokenizer.tokenizer_type == "mecab_wordpiece"
    assert find_starting_point(make_config(tokenizer_type=None)).tokenizer.tokenizer_type == "mecab_wordpiece", "random weights, as ours"


@pytest.mark.parametrize(
    "user, words",
    [
        ({"model_size": "base"}, ["num_hidden_layers 2", "--model_size asks for 12"]),
        (
            {"model_hparam_overrides": {"hidden_size": 128, "num_attention_heads": 2}},
            ["hidden_size 64", "--model_hparam_overrides asks for 128"],
        ),
        ({"model_hparam_overrides": {"model_type": "bert", "num_attention_heads": 2}}, ["model_type electra", "asks for bert"]),
        ({"embedding_size": 64}, ["embedding_size 128", "--embedding_size asks for 64"]),
        ({"vocab_size": 2000}, ["vocab_size 1000", "--vocab_size asks for 2000"]),
        ({"model_hparam_overrides": {"num_heads": 2}}, ["unknown model hparam 'num_heads'"]),
        ({"max_seq_length": 65}, ["max_seq_length 65", "64", "--max_seq_length"]),
    ],
)
def test_what_was_asked_for_must_be_the_shape_of_the_checkpoint(released, user, words):
    with pytest.raises(UserError) as error:
        find_starting_point(released(**user))
    assert all(word in str(error.value) for word in words), error.value


def test_what_was_asked_for_may_be_said_of_the_checkpoint_and_rates_are_free(released):
    overrides = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 128, "hidden_dropout_prob": 0.3}
    start = find_starting_point(released(model_size="small", model_hparam_overrides=overrides, embedding_size=128, vocab_size=1000))
    assert start.bert_config.hidden_dropout_prob == 0.3


def test_the_vocabulary_of_another_model_is_refused(released, home):
    smaller = str(home / "vocab.txt")
    with pytest.raises(UserError, match=r"vocab\.txt has 19 entries.*word embeddings for 1000.*--vocab_file.*--vocab_size=1000"):
        find_starting_point(released(vocab_file=smaller))
    assert find_starting_point(released(vocab_file=smaller, vocab_size=1000)).bert_config.vocab_size == 1000
    (home / "large.txt").write_text((home / "vocab.txt").read_text() + "\n".join(map(str, range(1000))))
    with pytest.raises(UserError, match=r"large\.txt has 1019 entries, but the model only 1000.*--vocab_file"):
        find_starting_point(released(vocab_file=str(home / "large.txt")))


def test_a_checkpoint_of_something_else_is_refused(released, home):
    checkpoint.save(str(home / "odd"), 7, [tf.Variable(1.0, name="bert/embeddings/word_embeddings")], keep_max=1)
    with pytest.raises(UserError, match="odd/model.ckpt-7 has no variable 'electra/embeddings/word_embeddings'.*--init_checkpoint"):
        find_starting_point(released(init_checkpoint=str(home / "odd")))


# --- folders of the transformers library ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, types, embedding_size", [("electra", 2, 4), ("bert", 2, None), ("distilbert", 0, None)])
def test_a_folder_of_transformers_says_everything(make_config, make_transformers_folder, kind, types, embedding_size):
    folder = make_transformers_folder(kind)
    start = find_starting_point(make_config(init_checkpoint=str(folder), **NOTHING_ASKED))
    shape = start.bert_config
    assert (shape.model_type, shape.type_vocab_size, start.embedding_size, start.prefix) == (kind, types, embedding_size, str(folder))
    assert (shape.hidden_size, shape.num_hidden_layers, shape.num_attention_heads, shape.intermediate_size) == (8, 2, 2, 12)
    assert start.tokenizer.vocab_file == str(folder / "vocab.txt") and start.tokenizer.tokenizer_type == "wordpiece"
    assert not start.tokenizer.splitter.do_lower_case


def test_a_folder_of_transformers_as_the_model_of_the_run_also_without_its_weights(make_config, make_transformers_folder, home):
    (home / "models").mkdir()
    make_transformers_folder("distilbert").rename(home / "models" / "tiny")
    trained, untrained = (find_starting_point(make_config(init_checkpoint=name, **NOTHING_ASKED)) for name in ("", "none"))
    assert trained.prefix == str(home / "models" / "tiny") and untrained.prefix is None
    assert trained.bert_config == untrained.bert_config and trained.tokenizer.provenance() == untrained.tokenizer.provenance()


def test_what_the_user_says_of_the_text_wins_over_the_folder(make_config, make_transformers_folder):
    folder, asked = str(make_transformers_folder("bert")), NOTHING_ASKED | {"tokenizer_type": "mecab_wordpiece", "do_lower_case": True}
    tokenizer = find_starting_point(make_config(init_checkpoint=folder, **asked)).tokenizer
    assert tokenizer.tokenizer_type == "mecab_wordpiece" and tokenizer.splitter.do_lower_case and not tokenizer.splitter.strip_accents


def test_the_hash_of_the_weights_changes_with_them(make_config, make_transformers_folder):
    folder = make_transformers_folder("bert")
    start = find_starting_point(make_config(init_checkpoint=str(folder), **NOTHING_ASKED))
    before = start.weights_hash()
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))
    assert len(before) == 64 and start.weights_hash() != before


def test_a_checkpoint_of_tensorflow_beside_a_foreign_config_json_is_taken_by_its_prefix_or_alone(make_config, make_transformers_folder):
    folder = make_transformers_folder("electra")
    shape = BertConfig(19, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=24)
    prefix = checkpoint.save(str(folder), 7, BertModel(shape, 4).trainable_variables, keep_max=1)
    asked = NOTHING_ASKED | {"model_hparam_overrides": {"num_attention_heads": 2}}
    assert find_starting_point(make_config(init_checkpoint=str(folder), **asked)).prefix == str(folder)
    assert find_starting_point(make_config(init_checkpoint=prefix, **asked)).bert_config == shape
    (folder / "model.safetensors").unlink()
    assert find_starting_point(make_config(init_checkpoint=str(folder), **asked)).prefix == prefix


def _without(name):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    "change, user, words",
    [
        (_without("model.safetensors"), {}, ["no model.safetensors and no pytorch_model.bin", "--init_checkpoint"]),
        (_without("vocab.txt"), {}, ["no vocabulary at", "transformers-bert/vocab.txt", "--vocab_file"]),  # not that of data_dir
        (None, {"max_seq_length": 25}, ["max_seq_length 25", "24", "--max_seq_length"]),
        (None, {"model_size": "base"}, ["config.json has num_hidden_layers 2", "--model_size asks for 12"]),
        (None, {"embedding_size": 4}, ["config.json has embedding_size 8", "--embedding_size asks for 4"]),
        (None, {"model_hparam_overrides": {"num_attention_heads": 4}}, ["num_attention_heads 2", "asks for 4"]),
    ],
)
def test_a_folder_of_transformers_that_cannot_be_used(make_config, make_transformers_folder, change, user, words):
    folder = make_transformers_folder("bert")
    if change:
        change(folder)
    with pytest.raises(UserError) as error:
        find_starting_point(make_config(init_checkpoint=str(folder), **NOTHING_ASKED | user))
    assert all(word in str(error.value) for word in words), error.value


def test_the_vocabulary_in_the_folder_may_be_smaller_than_the_table_another_must_have_its_size(make_config, make_transformers_folder, home):
    folder = make_transformers_folder("bert", vocab_size=24)

    def start(**user):
        return find_starting_point(make_config(init_checkpoint=str(folder), **NOTHING_ASKED | user))

    assert start().bert_config.vocab_size == 24
    with pytest.raises(UserError, match="has 19 entries.*transformers-bert has word embeddings for 24"):
        start(vocab_file=str(home / "vocab.txt"))
    assert start(vocab_file=str(home / "vocab.txt"), vocab_size=24).tokenizer.vocab_size == 19
    (folder / "vocab.txt").write_text((home / "vocab.txt").read_text() + "가\n나\n다\n라\n마\n바\n")
    with pytest.raises(UserError, match="has 25 entries, but the model only 24"):
        start()
