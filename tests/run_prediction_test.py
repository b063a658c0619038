"""The script as a user runs it; what its answers are worth is tested in finetune/prediction_test.py."""

import functools
import json
import os
import pathlib
import random
import subprocess
import sys
import threading

import pytest

from configure_finetuning import FinetuningConfig
from finetune import prediction_files
from finetune.finetuning_run import FinetuningRun
from finetune.prediction import Predictor
from finetune.prediction_files import PredictionConfig, predict_file
from model.command import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPE = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "max_position_embeddings": 32}
HPARAMS = {
    "task_names": ["nsmc", "korsts"],
    "model_hparam_overrides": SHAPE,
    "tokenizer_type": "wordpiece",
    "max_seq_length": 16,
    "train_batch_size": 4,
    "num_train_epochs": 1.0,
    "do_eval": False,
    "init_checkpoint": "none",
    "learning_rate": 3e-3,
    "warmup_proportion": 0.0,
}
TEXTS = ["영화 좋다", '나쁘다 "영화', "배우 영화 배우 나쁘다", "좋다"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> pathlib.Path:
    """A folder with a model of two tasks below it, as run_finetuning.py leaves it."""
    folder, generator = tmp_path_factory.mktemp("data"), random.Random(1)
    (folder / "finetuning_data" / "nsmc").mkdir(parents=True)
    (folder / "finetuning_data" / "korsts").mkdir()
    words = ["좋다", "나쁘다", "영화", "배우"]
    for name in ("ratings_train.txt", "ratings_test.txt"):
        labels = [generator.randrange(2) for _ in range(100)]
        rows = [f"{index}\t{generator.choice(words[2:])} {index} {words[1 - label]}\t{label}" for index, label in enumerate(labels)]
        (folder / "finetuning_data" / "nsmc" / name).write_text("\n".join(["id\tdocument\tlabel", *rows]), encoding="utf-8")
    for split in ("train", "dev", "test"):
        rows = [f"g\tf\t2012\t1\t{generator.randrange(6)}\t영화\t{generator.choice(words)}" for _ in range(20)]
        (folder / "finetuning_data" / "korsts" / f"sts-{split}.tsv").write_text(
            "\n".join(["genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2", *rows]), encoding="utf-8"
        )
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n", encoding="utf-8")
    FinetuningRun(FinetuningConfig.create("tiny", str(folder), HPARAMS)).run()
    return folder


@pytest.fixture(scope="module")
def answers(data_dir) -> list[dict]:
    """What the model says of TEXTS."""
    return Predictor(str(data_dir), "nsmc").predict(TEXTS)


_predictor = functools.cache(Predictor)


@pytest.fixture
def cached(monkeypatch) -> None:
    """Models that are loaded once for all tests."""
    monkeypatch.setattr(prediction_files, "Predictor", _predictor)


@pytest.fixture
def predict(data_dir, cached, tmp_path):
    """predict(data, name=value, ...) -> the output of predicting `data` from a file, in process."""

    def run(data: str | bytes, suffix: str = ".txt", output: str = "out.jsonl", **values) -> str:
        (tmp_path / f"in{suffix}").write_bytes(data.encode() if isinstance(data, str) else data)
        paths = {"model": str(data_dir), "input": str(tmp_path / f"in{suffix}"), "output": str(tmp_path / output)}
        predict_file(PredictionConfig.create({"task_name": "nsmc"} | paths | values))
        return (tmp_path / output).read_text(encoding="utf-8")

    return run


def script(data_dir, *flags, stdin=b""):
    command = [sys.executable, str(ROOT / "run_prediction.py"), f"--model={data_dir}", *flags]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=300, cwd=ROOT)


