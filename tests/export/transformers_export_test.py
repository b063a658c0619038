"""What is exported, loaded by the transformers library: logits to 1e-4 of ours and of the original's, token ids to the last one."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tokenizers

from export import transformers_export
from export.exporter import ExportConfig, export
from finetune.classification.classification_tasks import encode_pair
from finetune.finetuning_run import FinetuningRun
from finetune.prediction import Predictor
from model.command import UserError
from model.modeling import BertConfig
from model.tokenization import FullTokenizer
from tests.export.conftest import LINES, learned_vocabulary, vocabulary

TOLERANCE = {"rtol": 0, "atol": 1e-4}


def load(library, folder, class_name=None):
    """The model, by its own class or by AutoModel's choice, with nothing missing and nothing left over."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    model_class = getattr(library.transformers, class_name or architecture)
    model, info = model_class.from_pretrained(str(folder), output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


def test_the_discriminator_says_what_the_original_said(library, golden, original, tmp_path):
    export(ExportConfig.create({**original, "output_dir": str(tmp_path / "out")}))
    numbers = np.load(golden / "small" / "outputs.npz")
    model = load(library, tmp_path / "out")
    with library.torch.no_grad():
        output = model(
            *(library.torch.tensor(numbers[name].astype(np.int64)) for name in ("fake_input_ids", "input_mask", "segment_ids")),
            output_hidden_states=True,
        )
    real = numbers["input_mask"].astype(bool)
    np.testing.assert_allclose(output.logits.sigmoid().numpy()[real], numbers["disc_probs"][real], **TOLERANCE)
    np.testing.assert_allclose(output.hidden_states[-1].numpy()[real], numbers["disc_sequence_output"][real], **TOLERANCE)


def test_the_generator_says_what_the_original_said(library, golden, original, tmp_path):
    settings = {"generator_hidden_size": 0.5, **json.loads(original["hparams"])}
    original |= {"part": "generator", "hparams": json.dumps(settings)}
    model = export(ExportConfig.create({**original, "output_dir": str(tmp_path / "out")}))
    assert (model.config.hidden_size, model.config.num_attention_heads, model.embedding_size) == (32, 1, 128)
    numbers = np.load(golden / "small" / "outputs.npz")
    with library.torch.no_grad():
        logits = load(library, tmp_path / "out")(
            *(library.torch.tensor(numbers[name].astype(np.int64)) for name in ("masked_input_ids", "input_mask", "segment_ids"))
        ).logits.numpy()
    picked = np.take_along_axis(logits, numbers["masked_lm_positions"].astype(np.int64)[..., None], 1)
    weights = numbers["masked_lm_weights"] > 0
    np.testing.assert_allclose(picked[weights], numbers["mlm_logits"][weights], **TOLERANCE)


def test_the_card_and_the_configuration_say_what_it_is(original, tmp_path):
    model = export(ExportConfig.create({**original, "output_dir": str(tmp_path / "out")}))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "ElectraForPreTraining.from_pretrained" in card and "2 layers of 64, 2 heads, embeddings of 128" in card
    assert model.start.weights_hash() in card and str(tmp_path) not in card and "model.ckpt-30" in card
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_attention_heads"] == 2 and config["embedding_size"] == 128 and config["vocab_size"] == 1000


# --- fine-tuned models ---------------------------------------------------------------------------------------------------------------

FAST = {"num_train_epochs": 1.0, "classifier_head": "two_layer"}


def logits_of(library, folder, predictor, rows):
    """(the library's logits, what our Predictor says) for `rows`, padded together."""
    tokenizer = predictor._preprocessor._tokenizer
    features = [predictor.task.featurize(predictor.task.make_example(0, row), tokenizer, False)[0] for row in rows]
    length = max(len(row["input_ids"]) for row in features)
    batch = {
        "input_ids": [row["input_ids"] + [tokenizer.pad_id] * (length - len(row["input_ids"])) for row in features],
        "token_type_ids": [row["segment_ids"] + [0] * (length - len(row["segment_ids"])) for row in features],
        "attention_mask": [[1] * len(row["input_ids"]) + [0] * (length - len(row["input_ids"])) for row in features],
    }
    model = load(library, folder)
    if model.config.model_type == "distilbert":
        del batch["token_type_ids"]
    with library.torch.no_grad():
        return model(**{name: library.torch.tensor(values) for name, values in batch.items()}).logits, predictor.predict(rows)


@pytest.mark.parametrize("kind", ["electra", "bert", "distilbert"])
def test_a_fine_tuned_classifier(library, make_config, make_transformers_folder, home, tmp_path, kind):
    start = {} if kind == "electra" else {"init_checkpoint": str(make_transformers_folder(kind)), "model_hparam_overrides": {}}
    start |= {} if kind == "electra" else {"embedding_size": None, "tokenizer_type": None}
    FinetuningRun(make_config(**FAST, **start)).run()
    export(ExportConfig.create({"checkpoint": str(home / "models"), "part": "finetuned", "output_dir": str(tmp_path / "out")}))
    predictor = Predictor(str(home / "models"))
    logits, ours = logits_of(library, tmp_path / "out", predictor, [("영화 좋다",), ("지루 최악 배우 화면",)])
    theirs = logits.softmax(-1).numpy()
    np.testing.assert_allclose(theirs, [[*found["probabilities"].values()] for found in ours], **TOLERANCE)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "0", "1": "1"} and config["problem_type"] == "single_label_classification"
    assert library.transformers.AutoModelForSequenceClassification.from_pretrained(str(tmp_path / "out")).config.num_labels == 2
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "fine-tuned for nsmc" in card and "learning rate 0.003, 1 epochs" in card


