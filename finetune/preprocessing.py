"""From a task's examples to batches: features once per text, cached; batches as a pure function of (seed, step).

The features of a split are a FeatureTable in memory: what every example has per piece lies end to end, without padding.
"""

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from configure_finetuning import FinetuningConfig
from finetune.feature_spec import COMMON_SPECS, FeatureSpec
from finetune.task import Example, Task
from model.command import make_folder, write_atomically
from model.devices import device_kind
from model.estimator import InputContext, InputFn
from model.tokenization import FullTokenizer

GROUPED_BATCHES = 64  # batches of similar length are made within stretches of so many


@dataclasses.dataclass(frozen=True)
class FeatureTable:
    """Features of many examples.

    columns: name -> [rows] for a feature per example, [pieces of all rows] for one per piece.
    offsets: int64 [rows + 1]; row i has the pieces offsets[i] to offsets[i + 1].
    """

    columns: Mapping[str, np.ndarray]
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


def build_table(rows: Sequence[Mapping[str, Any]], specs: Sequence[FeatureSpec]) -> FeatureTable:
    """Lays out `rows` (feature -> number, or list with one number per piece); what a row lacks gets the spec's default."""
    lengths = [len(row["input_ids"]) for row in rows]
    columns = {}
    for spec in specs:
        if spec.per_token:
            parts = [row.get(spec.name, [spec.default] * length) for row, length in zip(rows, lengths, strict=True)]
            columns[spec.name] = np.array([value for part in parts for value in part], spec.dtype)
        else:
            columns[spec.name] = np.array([row.get(spec.name, spec.default) for row in rows], spec.dtype)
    return FeatureTable(columns, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def concatenate(tables: Sequence[FeatureTable]) -> FeatureTable:
    """The rows of all `tables`, which have the same columns, one table after the other."""
    columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns}
    return FeatureTable(columns, np.concatenate([[0], np.cumsum(np.concatenate([table.lengths for table in tables]))]))