def test_from_stdin_to_stdout_with_nothing_else_there(data_dir, answers):
    result = script(data_dir, "--task_name=nsmc", stdin=("\ufeff" + "\r\n".join(TEXTS)).encode())
    assert result.returncode == 0, result.stderr.decode()[-2000:]
    rows = [json.loads(line) for line in result.stdout.decode("utf-8").splitlines()]
    assert [(row["line"], row["text"]) for row in rows] == list(enumerate(TEXTS, 1))
    for row, answer in zip(rows, answers, strict=True):
        assert list(row) == ["line", "text", "label", "probability", "probabilities"] and row["label"] == answer["label"]
        assert row["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)


def test_all_formats_say_the_same(predict, answers):
    header, *rows = predict("\n".join(TEXTS), output="out.tsv").splitlines()
    assert header == "line\ttext\tlabel\tprobability\tp(0)\tp(1)"
    assert [row.split("\t")[:2] for row in rows] == [[str(number), text] for number, text in enumerate(TEXTS, 1)]
    for row, answer in zip(rows, answers, strict=True):
        _, _, label, probability, *both = row.split("\t")
        assert label == answer["label"] and [float(value) for value in both] == pytest.approx([*answer["probabilities"].values()], abs=1e-5)
        assert probability == max(both)
    tsv = predict("id\tdocument\n" + "".join(f'7"\t{text}\n' for text in TEXTS), ".tsv")
    jsonl = predict("".join(json.dumps({"id": 7, "document": text}) + "\n" for text in TEXTS), ".jsonl")
    named = predict("id,\tmine\r\n" + "".join(f"7\t{text}\r\n" for text in TEXTS), input_format="tsv", text_columns="mine")
    found = [[json.loads(line) for line in output.splitlines()] for output in (tsv, jsonl, named)]
    assert [row["line"] for row in found[0]] == [2, 3, 4, 5] and [row["line"] for row in found[1]] == [1, 2, 3, 4]
    for rows_found in found:
        assert [(row["text"], row["label"]) for row in rows_found] == [
            (text, answer["label"]) for text, answer in zip(TEXTS, answers, strict=True)
        ]


def test_pairs_get_scores(predict, data_dir):
    (score,) = [answer["score"] for answer in Predictor(str(data_dir), "korsts").predict([("영화", "배우 좋다")])]
    row = json.loads(predict("영화\t배우 좋다\n", task_name="korsts"))
    assert row == {"line": 1, "text_a": "영화", "text_b": "배우 좋다", "score": pytest.approx(score, abs=1e-5)}
    named = {"input_format": "jsonl", "text_columns": "b,a"}
    assert predict('{"a": "배우 좋다", "b": "영화"}', task_name="korsts", output="out.tsv", **named).splitlines() == [
        "line\ttext_a\ttext_b\tscore",
        f"1\t영화\t배우 좋다\t{row['score']:.6f}",
    ]


def test_tabs_and_line_ends_in_a_text_do_not_break_the_table(predict):
    (_, row) = predict(json.dumps({"document": "영화\t좋다\r\n배우"}), ".jsonl", "out.tsv").splitlines()
    assert row.split("\t")[1] == "영화 좋다  배우"


def test_entities_are_short_in_tables():
    cells = prediction_files._cells({"entities": [{"type": "PER", "text": "가", "start": 0, "end": 3, "probability": 0.5}] * 2})
    assert cells == {"entities": "PER:0:3 PER:0:3"}


def test_stretches_are_written_one_after_the_other(predict, monkeypatch):
    whole = predict("\n".join(TEXTS), output="out.tsv")
    monkeypatch.setattr(prediction_files, "STRETCH", 3)
    assert [line.split("\t")[:3] for line in predict("\n".join(TEXTS), output="out.tsv").splitlines()] == [
        line.split("\t")[:3] for line in whole.splitlines()
    ]


def test_no_texts_give_no_predictions(predict):
    assert predict("") == predict("id\tdocument\n", ".tsv") == ""


def test_cut_texts_are_counted(predict, caplog):
    predict("영화 좋다\n" + "영화 " * 30)
    assert "1 of 2 texts were longer than 16 pieces and were cut" in caplog.text


BAD = [
    ("영화\n\n좋다\n", ".txt", {}, "in.txt, line 2: the line is empty"),
    ("영화\n영화\t1\n", ".txt", {}, r"in.txt, line 2: 2 tab-separated text\(s\) instead of 1 \(document\); .*--input_format=tsv"),
    ("영화\t좋다\n영화\n", ".txt", {"task_name": "korsts"}, r"line 2: 1 tab-separated text\(s\) instead of 2 \(sentence1, sentence2\)"),
    ("영화\t좋다\n영화\t \n", ".txt", {"task_name": "korsts"}, r"line 2: the sentence2 is empty, but task korsts needs a text \(--input\)"),
    ("id\tdocument\n1\t영화\n2\n", ".tsv", {}, "in.tsv, line 3: 1 tab-separated fields instead of the 2 of the header"),
    ("id\ttext\n1\t영화\n", ".tsv", {}, "in.tsv, line 1: no column 'document' in the header 'id, text' .*--text_columns"),
    ("", ".tsv", {}, "in.tsv, line 1: no column 'document'"),
    ('{"document": "가"}\n{"text": "나"}\n', ".jsonl", {}, "in.jsonl, line 2: no key 'document' among 'text' .*--text_columns"),
    ('{"document": "가"}\n{"document": \n', ".jsonl", {}, "in.jsonl, line 2: not JSON"),
    ("[" * 100_000, ".jsonl", {}, "in.jsonl, line 1: not JSON"),
    ('["가"]\n', ".jsonl", {}, "in.jsonl, line 1: a JSON list instead of an object"),
    ('{"document": 3}\n', ".jsonl", {}, "line 1: 'document' is 3 instead of a text"),
    ('{"document": "\\ud800"}\n', ".jsonl", {}, "line 1: 'document' holds half of a surrogate pair"),
    ("영화\n".encode() + b"\xb0\xa1\n", ".txt", {}, r"in.txt, line 2, byte 7: not UTF-8 \(invalid start byte\) \(--input\)$"),
    ("영화\n", ".txt", {"text_columns": "a,b"}, r"task nsmc needs 1 text column\(s\), got a, b \(--text_columns\)"),
    ("영화\n", ".txt", {"task_name": None}, r"the model does nsmc, korsts: which one is meant \(--task_name\)"),
]


@pytest.mark.parametrize("data, suffix, values, words", BAD)
def test_bad_input_is_named_and_leaves_no_output(predict, tmp_path, data, suffix, values, words):
    with pytest.raises(UserError, match=words) as error:
        predict(data, suffix, **values)
    assert error.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == [f"in{suffix}"]


@pytest.mark.slow
@pytest.mark.parametrize("data, suffix, values, words", [BAD[0], *(case for case in BAD if "not JSON" in case[3])])
def test_bad_input_ends_the_script_with_code_2(data_dir, tmp_path, data, suffix, values, words):
    path = tmp_path / f"in{suffix}"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    flags = [f"--{name}={value}" for name, value in ({"task_name": "nsmc"} | values).items()]
    assert_refused(script(data_dir, f"--input={path}", f"--output={tmp_path}/out.jsonl", *flags))
    assert list(tmp_path.iterdir()) == [path]


def test_bad_standard_input_is_named_and_leaves_no_output(data_dir, tmp_path):
    result = script(data_dir, "--task_name=nsmc", f"--output={tmp_path}/out.tsv", stdin="영화\n".encode() + b"\xff\n")
    assert "stdin, line 2, byte 7: not UTF-8" in assert_refused(result)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_a_later_stretch_of_a_pipe_leaves_the_old_output(data_dir, cached, monkeypatch, tmp_path):
    monkeypatch.setattr(prediction_files, "STRETCH", 1)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("영화\n좋다\n\n",))
    writer.start()
    (tmp_path / "out.jsonl").write_text("old")
    values = {"model": str(data_dir), "task_name": "nsmc", "input": str(tmp_path / "pipe"), "output": str(tmp_path / "out.jsonl")}
    with pytest.raises(UserError, match="pipe, line 3: the line is empty"):
        predict_file(PredictionConfig.create(values))
    writer.join()
    assert (tmp_path / "out.jsonl").read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def assert_refused(result) -> str:
    assert result.returncode == 2, result.stderr.decode()[-2000:]
    error = [line for line in result.stderr.decode("utf-8").splitlines() if "error: " in line]
    assert len(error) == 1 and error[0].startswith("run_prediction.py: error: ") and b"Traceback" not in result.stderr
    assert result.stdout == b""
    return error[0]


