"""Whatever a file or a request holds, it works or ends in a named error: nothing is run, nothing written elsewhere, nothing hangs.

Each test is also a target of benchmarks/fuzzing.py, which looks for input that reaches code not reached before.
"""

import dataclasses
import functools
import io
import json
import math
import os
import pathlib
import shutil
import urllib.parse

import pytest
import safetensors.numpy
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from configure_finetuning import FinetuningConfig
from configure_pretraining import PretrainingConfig
from export.exporter import ExportConfig, export
from finetune import custom_task, task_files
from finetune.model_runner import read_scores
from finetune.prediction import find_model, read_config
from finetune.prediction_files import INPUT_FORMATS, PredictionConfig, read_rows
from finetune.results import Results
from finetune.starting_point import find_starting_point
from finetune.task_builder import TASKS, get_task
from model import checkpoint, hparams, tokenization, transformers_folder
from model.estimator import InputContext
from model.hooks import read_history
from model.layers import variable_name
from model.modeling import BertConfig, BertModel
from pretrain import build_folder, corpora, corpus_builder, dataset_builder, dataset_inspector, vocab_builder
from pretrain.dataset_inspector import InspectConfig
from pretrain.pretrain_data import eval_input_fn, explained, find_records
from pretrain.pretraining_run import check_earlier_run
from pretrain.record_checker import Checker, Expectation, ShardTask
from pretrain.text_files import TextFile, expand_files, stored_size, unpacked_size
from server.server_config import ServerConfig
from tests.conftest import ROOT
from tests.finetune.conftest import SHAPE, TINY
from tests.fuzzing.harness import (
    CLEAN_TEXT,
    LONG_TEXT,
    NAMES,
    TEXT,
    VALUES,
    altered,
    attempt,
    damaged,
    folder,
    fuzz,
    json_bytes,
    pack,
    write,
)
from tests.model.kobert_test import train
from tests.pretrain.corpora_test import SAMPLES
from tests.pretrain.pretrain_data_test import LENGTH, example, write_manifest, write_shards

PIECES = [*tokenization.SPECIAL_TOKENS, *"그심각한국영화가나ㅋ.,#[]a1漢", *(f"##{char}" for char in "는각합니다국어ㅋa1")]
VOCABULARY = ("\n".join(PIECES) + "\n").encode()

# ---- text


sentencepiece_model = functools.cache(train)


@functools.cache
def make_tokenizer(kind: str, lower: bool, strip: bool) -> tokenization.FullTokenizer:
    is_model = kind in ("sentencepiece", "kobert")
    path = write(f"tokenizer/{'m.model' if is_model else 'vocab.txt'}", sentencepiece_model() if is_model else VOCABULARY)
    return tokenization.FullTokenizer(path, lower, kind, strip_accents=strip)


@given(st.sampled_from((*tokenization.TOKENIZER_TYPES, tokenization.KOBERT)), st.booleans(), st.booleans(), TEXT | LONG_TEXT)
@fuzz(100)
def test_tokenizer(kind, lower, strip, text):
    tokenizer = make_tokenizer(kind, lower, strip)
    ids = tokenizer.encode(text)
    assert ids == tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) and all(0 <= row < tokenizer.vocab_size for row in ids)
    places = [(piece.start, piece.end) for piece in tokenizer.tokenize_with_offsets(text)]
    assert all(0 <= start <= end <= len(text) for start, end in places) and places == sorted(places)


@given(st.sampled_from(("vocab.txt", "tokenizer.json", "m.model")), st.data())
@fuzz(100)
def test_vocabulary(name, data):
    saved = {"model": {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {piece: row for row, piece in enumerate(PIECES)}}}
    contents = {"vocab.txt": damaged(VOCABULARY), "tokenizer.json": json_bytes(saved), "m.model": damaged(sentencepiece_model())}[name]
    path = write(f"vocabulary/{name}", data.draw(contents))
    kind = data.draw(st.sampled_from(("sentencepiece", "kobert"))) if name == "m.model" else "wordpiece"
    tokenizer = attempt(tokenization.FullTokenizer, path, tokenizer_type=kind)
    if tokenizer:
        assert len(tokenizer.encode("그는 심각합니다. [MASK]")) > 0


