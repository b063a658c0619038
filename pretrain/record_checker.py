"""Whether a shard is sound: its frames, its tf.train.Examples, and what pre-training takes for granted of their numbers.

    record 17 of data/pretrain_data.tfrecord-00000-of-00100, from byte 9588: input_mask[5] is 1, expected ones, then zeros

TensorFlow's own reader names no record and no byte. Check sums and rules are computed side by side over many records, so that
a data set is checked about as fast as a disk gives it.
"""

import functools
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from model.command import UserError
from pretrain.example_writer import RECORDS_AT_ONCE, masked_crcs
from pretrain.pretrain_data import FEATURES

_KINDS = {"bytes_list": "bytes", "float_list": "floats", None: "nothing"}


class Frame(NamedTuple):
    """One record of a TFRecord file: `record` and the check sum stored behind it; the frame begins at byte `offset`."""

    offset: int
    record: bytes
    check_sum: bytes


class FrameError(Exception):
    """No further record can be read: the next frame, at byte `offset`, is damaged or cut off."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset


class Fault(NamedTuple):
    """What is wrong with a file, or with one record of it (numbered from 0)."""

    path: str
    reason: str
    record: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        where = self.path if self.record is None else f"record {self.record} of {self.path}, from byte {self.offset}"
        return f"{where}: {self.reason}"


class Flaw(NamedTuple):
    """What is wrong with row `row` of a batch."""

    row: int
    reason: str


@dataclass(frozen=True)
class Expectation:
    """What every example of a data set must fit."""

    length: int
    vocab_size: int
    cls_id: int
    sep_id: int


# ---- frames


def open_shard(path: str) -> BinaryIO:
    """Opens `path` for reading, also where only TensorFlow can; UserError if that fails."""
    try:
        return tf.io.gfile.GFile(path, "rb") if "://" in path else open(path, "rb")
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot read {path!r}: {getattr(error, 'strerror', None) or error} (--data)") from error


def read_frames(path: str) -> Iterator[Frame]:
    """Yields the frames of a file; FrameError where one is cut off or its length is damaged. Records are not looked into."""
    size, offset = tf.io.gfile.stat(path).length, 0
    with open_shard(path) as file:
        while head := file.read(12):
            length = int.from_bytes(head[:8], "little")
            if len(head) == 12 and head[8:] != _check_sum(head[:8]):
                computed = _hex(_check_sum(head[:8]))
                raise FrameError(offset, f"the check sum of its length {length} is {computed}, expected {_hex(head[8:])} as written")
            end = offset + 16 + length if len(head) == 12 else offset + 16
            if end > size:
                raise FrameError(offset, f"it is cut off: the file ends at byte {size}, expected at least {end}")
            rest = file.read(length + 4)
            yield Frame(offset, rest[:-4], rest[-4:])
            offset = end


@functools.lru_cache(maxsize=1 << 16)
def _check_sum(head: bytes) -> bytes:
    return masked_crcs([head]).astype("<u4").tobytes()


def _hex(check_sum: bytes) -> str:
    return f"0x{int.from_bytes(check_sum, 'little'):08x}"


# ---- records


def read_features(frames: Sequence[Frame], length: int) -> tuple[np.ndarray, Flaw | None]:
    """The features of the sound records up to the first damaged one, int64 [records, 3, length] in the order of FEATURES; its flaw."""
    flaw = _find_damage(frames)
    records = [frame.record for frame in frames[: flaw.row if flaw else None]]
    if not records:
        return _rows([], length), flaw
    try:
        parsed = tf.io.parse_example(records, {name: tf.io.FixedLenFeature([length], tf.int64) for name in FEATURES})
        return np.stack([parsed[name].numpy() for name in FEATURES], 1), flaw
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # TensorFlow quotes the record, and fails where it is not UTF-8
        features, first = _read_one_by_one(records, length)
        return features, first or flaw


def _find_damage(frames: Sequence[Frame]) -> Flaw | None:
    """The first record that does not have its check sum."""
    short = next((row for row, frame in enumerate(frames) if len(frame.record) < 4), len(frames))
    if short:
        found = masked_crcs([frame.record for frame in frames[:short]]).astype("<u4")
        stored = np.frombuffer(b"".join(frame.check_sum for frame in frames[:short]), "<u4")
        damaged = np.flatnonzero(found != stored)
        if len(damaged):
            row = int(damaged[0])
            return Flaw(
                row, f"the check sum of its data is {_hex(found[row].tobytes())}, expected {_hex(frames[row].check_sum)} as written"
            )
    return None if short == len(frames) else Flaw(short, f"it is {len(frames[short].record)} bytes long, too short for an example")


def _read_one_by_one(records: Sequence[bytes], length: int) -> tuple[np.ndarray, Flaw | None]:
    rows: list[list[Sequence[int]]] = []
    for record in records:
        try:
            features = tf.train.Example.FromString(record).features.feature
        except DecodeError:
            return _rows(rows, length), Flaw(len(rows), "it is not a tf.train.Example")
        for name in FEATURES:
            kind = features[name].WhichOneof("kind") if name in features else None
            if kind != "int64_list":
                return _rows(rows, length), Flaw(len(rows), f"{name} holds {_KINDS[kind]}, expected {length} int64")
            if len(features[name].int64_list.value) != length:
                found = len(features[name].int64_list.value)
                return _rows(rows, length), Flaw(len(rows), f"{name} holds {found} numbers, expected {length}")
        rows.append([features[name].int64_list.value for name in FEATURES])
    return _rows(rows, length), None


def _rows(rows: list[list[Sequence[int]]], length: int) -> np.ndarray:
    return np.array(rows, np.int64).reshape(len(rows), len(FEATURES), length)


def find_misfit(features: np.ndarray, expected: Expectation) -> Flaw | None:
    """The first example, of int64 [B, 3, L], that pre-training could not learn from."""
    flaws = []
    for name, values, misfits, rule in _rules(features, expected):
        rows = np.flatnonzero(misfits.any(1))
        if len(rows):
            row = int(rows[0])
            position = int(misfits[row].argmax())
            flaws.append(Flaw(row, f"{name}[{position}] is {values[row, position]}, expected {rule}"))
    return min(flaws, key=lambda flaw: flaw.row, default=None)  # of several in one row, the first rule's


def _rules(features: np.ndarray, expected: Expectation) -> Iterator[tuple[str, np.ndarray, np.ndarray, str]]:
    """Yields (feature, its values, where they break the rule, the rule), arrays [B, L]."""
    ids, mask, segments = features[:, 0], features[:, 1], features[:, 2]
    yield "input_ids", ids, (ids < 0) | (ids >= expected.vocab_size), f"0 to {expected.vocab_size - 1}"
    real = np.minimum.accumulate(mask == 1, 1)
    real[:, 0] = True
    yield "input_mask", mask, mask != real, "ones, then zeros"
    second = np.maximum.accumulate(segments == 1, 1) & real
    second[:, 0] = False
    yield "segment_ids", segments, segments != second, "zeros, then ones, and zeros in the padding"
    place = np.arange(ids.shape[1])
    yield "input_ids", ids, (place == 0) & (ids != expected.cls_id), f"[CLS] = {expected.cls_id}"
    last = place == real.sum(1, keepdims=True) - 1
    yield "input_ids", ids, last & (ids != expected.sep_id), f"[SEP] = {expected.sep_id} before the padding"


# ---- shards


@dataclass
class Statistics:
    """Counts over examples. `lengths` int64 [L + 1] and `pieces` int64 [V]: how often each length and each id occurs."""

    lengths: np.ndarray
    pieces: np.ndarray
    two_segments: int = 0

    @classmethod
    def empty(cls, expected: Expectation) -> "Statistics":
        return cls(np.zeros(expected.length + 1, np.int64), np.zeros(expected.vocab_size, np.int64))

    @property
    def examples(self) -> int:
        return int(self.lengths.sum())

    def add(self, features: np.ndarray) -> None:
        """Counts sound examples, int64 [B, 3, L]."""
        ids, mask, segments = features[:, 0], features[:, 1], features[:, 2]
        self.lengths += np.bincount(mask.sum(1), minlength=len(self.lengths))
        self.pieces += np.bincount(ids[mask == 1], minlength=len(self.pieces))
        self.two_segments += int(segments.any(1).sum())

    def merge(self, other: "Statistics") -> None:
        self.lengths += other.lengths
        self.pieces += other.pieces
        self.two_segments += other.two_segments


class ShardTask(NamedTuple):
    """A shard to check. `entry`: what the manifest says of it, {} where there is none. `limit`: records to read, None for all."""

    path: str
    entry: Mapping[str, Any]
    limit: int | None = None


class ShardReport(NamedTuple):
    """What reading a shard told; the statistics are of the records before the fault."""

    path: str
    size: int
    records: int
    fault: Fault | None
    statistics: Statistics


class Checker:
    """What one process does: checks shards."""

    def __init__(self, expected: Expectation) -> None:
        self.expected = expected

    def check(self, task: ShardTask) -> ShardReport:
        """Reads a shard up to its first bad record; one without is then compared with the manifest."""
        statistics = Statistics.empty(self.expected)
        sha256 = hashlib.sha256()
        records = size = 0
        frames = itertools.islice(read_frames(task.path), task.limit)
        fault = None
        while fault is None:
            batch, broken = _next_frames(frames)
            features, flaw = read_features(batch, self.expected.length) if batch else (None, None)
            if features is not None and len(features):
                flaw = find_misfit(features, self.expected) or flaw
                statistics.add(features[: flaw.row if flaw else None])
            if flaw:
                fault = Fault(task.path, flaw.reason, records + flaw.row, batch[flaw.row].offset)
            elif broken:
                fault = Fault(task.path, str(broken), records + len(batch), broken.offset)
            elif not batch:
                break
            records += len(batch)
            data = b"".join(part for frame in batch for part in _bytes_of(frame))
            size += len(data)
            sha256.update(data)
        if fault is None and task.limit is None:
            found = {"records": records, "bytes": size, "sha256": sha256.hexdigest()}
            fault = _compare(task, found)
        return ShardReport(task.path, tf.io.gfile.stat(task.path).length, statistics.examples, fault, statistics)


def _next_frames(frames: Iterator[Frame]) -> tuple[list[Frame], FrameError | None]:
    batch: list[Frame] = []
    try:
        for frame in itertools.islice(frames, RECORDS_AT_ONCE):
            batch.append(frame)
    except FrameError as error:
        return batch, error
    return batch, None


def _bytes_of(frame: Frame) -> tuple[bytes, ...]:
    head = len(frame.record).to_bytes(8, "little")
    return head, _check_sum(head), frame.record, frame.check_sum


def _compare(task: ShardTask, found: Mapping[str, Any]) -> Fault | None:
    """The first difference between a shard whose records are sound and its entry in the manifest."""
    name = os.path.basename(task.path)
    for key, value in found.items():
        if task.entry and task.entry.get(key) != value:
            return Fault(task.path, f"{key} {value}, expected {task.entry.get(key)} as manifest.json says of {name}")
    return None
