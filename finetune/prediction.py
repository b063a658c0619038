"""Predictor: texts in, what a fine-tuned model says of them out, as dicts. It writes nothing.

    Predictor("DIR").predict(["정말 재미있다"])
        -> [{"label": "1", "probability": 0.98, "probabilities": {"0": 0.02, "1": 0.98}}]

The model is the folder that run_finetuning.py leaves, and its features, its network and its batches are those of fine-tuning.
"""

import dataclasses
import glob
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from configure_finetuning import FinetuningConfig
from finetune.finetuning_model import FinetuningModel
from finetune.model_runner import BEST
from finetune.preprocessing import Preprocessor
from finetune.starting_point import find_starting_point
from finetune.task import Task
from finetune.task_builder import get_tasks
from model import checkpoint, devices, hparams
from model.command import UserError, read_json
from model.estimator import Estimator, RunConfig

CONFIG = "config.json"
PIECES_CUT = "pieces_cut"  # key of a result: how many pieces of its text were beyond max_seq_length
STRETCH = 8192  # texts that are sorted by length together, and that memory holds at a time
Texts = str | Sequence[str]  # what one prediction is about: a text, or the two of a pair


class Predictor:
    """A fine-tuned model that may be asked again and again, from several threads too.

    Args:
      model: MODEL_DIR/HASH/seed_N/best, or a folder (or pattern) above that holds only one such.
      task_name: which task to do, for a model of several.
      vocab_file: the model's vocabulary, if it lies neither beside the weights nor where it was in training.
      mixed_precision, precision: as in fine-tuning. Neither: float32, whatever the model was trained with.
      batch_size: texts per batch; None: the predict_batch_size of training.
      task_module: the user's module of tasks, if the model's are in one.

    Raises UserError for a folder without a model, another vocabulary or tokenizer than the model's, and an unknown task.
    """

    def __init__(
        self,
        model: str,
        task_name: str | None = None,
        vocab_file: str = "",
        mixed_precision: bool = False,
        precision: str | None = None,
        batch_size: int | None = None,
        task_module: str = "",
    ):
        self.folder = find_model(model)
        config = read_config(self.folder, vocab_file, batch_size, task_module)
        self.task, self.max_seq_length = choose_task(get_tasks(config), task_name), config.max_seq_length
        start = find_starting_point(config)
        self._preprocessor = Preprocessor(config, [self.task], start.tokenizer)
        dtype = devices.compute_dtype(mixed_precision, precision, devices.device_kind(use_tpu=False))

        model = FinetuningModel(config, [self.task], start.bert_config, start.embedding_size, config.seed, dtype)
        self._estimator = Estimator(lambda: model, RunConfig(self.folder))
        self._estimator.load(self.folder)
        model.encoder.freeze()
        self._lock = threading.Lock()  # the tokenizer's memory and the analyser are for one thread at a time

    def predict(self, texts: Sequence[Texts]) -> list[dict[str, Any]]:
        """What the model says of each text, in their order: see Task.describe. A pair is a tuple of two texts.

        A text that is too long is cut as in training, and its result has "pieces_cut", the number of pieces that this cost.
        Raises UserError for an empty text, and where one is given for two.
        """
        if isinstance(texts, str):
            raise UserError(f"predict takes a list of texts, got the text {texts[:40]!r}")
        rows = [self._as_row(f"text {number}", text) for number, text in enumerate(texts, 1)]
        with self._lock:
            return [result for begin in range(0, len(rows), STRETCH) for result in self._predict(rows[begin : begin + STRETCH])]

    def _as_row(self, place: str, text: Texts) -> tuple[str, ...]:
        row, columns = tuple(text) if isinstance(text, tuple | list) else (text,), self.task.text_columns
        if len(row) != len(columns) or not all(isinstance(part, str) for part in row):
            raise UserError(f"{place}: task {self.task.name} needs {len(columns)} ({', '.join(columns)}), got {text!r:.40}")
        self.task.check_texts(place, row)
        return row

    def _predict(self, rows: Sequence[tuple[str, ...]]) -> list[dict[str, Any]]:
        examples = [self.task.make_example(number, row) for number, row in enumerate(rows)]
        input_fn, num_cut = self._preprocessor.prepare_examples(self.task, examples)
        results: list[dict[str, Any]] = [{} for _ in rows]
        for outputs in self._estimator.predict(input_fn):
            output = {name.removeprefix(f"{self.task.name}/"): value for name, value in outputs.items()}
            number = int(output["eid"])
            results[number] = self.task.describe(rows[number], output)
            if num_cut[number]:
                results[number][PIECES_CUT] = int(num_cut[number])
        return results


def find_model(folder: str, flag: str = "model") -> str:
    """`folder` itself if it holds a fine-tuned model, else the only folder BEST below that does; UserError if there is none or a choice.

    `flag`: the flag that named it, for errors.
    """
    if _is_model(folder):
        return folder
    found = sorted(filter(_is_model, map(os.path.dirname, _configs_below(folder))))
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"no fine-tuned model in {folder!r}: name what run_finetuning.py left, MODEL_DIR/HASH/seed_N/{BEST} (--{flag})")
    shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    raise UserError(f"{len(found)} fine-tuned models in {folder!r}, name one of {shown} (--{flag})")


def _configs_below(folder: str) -> Iterator[str]:
    start = glob.escape(folder) if os.path.isdir(folder) else folder  # a pattern, or nothing
    return glob.iglob(os.path.join(start, "**", BEST, CONFIG), recursive=True)


def _is_model(folder: str) -> bool:
    """Whether a fine-tuned model lies right in `folder`, its weights with it."""
    path = os.path.join(folder, CONFIG)
    recorded = read_json(path, "model") if tf.io.gfile.exists(path) else None
    return isinstance(recorded, dict) and "finetuning" in recorded and checkpoint.latest(folder) is not None


def read_config(folder: str, vocab_file: str = "", batch_size: int | None = None, task_module: str = "") -> FinetuningConfig:
    """The configuration of the model in `folder`, as it is needed to use it: nothing is trained, cached or taken from elsewhere."""
    path = os.path.join(folder, CONFIG)
    recorded = read_json(path, "model")
    try:
        config = FinetuningConfig(**hparams.check(FinetuningConfig, dict(recorded["finetuning"])))
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"{path} is of another version of this program: {error} (--model)") from error
    if config.task_module and not task_module:  # code is run that the user names, never what a folder of data does
        raise UserError(f"the tasks of {path} stand in a module, {config.task_module!r}: name it if you trust it (--task_module)")
    trained_with = f"{recorded.get('vocab_file', 'vocab.txt')}"
    beside = os.path.join(folder, os.path.basename(trained_with))
    return dataclasses.replace(
        config,
        init_checkpoint=folder,
        task_module=task_module,
        vocab_file=vocab_file or (beside if tf.io.gfile.exists(beside) else trained_with),
        model_hparam_overrides={},  # config.json holds the shape itself, and the tokenizer
        tokenizer_type=None,
        analyzer=None,
        do_lower_case=None,
        strip_accents=None,
        class_weights=False,  # which would read the training data
        use_tpu=False,
        predict_batch_size=batch_size or config.predict_batch_size,
    )


def choose_task(tasks: Sequence[Task], name: str | None) -> Task:
    """The task called `name`, or the only one; UserError if there is none or a choice."""
    names = [task.name for task in tasks]
    if name is None and len(tasks) == 1:
        return tasks[0]
    if name not in names:
        given = "which one is meant" if name is None else f"not {name!r}"
        raise UserError(f"the model does {', '.join(names)}: {given} (--task_name)")
    return tasks[names.index(name)]