@pytest.mark.parametrize(
    "values, words",
    [
        ({}, "--model is required"),
        ({"model": "m", "predict_batch_size": 0}, "predict_batch_size must be at least 1, got 0"),
        ({"model": "m", "output": "/no/such/folder/out.tsv"}, "no folder '/no/such/folder' for the predictions"),
        ({"model": "m", "input_format": "csv"}, "'input_format' must be one of text, tsv, jsonl, got 'csv'"),
    ],
)
def test_settings_that_cannot_be(values, words):
    with pytest.raises(UserError, match=words):
        PredictionConfig.create(values)


def test_a_missing_input_is_named(data_dir):
    with pytest.raises(UserError, match=r"no file 'gone.txt' \(--input\)"):
        predict_file(PredictionConfig.create({"model": str(data_dir), "input": "gone.txt"}))


@pytest.mark.parametrize("path, name", [("a.tsv", "tsv"), ("a.tsv.gz", "tsv"), ("a.jsonl", "jsonl"), ("a.txt", "text"), ("-", "text")])
def test_the_suffix_gives_the_format(path, name):
    assert prediction_files._format(path, None, "text") == name and prediction_files._format(path, "jsonl", "text") == "jsonl"


def test_a_closed_pipe_ends_quietly(data_dir):
    command = f"yes 영화 | head -20000 | {sys.executable} {ROOT}/run_prediction.py --model={data_dir} --task_name=nsmc | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.startswith('{"line": 1, "text": "영화"') and "Traceback" not in result.stderr and "BrokenPipe" not in result.stderr