def training_order(lengths: np.ndarray, num_steps: int, batch_size: int, seed: int, group_by_length: bool) -> np.ndarray:
    """Which rows each training step sees, int64 [num_steps, batch_size].

    Every epoch is a permutation of its own, and a batch may reach over the border of two. With `group_by_length`, the rows of each
    stretch of GROUPED_BATCHES batches are dealt out to them by length, and the batches shuffled again, so that little of a batch is
    padding; which examples belong to a stretch stays random.
    """
    rows, epochs = len(lengths), -(-num_steps * batch_size // len(lengths))
    stream = np.concatenate([_generator(seed, "epoch", epoch).permutation(rows) for epoch in range(epochs)])
    order = stream[: num_steps * batch_size].reshape(num_steps, batch_size)
    if group_by_length:
        for start in range(0, num_steps, GROUPED_BATCHES):
            stretch = order[start : start + GROUPED_BATCHES]
            by_length = stretch.ravel()[np.argsort(lengths[stretch.ravel()], kind="stable")].reshape(stretch.shape)
            stretch[:] = _generator(seed, "stretch", start).permutation(by_length)
    return order


def _generator(seed: int, purpose: str, index: int) -> np.random.Generator:
    """Independent random numbers for each (seed, purpose, index)."""
    key = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def prediction_order(lengths: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every row once, long ones first, so that a batch that is too large for memory fails at once.

    Returns:
      rows int64 [batches, batch_size], is_real float32 of the same shape: 0 where the last batch is filled up.
    """
    rows = np.argsort(-lengths, kind="stable")
    missing = -len(rows) % batch_size
    is_real = np.concatenate([np.ones(len(rows), np.float32), np.zeros(missing, np.float32)])
    return np.pad(rows, (0, missing), mode="edge").reshape(-1, batch_size), is_real.reshape(-1, batch_size)


class Preprocessor:
    """Makes the input functions of training, evaluation and prediction."""

    def __init__(self, config: FinetuningConfig, tasks: Sequence[Task], tokenizer: FullTokenizer):
        self._config, self._tasks, self._tokenizer = config, list(tasks), tokenizer
        self._specs = [*COMMON_SPECS, *(spec for task in tasks for spec in task.get_feature_specs())]
        self._tables: dict[tuple[str, str], FeatureTable] = {}

    def prepare_train(self, seed: int) -> tuple[InputFn, int]:
        """(input function, number of training steps); `seed` decides the order of the examples."""
        config = self._config
        table = concatenate([self._table(task, "train") for task in self._tasks])
        num_steps = max(1, int(len(table) * config.num_train_epochs / config.train_batch_size))
        order = training_order(table.lengths, num_steps, config.train_batch_size, seed, config.group_by_length)
        return self._input_fn(table, {"rows": order}), num_steps

    def prepare_predict(self, tasks: Sequence[Task], split: str) -> tuple[InputFn, int]:
        """(input function, number of batches) over all examples that `tasks` have in `split`."""
        batch_size = self._config.eval_batch_size if split == "dev" else self._config.predict_batch_size
        table = concatenate([self._table(task, split) for task in tasks])
        rows, is_real = prediction_order(table.lengths, batch_size)
        return self._input_fn(table, {"rows": rows, "is_real": is_real}), len(rows)

    def prepare_examples(self, task: Task, examples: Sequence[Example]) -> tuple[InputFn, np.ndarray]:
        """(input function over `examples`, which lie in no file; how many pieces each of them lost, int [examples]).

        No tf.data: tracing its function would cost more than a few examples do.
        """
        table = self._complete(task, self._featurize(task, examples, is_training=False))
        batch_size = min(self._config.predict_batch_size, 1 << (len(table) - 1).bit_length())  # few shapes, quick on few examples
        make_batch = self._batch_maker(table, padded_lengths(self._config.max_seq_length))
        batches = zip(*map(tf.constant, prediction_order(table.lengths, batch_size)), strict=True)
        return lambda context: (make_batch({"rows": rows, "is_real": is_real}) for rows, is_real in batches), table.columns["num_cut"]

    def num_examples(self, task: Task, split: str) -> int:
        """How many the file holds: one of which two inputs are made (see Config.double_unordered) counts once."""
        return len(self._cut_by_example(task, split))

    def count_cut(self, task: Task, split: str) -> dict[str, int]:
        """How many examples were cut to max_seq_length, and how many pieces that cost."""
        cut = self._cut_by_example(task, split)
        return {"examples": int(np.count_nonzero(cut)), "pieces": int(cut.sum())}

    def _cut_by_example(self, task: Task, split: str) -> np.ndarray:
        """The pieces that each example lost, in the order of eid."""
        table = self._table(task, split)
        return table.columns["num_cut"][np.unique(table.columns[f"{task.name}_eid"], return_index=True)[1]]

    def _input_fn(self, table: FeatureTable, batches: Mapping[str, np.ndarray]) -> InputFn:
        """An input function over `batches`: "rows" int64 [batches, B], and what else each batch holds."""

        def input_fn(context: InputContext) -> tf.data.Dataset:
            static = context.static_shapes or self._config.use_tpu
            make_batch = self._batch_maker(table, padded_lengths(self._config.max_seq_length)[-1 if static else 0 :])
            dataset = tf.data.Dataset.from_tensor_slices({name: values[context.start_step :] for name, values in batches.items()})
            dataset = context.own_rows(dataset.map(make_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True))
            return dataset.prefetch(tf.data.AUTOTUNE)

        return input_fn

    def _batch_maker(self, table: FeatureTable, padded: Sequence[int]) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
        """A function from the "rows" of `table` in a batch, int64 [B], to their features, padded to one of the lengths `padded`."""
        per_token = {spec.name: spec.default for spec in self._specs if spec.per_token}
        choices = tf.constant(padded, tf.int64)
        columns = {name: tf.constant(values) for name, values in table.columns.items()}
        offsets = tf.constant(table.offsets)

        def make_batch(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            rows = batch.pop("rows")  # [B]
            lengths = tf.gather(offsets, rows + 1) - tf.gather(offsets, rows)
            # A TPU wants to know the shape beforehand.
            length = padded[0] if len(padded) == 1 else choices[tf.searchsorted(choices, tf.reduce_max(lengths)[None])[0]]
            features = dict(batch, position=tf.range(rows.shape[0], dtype=tf.int64))
            features["input_mask"] = tf.sequence_mask(lengths, length, tf.int32)  # [B, L]
            for name, values in columns.items():
                if name in per_token:
                    pieces = tf.gather(tf.RaggedTensor.from_row_splits(values, offsets, validate=False), rows)
                    features[name] = pieces.to_tensor(per_token[name], shape=[rows.shape[0], length])
                else:
                    features[name] = tf.gather(values, rows)
            return features

        return make_batch

    # --- features, made once -------------------------------------------------------------------------------------------------

    def _table(self, task: Task, split: str) -> FeatureTable:
        key = (task.name, split)
        if key not in self._tables:
            self._tables[key] = self._complete(task, self._cached(task, split))
        return self._tables[key]

    def _complete(self, task: Task, table: FeatureTable) -> FeatureTable:
        """`table` with the columns that all tasks have together."""
        columns = dict(table.columns, task_id=np.full(len(table), self._tasks.index(task), np.int32))
        for spec in self._specs:
            size = table.offsets[-1] if spec.per_token else len(table)
            columns.setdefault(spec.name, np.full(size, spec.default, spec.dtype))
        return FeatureTable(columns, table.offsets)

    def _cached(self, task: Task, split: str) -> FeatureTable:
        """The task's own features of `split`, from the cache where an earlier run left the same."""
        path = os.path.join(self._config.preprocessed_data_dir, f"{task.name}-{split}-{self._fingerprint(task, split)}.npz")
        if self._config.use_tfrecords_if_existing and tf.io.gfile.exists(path):
            table = read_table(path)
            if table is not None:
                logging.info("Reusing the features of %s %s: %s", task.name, split, path)
                return table
        table = self._make_table(task, split)
        write_table(path, table)
        return table

    def _fingerprint(self, task: Task, split: str) -> str:
        """A hash of everything that features depend on."""
        config = self._config
        parts = {
            "version": 2,
            "task": task.signature(split),
            "tokenizer": self._tokenizer.provenance(),
            "split": [split, config.dev_fraction, config.dev_seed],
            "max_seq_length": config.max_seq_length,
            "double_unordered": config.double_unordered,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def _make_table(self, task: Task, split: str) -> FeatureTable:
        examples = task.get_examples(split)
        for example in examples[:3] if self._config.log_examples else ():
            made = task.featurize(example, self._tokenizer, split == "train")
            pieces = self._tokenizer.convert_ids_to_tokens(made[0]["input_ids"])
            logging.info("%s %s, line %d: %s %s", task.name, split, example.eid, " ".join(pieces), made[0])
        bar = tqdm(examples, f"{task.name} {split}", unit="rows", leave=False, disable=None)
        table = self._featurize(task, bar, is_training=split == "train")
        cut = table.columns["num_cut"]
        counts = (len(table), np.count_nonzero(cut), self._config.max_seq_length, cut.sum())
        logging.info("%s %s: %d examples, %d of them cut to %d, %d pieces lost", task.name, split, *counts)
        return table

    def _featurize(self, task: Task, examples: Iterable[Example], is_training: bool) -> FeatureTable:
        rows = [row for example in examples for row in task.featurize(example, self._tokenizer, is_training)]
        own_specs = [spec for spec in COMMON_SPECS if spec.name != "task_id"]
        return build_table(rows, [*own_specs, *task.get_feature_specs()])


def padded_lengths(max_length: int, step: int | None = None) -> list[int]:
    """The lengths that batches may have: 100 with step 4 -> [4, 8, 12, ..., 60, 64, 72, 80, 88, 96, 100].

    From 8 steps on an eighth apart at most, since padding costs as much as text does, and yet few, since each has to be compiled. The step
    is 4 on a CPU and 16 elsewhere, where compiling takes longer and padding less time.
    """
    step = step or (4 if device_kind(use_tpu=False) == "CPU" else 16)
    lengths = [step]
    while lengths[-1] < max_length:
        lengths.append(lengths[-1] + max(step, (1 << lengths[-1].bit_length()) // 16))
    return [*(length for length in lengths if length < max_length), max_length]


def write_table(path: str, table: FeatureTable) -> None:
    """Writes `table` as .npz: numpy's own format, no pickle."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"column/{name}": values for name, values in table.columns.items()}
    # The names too: a damaged directory of the file can hide members.
    np.savez(buffer, offsets=table.offsets, names=np.array(sorted(arrays)), **arrays)
    make_folder(os.path.dirname(path), "preprocessed_data_dir")
    write_atomically(path, buffer.getvalue())


def read_table(path: str) -> FeatureTable | None:
    """What `write_table` wrote, or None (and a warning) if the file is damaged: it is only a cache."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file, np.load(io.BytesIO(file.read()), allow_pickle=False) as arrays:
            columns = {name.removeprefix("column/"): arrays[name] for name in arrays["names"].tolist()}
            return FeatureTable(columns, arrays["offsets"])
    except Exception as error:  # numpy and zipfile raise a dozen kinds, RuntimeError and EOFError among them
        logging.warning("Cached features %s are damaged (%s) and are made again", path, error)
        return None
