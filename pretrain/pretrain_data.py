"""From TFRecord shards to batches, in an order that is a pure function of (seed, step).

Shards are shuffled each epoch and read in windows of whole shards; the records of a window are shuffled among themselves. A
run that goes on at step s works out from the counts in manifest.json which window that is and skips the others unread.
"""

import contextlib
import fnmatch
import posixpath
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError

from model.command import DataError, UserError, read_json
from model.estimator import Features, InputContext, InputFn
from pretrain.build_folder import MANIFEST, WORK, shards_of
from pretrain.example_writer import masked_crcs
from pretrain.input_streams import deal

FEATURES = ("input_ids", "input_mask", "segment_ids")
_WINDOW_RECORDS = 65536  # about 40 MB of records at length 128: shuffled well, and read again at most once by a resumed run
_SCAN_BATCH = 1024
_LAST_EPOCH = 2**40
# TensorFlow quotes a record that does not parse in its message, and fails on that where it is not UTF-8.
_READ_ERRORS = (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError, UnicodeDecodeError)


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
    """TFRecord shards, how many records each holds, and how their text became ids."""

    files: list[str]
    counts: list[int]
    tokenizer: dict[str, Any]  # provenance from manifest.json, {} where there is none
    highest_id: int  # the highest token id where a whole data set was read for want of a manifest, else -1

    @property
    def total(self) -> int:
        return sum(self.counts)


def find_records(pattern: str, flag: str, length: int) -> RecordSet:
    """The shards that match `pattern` (several: separated by commas), which may lie in several folders.

    Raises UserError if there are none, or they were not built for `length` or not all with the same tokenizer; DataError if one
    is damaged.
    """
    found = {path for part in pattern.split(",") for path in tf.io.gfile.glob(part.strip()) if ".tmp" not in posixpath.basename(path)}
    files = sorted(found)
    if not files:
        raise UserError(f"no TFRecord files match {pattern!r}: run build_pretraining_dataset.py or set --{flag}")
    manifests = {folder: _read_manifest(folder, length, flag) for folder in sorted({posixpath.dirname(path) for path in files})}
    for folder, manifest in manifests.items():
        _check_complete(pattern, folder, manifest, found)
    counts, highest_id = [], -1
    for path in files:
        manifest = manifests[posixpath.dirname(path)]
        if manifest:
            counts.append(_count_from_manifest(path, manifest, length, flag))
        else:
            scan = _scan(path, length)
            counts.append(scan.records)
            highest_id = max(highest_id, scan.highest_id)
    if not sum(counts):
        raise UserError(f"the TFRecord files {pattern!r} hold no examples (--{flag})")
    return RecordSet(files, counts, _common_tokenizer(manifests, flag), highest_id)


def _read_manifest(folder: str, length: int, flag: str) -> dict[str, Any]:
    """The manifest.json of a folder of shards; {} where there is none."""
    path = posixpath.join(folder, MANIFEST)
    if not tf.io.gfile.exists(path):
        if tf.io.gfile.isdir(posixpath.join(folder, WORK)):
            raise UserError(f"the TFRecords in {folder!r} are unfinished: run build_pretraining_dataset.py to its end (--{flag})")
        logging.warning("No manifest.json in %r: reading all records to count them; their tokenizer cannot be checked", folder)
        return {}
    manifest = read_json(path, flag)
    if not isinstance(manifest, dict) or manifest.get("format_version") != 1 or not isinstance(manifest.get("tokenizer", {}), dict):
        raise UserError(f"{path} is not a manifest of build_pretraining_dataset.py (--{flag})")
    _check_length(manifest.get("max_seq_length"), length, folder)
    return manifest


def _check_complete(pattern: str, folder: str, manifest: dict[str, Any], found: set[str]) -> None:
    """DataError for a shard of the manifest that the pattern asks for and that is not there: a copy may have been cut short."""
    for shard in shards_of(manifest):
        path = posixpath.join(folder, shard["file"])
        if path not in found and any(fnmatch.fnmatchcase(path, part.strip()) for part in pattern.split(",")):
            raise DataError(f"{path} is missing, but manifest.json lists it: build or copy the data set again")


