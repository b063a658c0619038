"""From TFRecord shards to batches, in an order that is a pure function of (seed, step).

Shards are shuffled each epoch and read in windows of whole shards; the records of a window are shuffled among themselves. A
run that goes on at step s works out from the counts in manifest.json which window that is and skips the others unread.
"""

import contextlib
import posixpath
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from model.command import DataError, UserError, read_json
from model.estimator import Features, InputContext, InputFn

FEATURES = ("input_ids", "input_mask", "segment_ids")
_WINDOW_RECORDS = 65536  # about 40 MB of records at length 128: shuffled well, and read again at most once by a resumed run
_LAST_EPOCH = 2**40


class SpecialTokens(NamedTuple):
    """Ids that are never masked."""

    cls: int
    sep: int
    mask: int


class Inputs(NamedTuple):
    """What a network reads; the masked_lm_* fields are filled by `mask`."""

    input_ids: tf.Tensor  # int32 [B, L]
    input_mask: tf.Tensor  # int32 [B, L]
    segment_ids: tf.Tensor  # int32 [B, L]
    masked_lm_positions: tf.Tensor | None = None  # int32 [B, N]
    masked_lm_ids: tf.Tensor | None = None  # int32 [B, N]
    masked_lm_weights: tf.Tensor | None = None  # float32 [B, N]


def features_to_inputs(features: Features) -> Inputs:
    """The network's inputs in a batch; rows that only fill up a batch have nothing in their mask."""
    input_mask = features["input_mask"]
    if "is_real" in features:
        input_mask *= tf.cast(features["is_real"], tf.int32)[:, None]
    return Inputs(features["input_ids"], input_mask, features["segment_ids"])


def get_updated_inputs(inputs: Inputs, **changes: tf.Tensor) -> Inputs:
    """`inputs` with some fields replaced."""
    return inputs._replace(**changes)


class RecordSet(NamedTuple):
    """TFRecord shards, how many records each holds, and the manifest of their folder ({} where there is none)."""

    files: list[str]
    counts: list[int]
    manifest: dict[str, Any]

    @property
    def total(self) -> int:
        return sum(self.counts)


def find_records(pattern: str, flag: str, length: int) -> RecordSet:
    """The shards that match `pattern`; UserError if there are none or they were not built for `length`, DataError if damaged."""
    files = sorted(path for path in tf.io.gfile.glob(pattern) if ".tmp" not in path)
    if not files:
        raise UserError(f"no TFRecord files match {pattern!r}: run build_pretraining_dataset.py or set --{flag}")
    manifest_path = posixpath.join(posixpath.dirname(files[0]), "manifest.json")
    manifest = read_json(manifest_path, flag) if tf.io.gfile.exists(manifest_path) else {}
    if not manifest:
        logging.warning("No manifest.json beside %s: counting records; tokenizer and vocabulary cannot be checked", files[0])
        records = RecordSet(files, [_count_records(path, length) for path in files], {})
    else:
        _check_length(manifest["max_seq_length"], length, pattern)
        shards = {shard["file"]: shard for part in ("train", "eval") for shard in manifest.get(part, {}).get("shards", [])}
        _check_shards(files, shards, length)
        records = RecordSet(files, [shards[posixpath.basename(path)]["records"] for path in files], manifest)
    if not records.total:
        raise UserError(f"the TFRecord files {pattern!r} hold no examples (--{flag})")
    return records


def _check_length(found: int, length: int, where: str) -> None:
    if found != length:
        raise UserError(
            f"the TFRecords {where} were built for max_seq_length {found}, but this run has {length}: set --max_seq_length={found} "
            f"or rebuild them with build_pretraining_dataset.py --max_seq_length={length}"
        )


def _check_shards(files: list[str], shards: dict[str, Any], length: int) -> None:
    """Sizes against the manifest: a truncated shard is found before the run starts."""
    for path in files:
        shard = shards.get(posixpath.basename(path))
        if shard is None:
            raise UserError(f"{path} is not in the manifest.json beside it: remove it or set --pretrain_tfrecords")
        size = tf.io.gfile.stat(path).length
        if size != shard["bytes"]:
            _count_records(path, length)
            raise DataError(f"{path} has {size} bytes but manifest.json says {shard['bytes']}: build the data set again")


def _count_records(path: str, length: int) -> int:
    """Reads a whole shard; DataError names the first record that is damaged or does not parse."""
    number = 0
    try:
        for serialized in tf.data.TFRecordDataset(path):
            found = tf.train.Example.FromString(serialized.numpy()).features.feature
            lengths = {name: len(found[name].int64_list.value) for name in FEATURES}
            if set(lengths.values()) != {length}:
                if number == 0:
                    _check_length(lengths["input_ids"], length, path)
                raise DataError(f"record {number} of {path} has lengths {lengths} instead of {length}: build the data set again")
            number += 1
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise DataError(f"record {number} of {path} is truncated or corrupt ({error.message}): build the data set again") from error
    except Exception as error:
        if type(error).__name__ == "DecodeError":
            raise DataError(f"record {number} of {path} is not a tf.train.Example: build the data set again") from error
        raise
    return number


