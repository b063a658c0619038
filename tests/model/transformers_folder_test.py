"""model/transformers_folder.py: against the transformers library, whose folders these are, in states, logits, defaults and token ids."""

import json
import os
import pickle
import random
import sys
import unicodedata

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from finetune.classification.classification_modules import ClassificationModule
from finetune.tagging.tagging_module import TaggingModule
from model import checkpoint, transformers_folder
from model.command import DataError, UserError
from model.layers import variable_name
from model.modeling import MODEL_TYPES, BertConfig, BertModel
from model.tokenization import SPECIAL_TOKENS, FullTokenizer

CLASS_NAMES = {"electra": "Electra", "bert": "Bert", "distilbert": "DistilBert"}
SHAPES = {
    "electra": {"embedding_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
}
COMMON = {"vocab_size": 40, "max_position_embeddings": 12, "num_labels": 3}
LABELS = COMMON["num_labels"]
TOLERANCE = {"rtol": 0, "atol": 1e-4}


def build(library, kind, head, **settings):
    """One of the library's models with random weights far from where they start, without dropout."""
    config = getattr(library.transformers, f"{CLASS_NAMES[kind]}Config")(**SHAPES[kind], **COMMON, **settings)
    model = getattr(library.transformers, f"{CLASS_NAMES[kind]}{head}")(config).eval()
    generator = library.torch.Generator().manual_seed(3)
    with library.torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(0.3 * library.torch.randn(parameter.shape, generator=generator) + is_scale)
    return model


def save(library, model, folder, form="model.safetensors", rename=lambda name: name):
    """As save_pretrained, and as its early releases, which wrote pytorch_model.bin."""
    model.config.save_pretrained(folder)
    if form == "model.safetensors":
        model.save_pretrained(folder)
    else:
        library.torch.save({rename(name): value for name, value in model.state_dict().items()}, folder / form)


def batch():
    """input_ids, input_mask, token_type_ids int32 [3, 10]; two rows end in padding."""
    generator = np.random.default_rng(0)
    mask = (np.arange(10) < np.array([[10], [6], [3]])).astype(np.int32)
    ids = generator.integers(1, COMMON["vocab_size"], (3, 10)).astype(np.int32) * mask
    return ids, mask, (generator.integers(0, 2, (3, 10)) * mask).astype(np.int32)


def run_theirs(library, model, kind):
    names = ("input_ids", "attention_mask", "token_type_ids")[: 2 if kind == "distilbert" else 3]
    inputs = {name: library.torch.tensor(value.astype(np.int64)) for name, value in zip(names, batch(), strict=False)}
    with library.torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    return output.hidden_states[-1].numpy(), output.logits.numpy() if "logits" in output else None


def load_ours(folder, make_head=None):
    """(encoder, head) with the weights of `folder`."""
    config, embedding_size = transformers_folder.read_config(str(folder), {})
    head = make_head(config) if make_head else None
    encoder = BertModel(config, embedding_size, has_pooler=getattr(head, "reads_pooler", False))
    parts = [encoder, head] if head else [encoder]
    variables = {variable_name(variable): variable for part in parts for variable in part.trainable_variables}
    values = transformers_folder.read_weights(str(folder), config.model_type, variables)
    checkpoint.assign(str(folder), variables, values)
    return encoder, head


# --- states and logits ---------------------------------------------------------------------------------------------------------------


def classification_head(config):
    return ClassificationModule("nsmc", "two_layer", LABELS, config, 0)


def tagging_head(config):
    return TaggingModule("naver-ner", "two_layer", LABELS, config, 0)


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_states_and_logits_of_sentences_are_the_librarys(library, tmp_path, kind, form):
    theirs = build(library, kind, "ForSequenceClassification")
    save(library, theirs, tmp_path, form)
    encoder, head = load_ours(tmp_path, classification_head)
    output = encoder(*batch())
    _, outputs = head(output, {"nsmc_label_ids": tf.constant([0, 1, 2]), "nsmc_eid": tf.constant([1, 2, 3])}, None)
    states, logits = run_theirs(library, theirs, kind)
    mask = batch()[1][..., None]
    np.testing.assert_allclose(output.sequence_output * mask, states * mask, **TOLERANCE)
    np.testing.assert_allclose(outputs["logits"], logits, **TOLERANCE)
    assert np.ptp(logits) > 0.1


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_logits_of_words_are_the_librarys(library, tmp_path, kind, form):
    theirs = build(library, kind, "ForTokenClassification")
    save(library, theirs, tmp_path, form)
    encoder, head = load_ours(tmp_path, tagging_head)
    logits, mask = head.classifier(encoder(*batch()).sequence_output), batch()[1][..., None]
    np.testing.assert_allclose(logits * mask, run_theirs(library, theirs, kind)[1] * mask, **TOLERANCE)


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_names_are_one_to_one_with_those_of_the_library(library, tmp_path, kind):
    theirs = build(library, kind, "ForSequenceClassification")
    save(library, theirs, tmp_path)
    encoder, head = load_ours(tmp_path, classification_head)
    variables = {variable_name(variable): variable for part in (encoder, head) for variable in part.trainable_variables}
    names = {transformers_folder.to_theirs(name, kind): name for name in variables}
    assert len(names) == len(variables) and set(names) == set(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        back = transformers_folder.to_our_layout(names[name], variables[names[name]].numpy())
        np.testing.assert_array_equal(back, value.numpy())


def old_name(name):
    """LayerNorm.weight -> LayerNorm.gamma, as files converted from TensorFlow have it."""
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize(
    "kind, head, form, rename",
    [
        ("electra", "ForPreTraining", "model.safetensors", str),
        ("electra", "ForPreTraining", "pytorch_model.bin", old_name),
        ("electra", "Model", "model.safetensors", str),
        ("bert", "Model", "pytorch_model.bin", str),
        ("bert", "ForPreTraining", "pytorch_model.bin", old_name),
        ("bert", "ForMaskedLM", "model.safetensors", str),
        ("distilbert", "Model", "model.safetensors", str),
        ("distilbert", "ForMaskedLM", "pytorch_model.bin", str),
    ],
)
def test_published_folders_without_a_task(library, tmp_path, kind, head, form, rename):
    theirs = build(library, kind, head)
    save(library, theirs, tmp_path, form, rename)
    encoder, _ = load_ours(tmp_path)
    mask = batch()[1][..., None]
    np.testing.assert_allclose(encoder(*batch()).sequence_output * mask, run_theirs(library, theirs, kind)[0] * mask, **TOLERANCE)


def test_embeddings_as_wide_as_the_layers_have_no_projection(library, tmp_path):
    theirs = library.transformers.ElectraModel(library.transformers.ElectraConfig(**SHAPES["electra"] | COMMON | {"embedding_size": 16}))
    save(library, theirs, tmp_path)
    encoder, _ = load_ours(tmp_path)
    assert encoder.projection is None


def test_shards_are_one_model(library, tmp_path):
    theirs = build(library, "bert", "Model")
    theirs.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(transformers_folder.weight_files(str(tmp_path))) > 2
    encoder, _ = load_ours(tmp_path)
    mask = batch()[1][..., None]
    np.testing.assert_allclose(encoder(*batch()).sequence_output * mask, run_theirs(library, theirs, "bert")[0] * mask, **TOLERANCE)
    digest = transformers_folder.weights_hash(str(tmp_path))
    os.remove(transformers_folder.weight_files(str(tmp_path))[1])
    with pytest.raises(UserError, match=r"names 'model-00002-of.*which is not beside it"):
        transformers_folder.weight_files(str(tmp_path))
    assert len(digest) == 64


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
def test_half_precision_becomes_float32(library, tmp_path, form):
    theirs = build(library, "bert", "Model").to(library.torch.bfloat16)
    save(library, theirs, tmp_path, form)
    encoder, _ = load_ours(tmp_path)
    expected = theirs.embeddings.word_embeddings.weight.detach().float().numpy()
    np.testing.assert_array_equal(encoder.get_embedding_table(), expected)


# --- config.json ---------------------------------------------------------------------------------------------------------------------


def write_config(folder, **record):
    (folder / "config.json").write_text(json.dumps(record))
    return str(folder)


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_what_config_json_lacks_is_the_librarys_default(library, tmp_path, kind):
    expected = getattr(library.transformers, f"{CLASS_NAMES[kind]}Config")()
    config, embedding_size = transformers_folder.read_config(write_config(tmp_path, model_type=kind), {})
    keys = transformers_folder._DISTILBERT_KEYS if kind == "distilbert" else {}
    for field, value in config.to_dict().items():
        if field == "type_vocab_size" and kind == "distilbert":
            assert value == 0
        elif field == "classifier_dropout":
            assert value == (expected.seq_classif_dropout if kind == "distilbert" else expected.hidden_dropout_prob)
        else:
            assert value == getattr(expected, keys.get(field, field)), field
    assert embedding_size == getattr(expected, "embedding_size", None)


def test_overrides_and_rates_of_config_json(tmp_path):
    record = {"model_type": "distilbert", "dim": 24, "n_heads": 3, "dropout": 0.2, "seq_classif_dropout": 0.4, "attention_dropout": 0}
    config, _ = transformers_folder.read_config(write_config(tmp_path, **record), {"hidden_dropout_prob": 0.3})
    assert (config.hidden_size, config.num_attention_heads, config.hidden_dropout_prob) == (24, 3, 0.3)
    assert (config.classifier_dropout, config.attention_probs_dropout_prob, config.num_hidden_layers) == (0.4, 0.0, 6)
    config, _ = transformers_folder.read_config(
        write_config(tmp_path, model_type="bert", hidden_dropout_prob=0.2, classifier_dropout=None), {}
    )
    assert config.classifier_dropout == 0.2


@pytest.mark.parametrize(
    "record, kind",
    [
        ({"architectures": ["DistilBertForMaskedLM"]}, "distilbert"),
        ({"architectures": ["ElectraForPreTraining"]}, "electra"),
        ({"dim": 768, "n_layers": 3, "n_heads": 12}, "distilbert"),  # as early releases of the library wrote it
    ],
)
def test_a_config_without_model_type_is_known_by_its_class_or_keys(tmp_path, record, kind):
    assert transformers_folder.is_config(record)
    assert transformers_folder.read_config(write_config(tmp_path, **record), {})[0].model_type == kind


@pytest.mark.parametrize(
    "record, words",
    [
        ({"model_type": "roberta"}, ["model_type 'roberta'", "electra, bert, distilbert"]),
        ({"architectures": ["GPT2Model"], "n_layer": 2}, ["model_type None"]),
        ({"model_type": "bert", "hidden_act": "gelu_new"}, ["hidden_act 'gelu_new'", "'gelu'"]),
        ({"model_type": "distilbert", "activation": "relu"}, ["activation 'relu'"]),
        ({"model_type": "bert", "layer_norm_eps": 1e-5}, ["layer_norm_eps 1e-05", "1e-12"]),
        ({"model_type": "electra", "position_embedding_type": "relative_key"}, ["position_embedding_type 'relative_key'", "'absolute'"]),
        ({"model_type": "bert", "is_decoder": True}, ["is_decoder True"]),
        ({"model_type": "bert", "pruned_heads": {"1": [0]}}, ["pruned_heads {'1': [0]}"]),
        ({"model_type": "bert", "hidden_size": "768"}, ["hidden_size", "'768'"]),
        ({"model_type": "bert", "hidden_size": 770}, ["hidden_size 770", "num_attention_heads 12"]),
        ({"model_type": "electra", "embedding_size": 0}, ["embedding_size", "0"]),
    ],
)
def test_what_the_network_does_not_compute_is_refused_by_its_value(tmp_path, record, words):
    with pytest.raises(UserError) as error:
        transformers_folder.read_config(write_config(tmp_path, **record), {})
    assert all(word in str(error.value) for word in [str(tmp_path / "config.json"), *words]), error.value


def test_our_own_config_json_is_none_of_the_librarys(tmp_path):
    assert not transformers_folder.is_config({"bert_config": {"model_type": "bert"}, "embedding_size": 4})
    assert not transformers_folder.is_config({})
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="must be a JSON object"):
        transformers_folder.read_config(str(tmp_path), {})


# --- weights that do not fit, or are none --------------------------------------------------------------------------------------------

ENCODER = BertModel(
    BertConfig(40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, model_type="bert"), None, "electra"
)
NAMES = {variable_name(variable): variable.numpy() for variable in ENCODER.trainable_variables}


def theirs_of_names():
    return {transformers_folder.to_theirs(name, "bert"): transformers_folder.to_our_layout(name, value) for name, value in NAMES.items()}


def read(folder):
    return transformers_folder.read_weights(str(folder), "bert", NAMES)


def test_weights_of_another_architecture_are_refused_by_name_and_shape(tmp_path):
    weights = theirs_of_names()
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(weights, path)
    assert all(np.array_equal(read(tmp_path)[name], value) for name, value in NAMES.items())
    deeper = {name.replace("layer.1", "layer.2"): value for name, value in weights.items() if "layer.1" in name}
    safetensors.numpy.save_file(weights | deeper, path)
    with pytest.raises(
        UserError, match=r"holds 'bert.encoder.layer.2.attention.output.LayerNorm.bias', shape \[16\].*another architecture"
    ):
        read(tmp_path)
    safetensors.numpy.save_file({name: value for name, value in weights.items() if "layer.1" not in name}, path)
    with pytest.raises(UserError, match=r"lacks 'bert.encoder.layer.1.attention.output.LayerNorm.bias' and 15 other.*another architecture"):
        read(tmp_path)
    safetensors.numpy.save_file({name.replace("bert.", "roberta."): value for name, value in weights.items()}, path)
    with pytest.raises(UserError, match="lacks 'bert.embeddings.*holds 'roberta.embeddings"):
        read(tmp_path)


def test_ids_of_positions_and_a_pooler_that_is_not_asked_for_are_passed_over(tmp_path):
    more = {"bert.embeddings.position_ids": np.arange(4)[None], "bert.pooler.dense.bias": np.zeros(16, np.float32)}
    safetensors.numpy.save_file(theirs_of_names() | more, tmp_path / "model.safetensors")
    assert set(read(tmp_path)) == set(NAMES)
    pooler = ["electra/pooler/dense/kernel", "electra/pooler/dense/bias"]
    found = transformers_folder.read_weights(str(tmp_path), "bert", NAMES, pooler)
    assert set(found) - set(NAMES) == {"electra/pooler/dense/bias"}


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data[:40], lambda data: b"", lambda data: b"x" * 100])
def test_a_damaged_safetensors_file_is_an_error_that_names_it(tmp_path, damage):
    safetensors.numpy.save_file(theirs_of_names(), tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(damage(data))
    with pytest.raises(DataError, match=r"model\.safetensors is damaged or not a safetensors file.*--init_checkpoint"):
        read(tmp_path)


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: b"", lambda data: b"abc", lambda data: data[:1000]])
def test_a_damaged_pytorch_file_is_an_error_that_names_it(library, tmp_path, damage):
    library.torch.save({name: library.torch.tensor(value) for name, value in theirs_of_names().items()}, tmp_path / "pytorch_model.bin")
    data = (tmp_path / "pytorch_model.bin").read_bytes()
    (tmp_path / "pytorch_model.bin").write_bytes(damage(data))
    with pytest.raises(UserError, match=r"pytorch_model\.bin (is damaged|holds something else).*--init_checkpoint"):
        read(tmp_path)


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("as_torch", [True, False])
def test_code_in_a_pytorch_file_is_never_run(library, tmp_path, as_torch):
    trace, weights = str(tmp_path / "trace"), {name: library.torch.tensor(value) for name, value in theirs_of_names().items()}
    if as_torch:
        library.torch.save(weights | {"bert.extra": Malicious(trace)}, tmp_path / "pytorch_model.bin")
    else:
        (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"bert.extra": Malicious(trace)}, protocol=2))
    with pytest.raises(UserError, match=r"pytorch_model\.bin holds something else than tensors.*was not run.*--init_checkpoint"):
        read(tmp_path)
    assert not os.path.exists(trace)