def _common_tokenizer(manifests: dict[str, dict[str, Any]], flag: str) -> dict[str, Any]:
    """The tokenizer that all data sets share; UserError where two differ."""
    (first, common), *others = [(folder, manifest.get("tokenizer", {})) for folder, manifest in manifests.items()]
    for folder, tokenizer in others:
        for name in sorted({*common, *tokenizer}):
            if common.get(name) != tokenizer.get(name):
                raise UserError(
                    f"TFRecords of different tokenizers cannot be mixed: {name} is {common.get(name)!r} in {first} but "
                    f"{tokenizer.get(name)!r} in {folder} (--{flag})"
                )
    return common


def _check_length(found: int | None, length: int, where: str) -> None:
    if found != length:
        raise UserError(
            f"the TFRecords {where} were built for max_seq_length {found}, but this run has {length}: set --max_seq_length={found} "
            f"or rebuild them with build_pretraining_dataset.py --max_seq_length={length}"
        )


def _count_from_manifest(path: str, manifest: dict[str, Any], length: int, flag: str) -> int:
    """The number of records, once the size agrees: a truncated shard is found before the run starts."""
    shard = next((shard for shard in shards_of(manifest) if shard["file"] == posixpath.basename(path)), None)
    if shard is None:
        raise UserError(f"{path} is not in the manifest.json beside it: remove it or change --{flag}")
    size = tf.io.gfile.stat(path).length
    if size != shard["bytes"]:
        _diagnose(path, length)
        raise DataError(f"{path} has {size} bytes but manifest.json says {shard['bytes']}: build the data set again")
    if not 0 <= 16 * shard.get("records", -1) <= size:  # each has a frame of 16 bytes
        raise DataError(f"{path} has {size} bytes but manifest.json says {shard.get('records')} records: build the data set again")
    return shard["records"]


class Scan(NamedTuple):
    """What reading a whole shard told."""

    records: int
    highest_id: int


def _scan(path: str, length: int) -> Scan:
    """Reads a whole shard, quickly where it is sound; DataError names the first record that is damaged or does not fit."""
    records, highest_id = 0, -1
    _refuse_endless(path)
    try:
        for features in tf.data.TFRecordDataset(path).batch(_SCAN_BATCH).map(lambda batch: _parse(batch, length)):
            records += int(features["input_ids"].shape[0])
            highest_id = max(highest_id, int(tf.reduce_max(features["input_ids"])))
            if (lowest_id := int(tf.reduce_min(features["input_ids"]))) < 0:
                raise DataError(f"{path} holds the id {lowest_id}, which is no vocabulary's: build the data set again")
    except _READ_ERRORS:
        _diagnose(path, length)
        raise
    return Scan(records, highest_id)


def _refuse_endless(path: str) -> None:
    """DataError for a record that is said to be longer than its file: TensorFlow dies of that where the length has its check sum."""
    size, offset, number = tf.io.gfile.stat(path).length, 0, 0
    opened = tf.io.gfile.GFile if "://" in path else open  # which goes on within what it has read, and is several times faster
    with opened(path, "rb") as file:
        while len(head := file.read(12)) == 12:
            offset += 16 + int.from_bytes(head[:8], "little")
            if offset > size:
                if head[8:] == masked_crcs([head[:8]]).astype("<u4").tobytes():  # if not, TensorFlow says so
                    raise DataError(
                        f"record {number} of {path} is truncated or corrupt (it ends at byte {offset} of {size}): build the data set again"
                    )
                return
            file.seek(offset)
            number += 1