@contextlib.contextmanager
def explained(records: RecordSet, length: int) -> Iterator[None]:
    """Turns an error that TensorFlow met in the records into one that names the shard and the record number."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError):
        for path in records.files:
            if not tf.io.gfile.exists(path):
                raise DataError(f"{path} disappeared during the run: build the data set again") from None
            _count_records(path, length)
        raise  # the records are sound: the error is another one


def train_input_fn(records: RecordSet, length: int, seed: int) -> InputFn:
    """Batches of training examples without end, from the context's start step on."""

    def input_fn(context: InputContext) -> tf.data.Dataset:
        first_epoch, offset = divmod(context.start_step * context.batch_size, records.total)
        files_per_window = max(1, _WINDOW_RECORDS // max(records.counts))
        files = tf.constant(records.files)
        buffer = min(records.total, files_per_window * max(records.counts))

        def order(epoch: tf.Tensor) -> tf.Tensor:
            return tf.random.experimental.stateless_shuffle(tf.range(len(records.files)), seed=tf.stack([tf.cast(seed, tf.int64), epoch]))

        def read_window(epoch: tf.Tensor, window: tf.Tensor) -> tf.data.Dataset:
            key = tf.random.experimental.stateless_fold_in(tf.stack([tf.cast(seed, tf.int64), epoch]), tf.cast(window[0], tf.int64) + 1)
            shuffle_seed = tf.random.stateless_uniform([], key, minval=None, maxval=None, dtype=tf.int64)
            return tf.data.TFRecordDataset(tf.gather(files, window)).shuffle(buffer, shuffle_seed, reshuffle_each_iteration=False)

        def read_epoch(epoch: tf.Tensor, skipped_windows: int = 0) -> tf.data.Dataset:
            windows = tf.data.Dataset.from_tensor_slices(order(epoch)).batch(files_per_window).skip(skipped_windows)
            return windows.flat_map(lambda window: read_window(epoch, window))

        epoch = tf.constant(first_epoch, tf.int64)
        skipped, rest = _windows_before(offset, [records.counts[index] for index in order(epoch).numpy()], files_per_window)
        dataset = read_epoch(epoch, skipped).skip(rest)
        dataset = dataset.concatenate(tf.data.Dataset.range(first_epoch + 1, _LAST_EPOCH).flat_map(read_epoch))
        dataset = dataset.batch(context.batch_size, drop_remainder=True).map(lambda batch: _parse(batch, length))
        position = tf.range(context.batch_size, dtype=tf.int64)
        return dataset.map(lambda features: {**features, "position": position}).prefetch(4)

    return input_fn


def _windows_before(offset: int, counts: list[int], files_per_window: int) -> tuple[int, int]:
    """(whole windows to skip, records to skip in the next one) to be at record `offset` of an epoch."""
    for window, start in enumerate(range(0, len(counts), files_per_window)):
        size = sum(counts[start : start + files_per_window])
        if offset < size:
            return window, offset
        offset -= size
    raise AssertionError("the offset lies within an epoch")


def eval_input_fn(records: RecordSet, length: int) -> InputFn:
    """Every example once, in the order of the shards; the last batch is filled up with rows whose is_real is 0."""

    def input_fn(context: InputContext) -> tf.data.Dataset:
        size = context.batch_size

        def fill_up(start: tf.Tensor, features: Features) -> Features:
            number = tf.shape(features["input_ids"])[0]
            filled = {
                name: tf.ensure_shape(tf.pad(value, [[0, size - number], [0, 0]]), [size, length]) for name, value in features.items()
            }
            return {
                **filled,
                "position": start * size + tf.range(size, dtype=tf.int64),
                "is_real": tf.sequence_mask(number, size, tf.float32),
            }

        dataset = tf.data.TFRecordDataset(records.files).batch(size).map(lambda batch: _parse(batch, length))
        return dataset.enumerate().map(fill_up).prefetch(4)

    return input_fn


def _parse(serialized: tf.Tensor, length: int) -> dict[str, tf.Tensor]:
    """Serialized tf.train.Examples [B] -> int32 [B, L] features."""
    parsed = tf.io.parse_example(serialized, {name: tf.io.FixedLenFeature([length], tf.int64) for name in FEATURES})
    return {name: tf.cast(value, tf.int32) for name, value in parsed.items()}