def test_a_similarity_is_the_score_itself(library, make_config, several, home, tmp_path):
    FinetuningRun(make_config(task_names=["korsts", "naver-ner"], **FAST)).run()
    fields = {"checkpoint": str(home / "models"), "part": "finetuned", "output_dir": str(tmp_path / "out")}
    with pytest.raises(UserError, match="the model does korsts, naver-ner: which one is meant .--task_name"):
        export(ExportConfig.create(fields))
    export(ExportConfig.create({**fields, "task_name": "korsts"}))
    logits, ours = logits_of(
        library, tmp_path / "out", Predictor(str(home / "models"), "korsts"), [("영화", "좋다"), ("배우 영화", "최악")]
    )
    np.testing.assert_allclose(logits[:, 0].numpy(), [found["score"] for found in ours], **TOLERANCE)

    export(ExportConfig.create({**fields, "task_name": "naver-ner", "output_dir": str(tmp_path / "names")}))
    config = json.loads((tmp_path / "names" / "config.json").read_text())
    assert config["architectures"] == ["ElectraForTokenClassification"] and config["id2label"]["0"] == "O" and len(config["id2label"]) == 29
    predictor, words = Predictor(str(home / "models"), "naver-ner"), ["좋다", "영화", "감동"]
    logits, ours = logits_of(library, tmp_path / "names", predictor, [(" ".join(words),)])
    tags = [config["id2label"][str(int(index))] for index in logits[0].argmax(-1)][1:-1]
    assert [entity["text"] for entity in ours[0]["entities"]] == [word for word, tag in zip(words, tags, strict=True) if tag.endswith("-B")]


def test_bert_s_pooler_does_not_go_with_a_tagger(library, make_config, make_transformers_folder, several, home, tmp_path):
    start = {"init_checkpoint": str(make_transformers_folder("bert")), "model_hparam_overrides": {}, "embedding_size": None}
    FinetuningRun(make_config(task_names=several, **FAST, **start, tokenizer_type=None)).run()
    fields = {"checkpoint": str(home / "models"), "part": "finetuned", "task_name": "naver-ner", "output_dir": str(tmp_path / "out")}
    export(ExportConfig.create(fields))
    assert load(library, tmp_path / "out").config.architectures == ["BertForTokenClassification"]


def test_the_original_s_head_for_classes_is_none_of_the_library(make_config, home, tmp_path):
    FinetuningRun(make_config(num_train_epochs=0.1)).run()
    with pytest.raises(UserError, match="no class with the head 'linear' of task nsmc.*--recipe=dialog"):
        export(ExportConfig.create({"checkpoint": str(home / "models"), "part": "finetuned", "output_dir": str(tmp_path / "out")}))
    assert not list(tmp_path.glob("out*"))


# --- token ids -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": True}, {"do_lower_case": True, "strip_accents": True}])
def test_tokenizer_json_gives_our_ids(tmp_path, settings):
    ours = FullTokenizer(vocabulary(tmp_path, LINES), tokenizer_type="wordpiece", **settings)
    theirs = transformers_export.make_tokenizer(ours)
    for line in [*LINES, "가" * 150, "가" * 201, "e\u0301" * 3, "ﾊﾟ ㌔", ""]:
        assert theirs.encode(line, add_special_tokens=False).ids == ours.encode(line), line
    assert theirs.encode("영화", "한국어").tokens[0] == "[CLS]" and theirs.encode("영화", "한국어").type_ids[-1] == 1


def test_auto_tokenizer_gives_our_ids(library, tmp_path):
    ours = FullTokenizer(vocabulary(tmp_path, LINES), tokenizer_type="wordpiece", do_lower_case=True)
    config = export_shape(tmp_path)
    transformers_export.write_tokenizer(ours, str(tmp_path / "out"), config)
    theirs = library.transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    assert [theirs(line, add_special_tokens=False)["input_ids"] for line in LINES] == [ours.encode(line) for line in LINES]
    assert (theirs.pad_token_id, theirs.mask_token_id, theirs.model_max_length) == (
        ours.pad_id,
        ours.mask_id,
        config.max_position_embeddings,
    )
    batch = theirs(LINES[:2], padding=True, return_tensors="np")
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask"}