# ---- corpora

SUFFIXES = ("", ".gz", ".xz", ".zst", ".zip")


@given(
    st.sampled_from(sorted(SAMPLES)), st.sampled_from(SUFFIXES), NAMES | st.just("a.json"), st.sampled_from(("error", "replace")), st.data()
)
@fuzz(250)
def test_corpus(reader, suffix, member, invalid_utf8, data):
    packed = pack(data.draw(damaged(SAMPLES[reader].encode())), suffix, member.encode("utf-8", "ignore").decode())
    path = write(f"corpus/file{suffix}", data.draw(damaged(packed)) if suffix and data.draw(st.booleans()) else packed)
    for file in attempt(expand_files, [path]) or ():
        attempt(stored_size, file)
        attempt(unpacked_size, file)
        documents = corpora.get_reader(reader, ["one", "two"]).documents(TextFile(file, invalid_utf8))
        for document in attempt(list, documents) or ():
            assert document and all(text.strip() and "\n" not in text and text.encode() for text in document)


# ---- tasks

TABLE = 'id\ttext\tlabel\n1\t그는 심각합니다.\t0\n2\t"인용\ta\n'
ROWS = [{"text": "그는", "labels": {"label": 1, "real-label": 0.5}}, {"text": "심각", "labels": {"label": "a", "real-label": 2}}]


@given(st.sampled_from(SUFFIXES[:-1]), st.data())
@fuzz(120)
def test_task_file(suffix, data):
    readers = {
        "tsv": lambda path: task_files.read_tsv(path, ("id", "text", "label")),
        "csv": lambda path: task_files.read_csv(path, ()),
        "json": lambda path: task_files.read_json_rows(path, ("text", "labels/label")),
        "jsonl": lambda path: task_files.read_json_lines(path, ("text", "labels/real-label")),
    }
    name = data.draw(st.sampled_from(sorted(readers)))
    table = TABLE if name == "tsv" else TABLE.replace("\t", ",")
    lines = st.lists(altered(ROWS[0]), max_size=3).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
    contents = {"json": json_bytes(ROWS), "jsonl": lines | json_bytes(ROWS[0])}.get(name, damaged(table.encode()))
    for _, row in attempt(readers[name], write(f"task/file.{name}{suffix}", pack(data.draw(contents), suffix))) or ():
        assert all(isinstance(text, str) and text.encode() is not None for text in row.values())


@functools.cache
def sample_of(task_name: str) -> tuple[FinetuningConfig, str, bytes]:
    """(configuration, file of the training examples, the first lines of one that is right)."""
    config = FinetuningConfig.create("m", folder("tasks"), {**TINY, "task_names": [task_name], "raw_data_dir": folder("tasks/raw")})
    train_file, sample = TASKS[task_name].files["train"], ROOT / "data" / "sample" / task_name
    if sample.is_dir():
        return config, train_file, b"".join((sample / train_file).read_bytes().splitlines(True)[:4])
    klue_ner = "## klue-ner-v1_train_00000\t<경찰:OG>은\n경\tB-OG\n찰\tI-OG\n은\tO\n \tO\n또\tO\n\n"
    rows = {
        "klue-nli": [{"premise": "비가 온다.", "hypothesis": "맑다.", "gold_label": "contradiction"}],
        "klue-sts": [{"sentence1": "가", "sentence2": "나", "labels": {"real-label": 1.5}}],
    }
    texts = {"paws-x": "id\tsentence1\tsentence2\tlabel\n1\t가 나\t나 가\t1\n2\tNS\t\t0\n", "klue-ner": klue_ner}
    return config, train_file, (texts.get(task_name) or json.dumps(rows[task_name])).encode()