def _diagnose(path: str, length: int) -> None:
    """Reads a shard record by record; DataError names the first that is damaged, UserError if it was built for another length."""
    number, advice = 0, "build the data set again"
    _refuse_endless(path)
    try:
        for serialized in tf.data.TFRecordDataset(path):
            found = tf.train.Example.FromString(serialized.numpy()).features.feature
            lengths = {name: len(found[name].int64_list.value) for name in FEATURES}
            if number == 0 and len(set(lengths.values())) == 1 and lengths["input_ids"]:
                _check_length(lengths["input_ids"], length, path)
            if set(lengths.values()) != {length}:
                raise DataError(f"record {number} of {path} has features of lengths {lengths} instead of {length}: {advice}")
            number += 1
    except tf.errors.OpError as error:
        reason = error.message.partition("\n")[0].partition("[Op:")[0].strip()
        raise DataError(f"record {number} of {path} is truncated or corrupt ({reason}): {advice}") from error
    except DecodeError as error:
        raise DataError(f"record {number} of {path} is not a tf.train.Example: {advice}") from error


@contextlib.contextmanager
def explained(records: RecordSet, length: int, vocab_size: int | None = None) -> Iterator[None]:
    """Turns an error that TensorFlow met in the records into one that names the shard, and the record number of a damaged one."""
    try:
        yield
    except _READ_ERRORS:
        for path in records.files:
            if not tf.io.gfile.exists(path):
                raise DataError(f"{path} disappeared during the run: build the data set again") from None
            highest_id = _scan(path, length).highest_id
            if vocab_size is not None and highest_id >= vocab_size:
                raise DataError(f"{path} holds the id {highest_id}, but the model has {vocab_size}: build the data set again") from None
        raise  # the records are sound: the error is another one


def train_input_fn(records: RecordSet, length: int, seed: int, streams: int = 1) -> InputFn:
    """Batches of training examples without end, from the context's start step on.

    Of several `streams` (see pretrain.input_streams), which the workers must divide, a worker reads its own alone.
    """
    parts = [
        records._replace(files=[records.files[place] for place in places], counts=[records.counts[place] for place in places])
        for places in deal(records.counts, streams)
    ]

    def input_fn(context: InputContext) -> tf.data.Dataset:
        share = streams // context.workers if streams > 1 else 1
        first = share * context.worker if streams > 1 else 0
        size = context.batch_size // streams
        slices = [_read_stream(parts[stream], size, seed + stream, context.start_step) for stream in range(first, first + share)]
        dataset = slices[0] if share == 1 else tf.data.Dataset.zip(tuple(slices)).map(lambda *rows: tf.concat(rows, 0))
        position = tf.range(first * size, (first + share) * size, dtype=tf.int64)
        dataset = dataset.map(lambda batch: {**_parse(batch, length), "position": position})
        # Known to be without end, it needs no agreement of the workers in every step on whether all have a batch.
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        return (dataset if streams > 1 else context.own_rows(dataset)).prefetch(4)

    return input_fn


def _read_stream(records: RecordSet, size: int, seed: int, start_step: int) -> tf.data.Dataset:
    """Serialized examples string [size], without end, as they are from batch `start_step` on."""
    first_epoch, offset = divmod(start_step * size, records.total)
    files_per_window = max(1, _WINDOW_RECORDS // max(records.counts))
    files = tf.constant(records.files)
    buffer = min(records.total, files_per_window * max(records.counts))

    def order(epoch: tf.Tensor) -> tf.Tensor:
        with tf.device("CPU"):  # where data sets are computed, also when this is called outside of one
            key = tf.stack([tf.cast(seed, tf.int64), epoch])
            return tf.random.experimental.stateless_shuffle(tf.range(len(records.files)), seed=key)

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
    return dataset.batch(size, drop_remainder=True)


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
        return context.own_rows(dataset.enumerate().map(fill_up)).prefetch(4)

    return input_fn


def _parse(serialized: tf.Tensor, length: int) -> dict[str, tf.Tensor]:
    """Serialized tf.train.Examples [B] -> int32 [B, L] features."""
    parsed = tf.io.parse_example(serialized, {name: tf.io.FixedLenFeature([length], tf.int64) for name in FEATURES})
    return {name: tf.cast(value, tf.int32) for name, value in parsed.items()}