def test_a_whole_training_state_is_not_taken_for_weights(library, tmp_path):
    library.torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="is not a table of names and tensors"):
        read(tmp_path)


def test_without_torch_or_with_an_unsafe_one_the_error_says_what_to_install(library, tmp_path, monkeypatch):
    library.torch.save({}, tmp_path / "pytorch_model.bin")
    monkeypatch.setattr(library.torch, "__version__", "2.5.1+cpu")
    with pytest.raises(UserError, match=r"torch 2\.10 or newer, not 2\.5\.1.*pip install"):
        read(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install 'torch>=2\.10'.*model\.safetensors"):
        read(tmp_path)


# --- token ids -----------------------------------------------------------------------------------------------------------------------

LINES = """그는 심각합니다.
KoELECTRA-Small은 2020년에 나왔다!!! (진짜?)
영화가 너무너무 재미있어요ㅋㅋㅋㅋ ㅠㅠ... 최고~^^
漢字와 한글, Ünïcode café naïve, ＡＢＣ １２３ ㈜한국
😀 이모티콘❤️ \u200b제로\ufeff폭 \xa0공백\t탭　전각
가격은 1,000원 / 3.5% #해시태그 @누구 [대괄호] {중괄호} <b>태그</b>
쀍뷁 ㄱㄴㄷ ㅏㅑㅓ ꥠ 𠮷 \x07 끝""".split("\n")


@pytest.fixture(scope="module")
def vocab_lines():
    """A vocabulary of characters and words of LINES, some of them left out so that [UNK] occurs."""
    chars = sorted({char for line in LINES for char in line + line.lower() if not char.isspace()} - set("뷁𠮷끝"))
    return [*SPECIAL_TOKENS, *chars, *(f"##{char}" for char in chars), "심각", "##합니다", "영화", "##너무", "최고", "##mall", "20", "##20"]


def make_tokenizer(folder):
    vocab_file = transformers_folder.find_vocabulary(str(folder))
    return FullTokenizer(vocab_file, **transformers_folder.tokenizer_settings(str(folder), vocab_file))


@pytest.mark.parametrize("class_name", ["BertTokenizer", "ElectraTokenizer", "DistilBertTokenizer"])
@pytest.mark.parametrize("settings", [{"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False}])
@pytest.mark.parametrize("has_vocab_txt", [True, False])
def test_token_ids_are_the_librarys(library, tmp_path, vocab_lines, class_name, settings, has_vocab_txt):
    (tmp_path / "vocab.txt").write_text("\n".join(vocab_lines) + "\n", encoding="utf-8")
    theirs = getattr(library.transformers, class_name)(str(tmp_path / "vocab.txt"), **settings)
    theirs.save_pretrained(tmp_path)
    if not has_vocab_txt:  # newer releases of the library write tokenizer.json alone
        (tmp_path / "vocab.txt").unlink()
        assert (tmp_path / "tokenizer.json").exists()
    ours = make_tokenizer(tmp_path)
    for line in LINES:
        assert ours.encode(line) == theirs(line, add_special_tokens=False)["input_ids"], line
    assert ours.splitter.do_lower_case == settings["do_lower_case"] and ours.vocab_size == len(vocab_lines)
    assert [ours.cls_id, *ours.encode(LINES[0]), ours.sep_id, *ours.encode(LINES[1]), ours.sep_id] == theirs(*LINES[:2])["input_ids"]


def test_the_published_differences_to_the_librarys_token_ids(library, tmp_path, vocab_lines):
    (tmp_path / "vocab.txt").write_text("\n".join(vocab_lines) + "\n", encoding="utf-8")
    theirs = library.transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=False)
    theirs.save_pretrained(tmp_path)
    ours = make_tokenizer(tmp_path)

    def both(text):
        return ours.tokenize(text), theirs.tokenize(text)

    assert both(unicodedata.normalize("NFD", "심각합니다")) == (["심각", "##합니다"], ["[UNK]"])
    assert both("한" * 101) == (["한", *["##한"] * 100], ["[UNK]"]) and ours.tokenize("한" * 201) == ["[UNK]"]
    assert both("심\ue000각") == (["[UNK]"], ["심각"]), "a character for private use"
    assert both("[SEP]")[1] == ["[SEP]"] and "[SEP]" not in both("[SEP]")[0]
    lower = library.transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=True)
    lower.save_pretrained(tmp_path)
    assert make_tokenizer(tmp_path).tokenize("심각합니다 CAFÉ") == ["심각", "##합니다", "c", "##a", "##f", "##e"]
    assert lower.tokenize("심각합니다") == ["[UNK]"], "the library takes Hangul apart"


@pytest.mark.slow
def test_token_ids_of_every_line_of_a_task_are_the_librarys(library, tmp_path, shared_data):
    rows = (shared_data / "nsmc" / "ratings_test.txt").read_text(encoding="utf-8").split("\n")[1:]
    texts = [row.split("\t")[1] for row in rows if row]
    frequent = sorted({char for text in random.Random(1).sample(texts, 20000) for char in text if not char.isspace()})
    words = sorted({word for text in texts[:300] for word in text.split() if word.isalpha()})
    (tmp_path / "vocab.txt").write_text(
        "\n".join([*SPECIAL_TOKENS, *frequent, *(f"##{char}" for char in frequent), *words]), encoding="utf-8"
    )
    theirs = library.transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=False)
    theirs.save_pretrained(tmp_path)
    ours = make_tokenizer(tmp_path)
    different = [
        text for text, ids in zip(texts, theirs(texts, add_special_tokens=False)["input_ids"], strict=True) if ours.encode(text) != ids
    ]
    explained = [text for text in different if not unicodedata.is_normalized("NFC", text) or max(map(len, text.split())) > 100]
    assert len(texts) == 50000 and different == explained and len(different) < 20


@pytest.mark.parametrize(
    "record, expected",
    [
        ({}, ("wordpiece", False, False)),
        ({"do_lower_case": False}, ("wordpiece", False, False)),
        ({"do_lower_case": True}, ("wordpiece", True, True)),
        ({"do_lower_case": True, "strip_accents": False}, ("wordpiece", True, False)),
        ({"do_lower_case": False, "strip_accents": True}, ("wordpiece", False, True)),
    ],
)
def test_settings_of_tokenizer_config_json(tmp_path, record, expected):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(record))
    (tmp_path / "vocab.txt").write_text("\n".join(SPECIAL_TOKENS))
    settings = transformers_folder.tokenizer_settings(str(tmp_path), str(tmp_path / "vocab.txt"))
    assert tuple(settings[name] for name in ("tokenizer_type", "do_lower_case", "strip_accents")) == expected


def test_settings_without_tokenizer_config_json_are_those_of_tokenizer_json(library, tmp_path):
    (tmp_path / "words.txt").write_text("\n".join([*SPECIAL_TOKENS, "a"]))
    library.transformers.BertTokenizer(str(tmp_path / "words.txt"), do_lower_case=True, strip_accents=False).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = make_tokenizer(tmp_path)
    assert tokenizer.tokenize("A") == ["a"] and not tokenizer.splitter.strip_accents


@pytest.mark.parametrize("key", ["do_basic_tokenize", "tokenize_chinese_chars"])
def test_settings_that_ours_does_not_have_are_refused(tmp_path, key):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({key: False}))
    with pytest.raises(UserError, match=f"{key} False is not supported"):
        transformers_folder.tokenizer_settings(str(tmp_path), str(tmp_path / "vocab.txt"))