@given(st.sampled_from(sorted(TASKS)), st.data())
@fuzz(150)
def test_task(task_name, data):
    config, train_file, sample = sample_of(task_name)
    contents = json_bytes(json.loads(sample)) if train_file.endswith(".json") else damaged(sample)
    task = get_task(config, task_name)
    examples = attempt(task.read_examples, write(f"tasks/raw/{task_name}/{train_file}", data.draw(contents))) or ()
    for made in examples:
        for features in task.featurize(made, make_tokenizer("wordpiece", False, False), True):
            assert 2 <= len(features["input_ids"]) <= config.max_seq_length


DESCRIPTION = {
    "name": "intent",
    "type": "classification",
    "files": {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"},
    "text": ["a", "b"],
    "label": "c",
    "labels": ["x", "y", 3],
    "metric": "f1",
    "positive_label": "x",
    "symmetric": True,
}
REGRESSION = {"name": "r", "type": "regression", "files": {"train": "a.json", "test": "b.json"}, "text": "t", "label": "l", "range": [0, 5]}
YAML = """name: intent
type: tagging
files: {train: train.tsv, test: test.tsv}
text: words
label: tags
entities: [PER, LOC]
"""
HOSTILE_YAML = (
    "!!python/object/apply:os.system [id]",
    "name: !!python/name:os.system",
    "a: &a [x]\nb: &b [*a, *a]\n",
    "&a [*a]",
    "<<: {name: x}",
    "name: 0x" + "f" * 5000,
    "? [a]\n: b",
    "- 2024-99-99",
    "--- a\n--- b",
)


@given(st.sampled_from(HOSTILE_YAML).map(str.encode) | damaged(YAML.encode()) | json_bytes(DESCRIPTION) | json_bytes(REGRESSION))
@fuzz(250)
def test_task_description(contents):
    found = attempt(custom_task.read_description, write("description/task.yaml", contents))
    if found:
        stored = json.loads(json.dumps(found.to_dict()))
        assert custom_task.TaskDescription.from_dict(stored) == found
        config = FinetuningConfig.create("m", folder("description"), {**TINY, "task_names": [found.name], "task_config": [stored]})
        attempt(get_task, config, found.name)


@given(st.sampled_from(INPUT_FORMATS), st.sampled_from(SUFFIXES[:-1]), st.data())
@fuzz(80)
def test_prediction_input(input_format, suffix, data):
    contents = damaged("document\n그는\t심각\n".encode()) | damaged('{"document": "그는"}\n{"document": "\\ud800"}\n'.encode())
    path = write(f"prediction/input{suffix}", pack(data.draw(contents), suffix))
    config = PredictionConfig.create({"model": "m", "input": path, "input_format": input_format})
    for row in attempt(lambda: list(read_rows(config, get_task(sample_of("nsmc")[0], "nsmc")))) or ():
        assert "".join(row.texts).encode() is not None


# ---- settings

CREATE = {
    PretrainingConfig: lambda values: PretrainingConfig.create("model", folder(), values),
    FinetuningConfig: lambda values: FinetuningConfig.create_each("model", folder(), values),
    ExportConfig: ExportConfig.create,
    ServerConfig: ServerConfig.create,
    PredictionConfig: PredictionConfig.create,
    InspectConfig: lambda values: InspectConfig.create(None, values),
    vocab_builder.VocabConfig: lambda values: vocab_builder.VocabConfig(**hparams.check(vocab_builder.VocabConfig, values)),
    dataset_builder.DatasetConfig: lambda values: dataset_builder.check(
        dataset_builder.DatasetConfig(**hparams.check(dataset_builder.DatasetConfig, values))
    ),
    corpus_builder.PreprocessConfig: lambda values: corpus_builder.check(
        corpus_builder.PreprocessConfig(**hparams.check(corpus_builder.PreprocessConfig, values))
    ),
}
SETTINGS = {"model_hparam_overrides": SHAPE, "task_hparams": {"nsmc": {"learning_rate": 0.1}}, "task_names": ["nsmc", "korsts"]}


@given(st.sampled_from(list(CREATE)), st.data())
@fuzz(250)
def test_settings(config_class, data):
    fields = config_class.__dataclass_fields__
    names = data.draw(st.lists(st.sampled_from(sorted(fields)), max_size=4))
    values = {}
    for name in names:
        usual = SETTINGS.get(name, getattr(config_class, name, 1))
        choices = fields[name].metadata["choices"]
        values[name] = data.draw(st.sampled_from(choices) | VALUES if choices else altered(usual))
    attempt(CREATE[config_class], values)


@given(json_bytes({"learning_rate": 0.1, "model_hparam_overrides": SHAPE}))
@fuzz(60)
def test_hparams_text(text):
    found = attempt(hparams.read_hparams, text.decode("utf-8", "replace"))
    assert found is None or isinstance(found, dict)
    attempt(hparams.read_hparams, write("hparams.json", text))


# ---- TFRecords


@functools.cache
def shard() -> bytes:
    return pathlib.Path(write_shards(pathlib.Path(folder("shard")), [3])[0]).read_bytes()


@given(st.data())
@fuzz(60)
def test_tfrecords(data):
    home = pathlib.Path(folder("records"))
    if data.draw(st.booleans()):  # a file that was damaged
        path = write("records/pretrain_data.tfrecord-00000-of-00001", data.draw(damaged(shard())))
    else:  # one that was made so
        records = data.draw(st.lists(damaged(example(1)), min_size=1, max_size=4))
        path = write_shards(home, [len(records)], records=records)[0]
    shutil.rmtree(folder("records/unfinished_build"))
    found = attempt(find_records, f"{home}/*.tfrecord*", "pretrain_tfrecords", LENGTH)
    if found:
        attempt(_read_all, found)
    report = attempt(Checker(Expectation(LENGTH, 100, 2, 3)).check, ShardTask(path, {}))
    assert report is None or report.fault or found or not report.records
    write("vocab.txt", ("\n".join([*PIECES, *map(str, range(100))])).encode())
    config = InspectConfig.create(None, {"data": str(home)})
    attempt(lambda: dataset_inspector.find_data_set(config))


def _read_all(records):
    with explained(records, LENGTH):
        for batch in eval_input_fn(records, LENGTH)(InputContext(2)):
            assert batch["input_ids"].shape == (2, LENGTH)


@functools.cache
def manifest() -> dict:
    home = pathlib.Path(folder("manifest"))
    write_manifest(home, write_shards(home, [3]), max_seq_length=LENGTH)
    return json.loads((home / "manifest.json").read_bytes())


@given(st.data())
@fuzz(120)
def test_manifest(data):
    home = pathlib.Path(folder("manifest"))
    write_shards(home, [3]) if not list(home.glob("*.tfrecord*")) else None
    changed = manifest() | {"counts": {"train_examples": 3, "eval_examples": 0}}
    changed["train"] = {**changed["train"], "examples": 3}
    changed["eval"] = {**changed["eval"], "examples": 0}
    write("manifest/manifest.json", data.draw(json_bytes(changed)))
    outside = {path: write(path, b"not yours") for path in ("outside", "x")}
    attempt(find_records, f"{home}/*.tfrecord*", "pretrain_tfrecords", LENGTH)
    write("vocab.txt", VOCABULARY)
    config = InspectConfig.create(None, {"data": str(home), "vocab_file": f"{folder()}/vocab.txt"})
    found = attempt(dataset_inspector.find_data_set, config)
    if found:
        attempt(dataset_inspector.read_vocabulary, config, found)
        attempt(dataset_inspector.manifest_faults, found)
    attempt(build_folder.BuildFolder(str(home), r"pretrain_data\.tfrecord-\d+-of-\d+").claim, {"seed": 1}, data.draw(st.booleans()))
    assert all(os.path.exists(path) for path in outside.values())
    shutil.rmtree(home / "unfinished_build", ignore_errors=True)


# ---- checkpoints


@functools.cache
def small_checkpoint() -> dict[str, bytes]:
    """Files of a checkpoint of two variables."""
    home = pathlib.Path(folder("small"))
    checkpoint.save(str(home), 7, _variables(), 1)
    return {path.name: path.read_bytes() for path in home.iterdir()}


def _variables() -> list[tf.Variable]:
    return [tf.Variable([[1.0, 2.0]], name="electra/a"), tf.Variable([3, 4], dtype=tf.int64, name="b")]


@given(st.data())
@fuzz(80)
def test_checkpoint(data):
    home = folder("checkpoint")
    victim = data.draw(st.sampled_from(sorted(small_checkpoint())))
    for name, contents in small_checkpoint().items():
        write(f"checkpoint/{name}", data.draw(damaged(contents)) if name == victim else contents)
    if data.draw(st.booleans()):
        paths = data.draw(st.lists(NAMES | st.just("model.ckpt-7"), min_size=1, max_size=3))
        lines = [f"model_checkpoint_path: {json.dumps(paths[0])}", *(f"all_model_checkpoint_paths: {json.dumps(path)}" for path in paths)]
        write("checkpoint/checkpoint", "\n".join(lines).encode("utf-8", "surrogatepass"))
    variables = _variables()
    outside = write("outside.index", b"not yours")
    prefix = attempt(checkpoint.resolve, home)
    for read in (
        checkpoint.read_shapes,
        lambda path: checkpoint.read(path, ["electra/a", "b"]),
        lambda path: checkpoint.warm_start(path, variables),
    ):
        if prefix:
            attempt(read, prefix)
    attempt(checkpoint.restore_newest, home, variables)
    attempt(checkpoint.remove_leftovers, home)
    attempt(checkpoint.save, home, 8, variables, 1)
    attempt(checkpoint.restore_newest, home, variables)
    assert os.path.exists(outside)


RUN = {
    "pretraining": {"electra_objective": True, "seed": 1},
    "bert_config": {"hidden_size": 8},
    "generator_config": None,
    "embedding_size": 8,
    "tokenizer": {"vocab_size": 5},
}
TRIALS = {"config_hash": "ab", "trials": [{"seed": 42, "seconds": 1.5, "rows": {}, "cut": {}, "scores": {}, "reports": {}}]}
HISTORY = [{"step": 7, "score": 0.5, "seconds": 1.0, "loss": 0.25}]


@given(st.data())
@fuzz(80)
def test_folder_of_an_earlier_run(data):
    home = folder("run")
    write("run/checkpoint", small_checkpoint()["checkpoint"])
    write("run/model.ckpt-7.index", small_checkpoint()["model.ckpt-7.index"])
    write("run/config.json", data.draw(json_bytes(RUN)))
    write("run/results.json", data.draw(json_bytes(TRIALS)))
    write("run/history.json", data.draw(json_bytes(HISTORY)))
    write("run/history.jsonl", data.draw(json_bytes(HISTORY[0])))
    attempt(check_earlier_run, dataclasses.replace(PretrainingConfig(), model_dir=home), RUN)
    attempt(Results, home, {"config_hash": "ab"})
    attempt(read_history, f"{home}/history.jsonl")
    attempt(read_scores, f"{home}/history.json")


@functools.cache
def recorded_folder() -> tuple[dict, dict[str, bytes]]:
    """(config.json that goes with it, files) of a checkpoint of ours."""
    config, size = TINY | {"max_position_embeddings": 32}, {**SHAPE, "vocab_size": len(PIECES)}
    model = BertModel(_bert_config(size), 16, seed=1)
    home = pathlib.Path(folder("recorded"))
    checkpoint.save(str(home), 1, model.trainable_variables, 1)
    (home / "vocab.txt").write_bytes(VOCABULARY)
    tokenizer = tokenization.FullTokenizer(str(home / "vocab.txt"), tokenizer_type="wordpiece").provenance()
    record = {"bert_config": _bert_config(size).to_dict(), "embedding_size": 16, "tokenizer": tokenizer, "vocab_file": "vocab.txt"}
    return {**record, "finetuning": {"task_names": ["nsmc"], "max_seq_length": 16}, "x": list(config)}, {
        path.name: path.read_bytes() for path in home.iterdir()
    }


def _bert_config(values):
    return BertConfig.from_dict(values)


@given(st.data())
@fuzz(100)
def test_config_json(data):
    record, files = recorded_folder()
    home = folder("recorded")
    write("recorded/config.json", data.draw(json_bytes(record)))
    config = FinetuningConfig.create("m", folder(), {"init_checkpoint": home, "max_seq_length": 16})
    start = attempt(find_starting_point, config)
    if start:
        assert start.tokenizer.vocab_size <= start.bert_config.vocab_size
    if attempt(find_model, home):
        attempt(read_config, home)


# ---- folders of the transformers library


@functools.cache
def transformers_files() -> dict[str, bytes]:
    record = {"model_type": "electra", "vocab_size": len(PIECES), "max_position_embeddings": 16, "embedding_size": 4, "hidden_size": 8}
    record |= {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "auto_map": {"AutoModel": "evil.Model"}}
    files = {"config.json": json.dumps(record).encode(), "vocab.txt": VOCABULARY, "evil.py": b"import os; os.mkdir('/evil')"}
    home = os.path.dirname(write("transformers/config.json", files["config.json"]))
    config, embedding_size = transformers_folder.read_config(home, {})
    model = BertModel(config, embedding_size, seed=7)
    values = {variable_name(variable): variable.numpy() for variable in model.trainable_variables}
    weights = {
        transformers_folder.to_theirs(name, "electra"): transformers_folder.to_our_layout(name, value) for name, value in values.items()
    }
    files["model.safetensors"] = safetensors.numpy.save(weights)
    files["tokenizer_config.json"] = (
        b'{"do_lower_case": false, "tokenizer_class": "evil.Tokenizer", "auto_map": {"AutoTokenizer": "evil.T"}}'
    )
    vocabulary = {piece: row for row, piece in enumerate(PIECES)}
    model_part = {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": vocabulary}
    files["tokenizer.json"] = json.dumps({"normalizer": {"type": "BertNormalizer", "lowercase": False}, "model": model_part}).encode()
    settings = {"tokenizer_type": "wordpiece", "analyzer": "none", "do_lower_case": False, "strip_accents": False, "analyzer_version": ""}
    files["text_settings.json"] = json.dumps(settings).encode()
    return files


@given(st.data())
@fuzz(100)
def test_transformers_folder(data):
    files = transformers_files()
    home = folder("transformers")
    victim = data.draw(st.sampled_from(sorted(files)))
    for name, contents in files.items():
        hostile = json_bytes(json.loads(contents)) if name.endswith(".json") else damaged(contents)
        write(f"transformers/{name}", data.draw(hostile) if name == victim else contents)
    if data.draw(st.booleans()):
        os.remove(f"{home}/text_settings.json")
    if data.draw(st.booleans()):
        os.remove(f"{home}/vocab.txt")
    config = FinetuningConfig.create("m", folder(), {"init_checkpoint": home, "max_seq_length": 16})
    start = attempt(find_starting_point, config)
    if start:
        encoder = BertModel(start.bert_config, start.embedding_size)
        names = [variable_name(variable) for variable in encoder.trainable_variables]
        attempt(transformers_folder.read_weights, home, "electra", names)


@functools.cache
def torch_file() -> bytes:
    torch = pytest.importorskip("torch", reason="torch is not installed (torch extra)")
    file = io.BytesIO()
    torch.save({"a.weight": torch.zeros(2, 3), "b": torch.ones(1, dtype=torch.int64)}, file)
    return file.getvalue()


@given(st.data())
@fuzz(60)
def test_pytorch_file(data):
    files = {"pytorch_model.bin": damaged(torch_file()), "pytorch_model.bin.index.json": json_bytes({"weight_map": {"a": "w.bin"}})}
    home = folder("torch")
    name = data.draw(st.sampled_from(sorted(files)))
    for other in os.listdir(home):
        os.remove(os.path.join(home, other))
    write(f"torch/{name}", data.draw(files[name]))
    attempt(transformers_folder.weight_files, home)
    attempt(transformers_folder.read_weights, home, "electra", ["electra/embeddings/word_embeddings"])


# ---- the server


@functools.cache
def client():
    """A client of a server of two models: one of texts, and an exported one that the page shows."""
    testclient = pytest.importorskip("starlette.testclient", reason="starlette and httpx are not installed (serve extra)")
    app = pytest.importorskip("server.app", reason="the server's packages are not installed (serve extra)")
    pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed (serve extra)")
    overrides = json.dumps({"model_hparam_overrides": {"num_attention_heads": 2}, "tokenizer_type": "wordpiece"})
    home = folder("served")
    for part in ("discriminator", "generator"):
        fields = {"checkpoint": str(ROOT / "tests" / "golden" / "small"), "part": part, "format": "saved_model", "hparams": overrides}
        export(ExportConfig.create({**fields, "output_dir": f"{home}/{part}"}))
    config = ServerConfig.create({"models": f"d:{home}/discriminator,g:{home}/generator", "batch_window_ms": 0.0, "timeout_s": 600.0})
    found = testclient.TestClient(app.Server(config).app, raise_server_exceptions=False)
    found.__enter__()  # the thread that computes; it ends with the process
    return found


BODIES = {
    "/v1/models/d:predict": {"inputs": {"texts": ["그는 심각합니다.", "가"]}},
    "/v1/models/g:predict": {
        "signature_name": "fill_mask",
        "instances": [{"input_ids": [2, 5, 3], "input_mask": [1, 1, 1], "segment_ids": [0, 0, 0]}],
    },
    "/demo/analyze": {"text": "그는 심각합니다.", "pair": None, "swaps": {"1": 7}},
    "/demo/suggest": {"text": "그는 심각합니다.", "place": 0, "swaps": {"0": 6, "9" * 5000: 1}},
}


@given(st.data())
@fuzz(100)
def test_rest(data):
    path = data.draw(st.sampled_from(sorted(BODIES)))
    body = data.draw(json_bytes(BODIES[path]))
    response = client().post(path, content=body, headers={"content-type": data.draw(st.sampled_from(("application/json", "x")))})
    found = response.json()
    assert response.status_code == 200 or (400 <= response.status_code < 500 and found["error"]), (response.status_code, body[:300])
    assert json.dumps(found, allow_nan=False) and not any(isinstance(value, float) and math.isnan(value) for value in found.values())


@given(st.sampled_from(("GET", "POST", "PUT", "HEAD", "X")), st.lists(CLEAN_TEXT | NAMES, max_size=4), CLEAN_TEXT)
@fuzz(40)
def test_rest_addresses(method, parts, key):
    path = "/" + "/".join(urllib.parse.quote(part, safe=":", errors="replace") for part in ["v1", "models", *parts])
    headers = {"x-api-key": key.encode("latin-1", "ignore").strip().replace(b"\n", b"").replace(b"\r", b"").replace(b"\0", b"")}
    response = client().request(method, path, headers=headers)
    assert response.status_code < 500
