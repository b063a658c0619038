"""Predictions from files to files: text, TSV or JSON lines in, JSON lines or TSV out, in the order of the input.

    1  정말 재미있다  ->  {"line": 1, "text": "정말 재미있다", "label": "1", "probability": 0.98, "probabilities": {"0": 0.02, "1": 0.98}}

What a line is, is decided by pretrain/text_files.py, for stdin as well. Memory stays flat whatever the size of the input.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

from absl import logging
from tqdm import tqdm

from finetune.prediction import PIECES_CUT, STRETCH, Predictor
from finetune.task import Task
from model import hparams
from model.command import DataError, UserError, open_atomically
from model.devices import PRECISIONS
from model.hparams import option
from model.words import has_half_pair
from pretrain.text_files import READ_BYTES, TextFile

STANDARD = "-"  # stdin or stdout
INPUT_FORMATS, OUTPUT_FORMATS = ("text", "tsv", "jsonl"), ("jsonl", "tsv")
_FORMAT_OF_SUFFIX = {".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_PACKED = (".gz", ".xz", ".zst")
_NO_BREAKS = str.maketrans("\t\n\r", "   ")  # one character for one, so that offsets stay true


@dataclasses.dataclass(frozen=True)
class PredictionConfig:
    """What to predict, from which file to which; every field is a flag of run_prediction.py."""

    model: str = option("", "fine-tuned model: MODEL_DIR/HASH/seed_N/best, or a folder above that holds no other; * stands for any name")
    input: str = option(STANDARD, "file with the texts; -: stdin")
    input_format: str | None = option(
        None, "text is one a line, with a tab between the two of a pair; null: by the suffix .tsv or .jsonl, else text", INPUT_FORMATS
    )
    text_columns: str = option(
        "", "columns, or keys, that hold the one or two texts, separated by a comma; empty: as the task's own files call them"
    )
    output: str = option(STANDARD, "file for the predictions; -: stdout")
    output_format: str | None = option(None, "null: by the suffix .tsv, else jsonl", OUTPUT_FORMATS)
    task_name: str | None = option(None, "task to do, for a model of several")
    vocab_file: str = option("", "the model's vocabulary; empty: beside the weights, else where it was in training")
    task_module: str = option("", "Python file or module of your own tasks, if the model's are in one")
    predict_batch_size: int | None = option(None, "texts per batch; null: as in fine-tuning")
    mixed_precision: bool = option(False, "compute in half precision: bfloat16, or float16 on older GPUs")
    precision: str | None = option(None, "force a precision; null: float32, whatever the model was trained with", PRECISIONS)

    @classmethod
    def create(cls, values: Mapping[str, Any]) -> "PredictionConfig":
        """Raises UserError on anything unknown, mistyped or missing."""
        config = cls(**hparams.check(cls, values))
        if not config.model:
            raise UserError("--model is required: folder of a fine-tuned model, as run_finetuning.py leaves it")
        if config.predict_batch_size is not None and config.predict_batch_size < 1:
            raise UserError(f"predict_batch_size must be at least 1, got {config.predict_batch_size} (--predict_batch_size)")
        folder = os.path.dirname(config.output)
        if folder and "://" not in folder and not os.path.isdir(folder):
            raise UserError(f"no folder {folder!r} for the predictions (--output)")
        return config


class Row(NamedTuple):
    """The texts of one line, counting from 1, of the input."""

    line: int
    texts: tuple[str, ...]


def predict_file(config: PredictionConfig) -> None:
    """Predicts what `config` asks for. Where the input is a file, it is all looked through before anything is predicted.

    Raises UserError, naming file and line, for texts that cannot be predicted; the output does not appear then.
    """
    if config.input != STANDARD and "://" not in config.input and (os.path.isdir(config.input) or not os.path.exists(config.input)):
        raise UserError(f"no file {config.input!r} (--input)")
    precision = (config.mixed_precision, config.precision)
    predictor = Predictor(config.model, config.task_name, config.vocab_file, *precision, config.predict_batch_size, config.task_module)
    if os.path.isfile(config.input):  # and no pipe, which could not be read again
        for _ in read_rows(config, predictor.task):
            pass
    format_rows = _tsv_lines if _format(config.output, config.output_format, "jsonl") == "tsv" else _json_lines
    num_texts = num_cut = 0
    with _open_output(config.output) as file, tqdm(unit="texts", disable=None) as progress:
        rows = read_rows(config, predictor.task)
        while stretch := list(itertools.islice(rows, STRETCH)):
            results = predictor.predict([row.texts for row in stretch])
            file.write("".join(format_rows(stretch, results, with_header=num_texts == 0)).encode("utf-8"))
            file.flush()
            progress.update(len(stretch))
            num_texts += len(stretch)
            num_cut += sum(PIECES_CUT in result for result in results)
    if num_cut:
        logging.warning("%d of %d texts were longer than %d pieces and were cut", num_cut, num_texts, predictor.max_seq_length)


# --- input -------------------------------------------------------------------------------------------------------------------


class _StandardInput(TextFile):
    """stdin, under the rules of all text files. It can be read once."""

    def _chunks(self) -> Iterator[bytes]:
        while data := sys.stdin.buffer.read(READ_BYTES):
            yield data
        yield b""


class _BadLine(ValueError):
    """What is wrong with a line, and the flag to change."""


def read_rows(config: PredictionConfig, task: Task) -> Iterator[Row]:
    """The texts of the input; UserError, with file and line, for a line that has not the one or two texts that `task` needs."""
    columns = config.text_columns.split(",") if config.text_columns else list(task.text_columns)
    if len(columns) != len(task.text_columns):
        raise UserError(f"task {task.name} needs {len(task.text_columns)} text column(s), got {', '.join(columns)} (--text_columns)")
    file = _StandardInput("stdin") if config.input == STANDARD else TextFile(config.input)
    lines = enumerate(file.lines(), 1)
    number = 1
    try:
        texts_of = _PARSERS[_format(config.input, config.input_format, "text")](lines, columns)
        for number, line in lines:
            texts = texts_of(line)
            task.check_texts(f"{file.path}, line {number}", texts, "input")
            yield Row(number, texts)
    except _BadLine as error:
        raise UserError(f"{file.path}, line {number}: {error}") from error
    except DataError as error:  # names file and line, and a flag of preprocess.py
        raise UserError(f"{error}".partition("; ")[0] + " (--input)") from error


Lines = Iterator[tuple[int, str]]
Parser = Callable[[str], tuple[str, ...]]  # the texts of a line


def _text_parser(lines: Lines, columns: Sequence[str]) -> Parser:
    def texts_of(line: str) -> tuple[str, ...]:
        texts = tuple(line.split("\t"))
        if len(texts) != len(columns):
            counts = f"{len(texts)} tab-separated text(s) instead of {len(columns)} ({', '.join(columns)})"
            raise _BadLine(f"{counts}; is this a file with named columns? (--input_format=tsv)")
        if not line.strip():
            raise _BadLine("the line is empty (--input)")
        return texts

    return texts_of


def _tsv_parser(lines: Lines, columns: Sequence[str]) -> Parser:
    """Takes the header from `lines`. As in task files, quotes have no meaning."""
    header = next(lines, (1, ""))[1].split("\t")
    if missing := [column for column in columns if column not in header]:
        raise _BadLine(f"no column {missing[0]!r} in the header {', '.join(header)[:200]!r} (--text_columns)")
    places = [header.index(column) for column in columns]

    def texts_of(line: str) -> tuple[str, ...]:
        fields = line.split("\t")
        if len(fields) != len(header):
            raise _BadLine(f"{len(fields)} tab-separated fields instead of the {len(header)} of the header (--input)")
        return tuple(fields[place] for place in places)

    return texts_of


def _json_parser(lines: Lines, columns: Sequence[str]) -> Parser:
    def texts_of(line: str) -> tuple[str, ...]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _BadLine(f"not JSON ({error}) (--input)") from error
        if not isinstance(found, dict):
            raise _BadLine(f"a JSON {type(found).__name__} instead of an object (--input)")
        return tuple(_json_text(found, column) for column in columns)

    return texts_of


def _json_text(found: Mapping[str, Any], key: str) -> str:
    if key not in found:
        raise _BadLine(f"no key {key!r} among {', '.join(found)[:200]!r} (--text_columns)")
    if not isinstance(found[key], str):
        raise _BadLine(f"{key!r} is {json.dumps(found[key])[:40]} instead of a text (--text_columns)")
    if has_half_pair(found[key]):
        raise _BadLine(f"{key!r} holds half of a surrogate pair, which is no character (--input)")
    return found[key]


_PARSERS: dict[str, Callable[[Lines, Sequence[str]], Parser]] = {"text": _text_parser, "tsv": _tsv_parser, "jsonl": _json_parser}


def _format(path: str, given: str | None, default: str) -> str:
    """`given`, else what the suffix of `path` says, which may be followed by that of packed files."""
    name, suffix = os.path.splitext(path)
    return given or _FORMAT_OF_SUFFIX.get(os.path.splitext(name)[1] if suffix in _PACKED else suffix, default)


# --- output ------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open_output(path: str) -> Iterator[IO[bytes]]:
    """The file, which appears when it is complete, or stdout."""
    if path != STANDARD:
        with open_atomically(path) as file:
            yield file
        return
    try:
        yield sys.stdout.buffer
    except BrokenPipeError:  # whoever reads has enough, as `head` has; Python shall not complain when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _named_texts(row: Row) -> dict[str, str]:
    names = ("text",) if len(row.texts) == 1 else ("text_a", "text_b")
    return dict(zip(names, row.texts, strict=True))


def _json_lines(rows: Sequence[Row], results: Sequence[Mapping[str, Any]], with_header: bool) -> Iterator[str]:
    for row, result in zip(rows, results, strict=True):
        yield json.dumps({"line": row.line, **_named_texts(row), **result}, ensure_ascii=False) + "\n"


def _tsv_lines(rows: Sequence[Row], results: Sequence[Mapping[str, Any]], with_header: bool) -> Iterator[str]:
    for index, (row, result) in enumerate(zip(rows, results, strict=True)):
        cells = {"line": str(row.line), **_named_texts(row), **_cells(result)}
        if with_header and index == 0:
            yield "\t".join(cells) + "\n"
        yield "\t".join(cell.translate(_NO_BREAKS) for cell in cells.values()) + "\n"


def _cells(result: Mapping[str, Any]) -> dict[str, str]:
    """{"probabilities": {"0": 0.02, "1": 0.98}} -> {"p(0)": "0.020000", "p(1)": "0.980000"}; entities become "PER:0:3 ORG:5:9"."""
    cells: dict[str, str] = {}
    for name, value in result.items():
        if isinstance(value, dict):
            cells |= {f"p({label})": f"{probability:.6f}" for label, probability in value.items()}
        elif isinstance(value, list):
            cells[name] = " ".join(f"{entity['type']}:{entity['start']}:{entity['end']}" for entity in value)
        elif name != PIECES_CUT:
            cells[name] = f"{value:.6f}" if isinstance(value, float) else str(value)
    return cells