def export_shape(tmp_path):
    (tmp_path / "out").mkdir()
    return BertConfig(100, 16, 1, 2, 32, max_position_embeddings=64)


def load_module(folder: pathlib.Path):
    spec = importlib.util.spec_from_file_location("exported_morpheme_tokenizer", folder / "morpheme_tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": True}])
def test_the_morpheme_tokenizer_gives_our_ids(tmp_path, settings):
    ours = FullTokenizer(vocabulary(tmp_path, LINES), **settings)
    transformers_export.write_tokenizer(ours, str(tmp_path / "out"), export_shape(tmp_path))
    theirs = load_module(tmp_path / "out").MorphemeTokenizer()
    for line in [*LINES, "가" * 150, "가" * 201, "영화\ud800가", ""]:
        assert theirs.tokenize(line) == ours.tokenize(line), line


@pytest.mark.parametrize("length", [5, 6, 7, 12, 30])
def test_the_morpheme_tokenizer_cuts_and_pads_as_fine_tuning_does(tmp_path, length):
    ours = FullTokenizer(vocabulary(tmp_path, LINES))
    transformers_export.write_tokenizer(ours, str(tmp_path / "out"), export_shape(tmp_path), length)
    theirs = load_module(tmp_path / "out").MorphemeTokenizer()
    firsts, seconds = [LINES[0], "영화", LINES[3]], ["한국어", LINES[1], LINES[4]]
    for pairs in (None, seconds):
        batch = theirs(firsts, pairs, return_tensors="np")
        for row, text in enumerate(firsts):
            expected = encode_pair(ours.encode(text), ours.encode(pairs[row]) if pairs else None, ours, length)
            size = len(expected["input_ids"])
            assert batch["input_ids"][row, :size].tolist() == expected["input_ids"]
            assert batch["token_type_ids"][row, :size].tolist() == expected["segment_ids"]
            assert batch["attention_mask"][row].sum() == size and (batch["input_ids"][row, size:] == ours.pad_id).all()
    assert theirs("영화가") == theirs(["영화가"])
    for wrong in (([],), (["a"], ["b", "c"]), (["a"], None, 2), (["a"], ["b"], 4)):
        with pytest.raises(ValueError):
            theirs(*wrong)
    with pytest.raises(ValueError, match="'tf'"):
        theirs("a", return_tensors="tf")


def test_the_morpheme_tokenizer_stands_alone(tmp_path):
    ours = FullTokenizer(vocabulary(tmp_path, LINES))
    transformers_export.write_tokenizer(ours, str(tmp_path / "out"), export_shape(tmp_path))
    code = (
        "import sys, morpheme_tokenizer as module\nprint(module.MorphemeTokenizer().encode(sys.argv[1])[0])\nprint('model' in sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code, "그는 심각합니다."], cwd=tmp_path / "out", capture_output=True, text=True, check=True
    ).stdout.split("\n")
    assert json.loads(printed[0]) == [ours.cls_id, *ours.encode("그는 심각합니다."), ours.sep_id] and printed[1] == "False"


def test_other_analysers_cannot_be_exported(tmp_path, monkeypatch):
    ours = FullTokenizer(vocabulary(tmp_path, LINES), analyzer="none")
    with pytest.raises(UserError, match="only analyzer 'mecab' can be exported.*'none'"):
        transformers_export.write_tokenizer(ours, str(tmp_path / "out"), export_shape(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wordpiece", "mecab_wordpiece"])
def test_ids_of_every_line_of_the_task_files(shared_data, tmp_path, kind):
    """Whole lines of all files, headers and tabs included."""
    paths = sorted(path for path in shared_data.rglob("*.t*") if path.suffix in (".tsv", ".txt") and "corpus" not in path.parts)
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").split("\n")]
    assert len(lines) > 200_000
    lines = lines if kind == "wordpiece" else lines[::8]  # all of them take minutes
    ours = FullTokenizer(learned_vocabulary(tmp_path, lines), tokenizer_type=kind)
    transformers_export.write_tokenizer(ours, str(tmp_path / "out"), export_shape(tmp_path))
    if kind == "wordpiece":
        theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
        wrong = [line for line in lines if theirs.encode(line, add_special_tokens=False).ids != ours.encode(line)]
    else:
        theirs = load_module(tmp_path / "out").MorphemeTokenizer()
        wrong = [line for line in lines if [theirs.vocab[piece] for piece in theirs.tokenize(line)] != ours.encode(line)]
    assert not wrong, f"{len(wrong)} lines"
