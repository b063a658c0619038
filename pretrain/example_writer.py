"""Examples out: from lists of token ids to TFRecord shards, shuffled, balanced and the same bytes every time.

The bytes of tf.train.Example and of the TFRecord frame are made here, without TensorFlow: importing it takes some four
seconds of processor time in every worker, more than a worker needs to write a million-word corpus, and both formats are a
few lines. The tests hold them to TensorFlow's own writer byte for byte.
"""

import functools
import hashlib
import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

RECORDS_AT_ONCE = 2048  # check sums are computed side by side over so many records


class Example(NamedTuple):
    """One training example before padding.

    ids: [CLS] first segment [SEP], and where there is a second segment: second segment [SEP].
    second: position of the second segment's first token; len(ids) without a second segment.
    """

    ids: list[int]
    second: int

    def features(self, max_length: int) -> dict[str, list[int]]:
        """The three features as written, each of `max_length` ints."""
        padding = [0] * (max_length - len(self.ids))
        return {
            "input_ids": self.ids + padding,
            "input_mask": [1] * len(self.ids) + padding,
            "segment_ids": [0] * self.second + [1] * (len(self.ids) - self.second) + padding,
        }


@dataclass(frozen=True)
class ExampleTable:
    """Many examples in three arrays. ids: unsigned [tokens], all examples end to end; lengths, seconds: int32 [examples]."""

    ids: np.ndarray
    lengths: np.ndarray
    seconds: np.ndarray

    @classmethod
    def from_examples(cls, examples: Sequence[Example]) -> "ExampleTable":
        ids = np.array([token for example in examples for token in example.ids], np.uint32)
        lengths = np.array([len(example.ids) for example in examples], np.int32)
        seconds = np.array([example.second for example in examples], np.int32)
        return cls(ids.astype(np.min_scalar_type(ids.max(initial=0))), lengths, seconds)

    @classmethod
    def concatenate(cls, tables: Sequence["ExampleTable"]) -> "ExampleTable":
        columns = zip(*((table.ids, table.lengths, table.seconds) for table in tables), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def encode(self, chosen: np.ndarray, max_length: int) -> list[bytes]:
        """The examples with the numbers `chosen`, int [any], in that order; each the bytes of a tf.train.Example.

        They equal tf.train.Example(...).SerializeToString(deterministic=True) of `Example.features(max_length)`.
        """
        packed = self._packed_ids
        columns = (chosen, self.lengths[chosen], self.seconds[chosen])
        return [
            _encode(packed[row], length, second, max_length)
            for row, length, second in zip(*(column.tolist() for column in columns), strict=True)
        ]

    @functools.cached_property
    def _packed_ids(self) -> list[bytes]:
        """The ids of every example as varints, one after the other."""
        ends = [0, *np.cumsum(self.lengths, dtype=np.int64).tolist()]
        packed = []
        for first in range(0, len(self.lengths), RECORDS_AT_ONCE):  # what a processor's cache can hold
            own = ends[first : first + RECORDS_AT_ONCE + 1]
            varints, places = _pack_varints(self.ids[own[0] : own[-1]])
            packed += [varints[places[start - own[0]] : places[stop - own[0]]] for start, stop in itertools.pairwise(own)]
        return packed


# ---- tf.train.Example: protocol buffers, https://protobuf.dev/programming-guides/encoding


def _varint(value: int) -> bytes:
    """A number in base 128, least digits first; a set top bit means "more follows"."""
    digits = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes(digit | 0x80 for digit in digits[:-1]) + bytes(digits[-1:])


def _pack_varints(values: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Numbers, unsigned [n], as varints end to end, and where each begins and the last one ends, int64 [n + 1]."""
    values = values.astype(np.uint32)
    width = len(_varint(int(values.max(initial=0))))
    digits = np.empty((len(values), width), np.uint8)
    used = np.empty((len(values), width), bool)
    sizes = np.zeros(len(values), np.int64)
    for digit in range(width):
        rest = values >> np.uint32(7 * digit)
        used[:, digit] = rest > 0 if digit else True
        digits[:, digit] = rest & 0x7F | (rest > 0x7F).view(np.uint8) << 7
        sizes += used[:, digit]
    return digits[used].tobytes(), np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _message(field: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return _head(field, len(payload)) + payload


@functools.lru_cache(maxsize=1 << 16)
def _head(field: int, size: int) -> bytes:
    return _varint(field << 3 | 2) + _varint(size)


def _feature(name: str, packed: bytes) -> bytes:
    """An entry of Features.feature: `name` -> Feature(int64_list=Int64List(value=packed))."""
    feature = _message(3, _message(1, packed))
    return _message(1, _message(1, name.encode()) + _message(2, feature))


@functools.lru_cache(maxsize=1 << 16)
def _mask_and_segments(length: int, second: int, max_length: int) -> bytes:
    padding = bytes(max_length - length)
    mask = b"\1" * length + padding
    segments = bytes(second) + b"\1" * (length - second) + padding
    return _feature("input_mask", mask) + _feature("segment_ids", segments)


def _encode(ids: bytes, length: int, second: int, max_length: int) -> bytes:
    """ids: the varints of the example's `length` ids."""
    return _message(1, _feature("input_ids", ids + bytes(max_length - length)) + _mask_and_segments(length, second, max_length))


def encode_example(example: Example, max_length: int) -> bytes:
    """One example by itself; see ExampleTable.encode."""
    return ExampleTable.from_examples([example]).encode(np.zeros(1, np.intp), max_length)[0]


# ---- TFRecord: length, masked check sum of it, data, masked check sum of it; tensorflow/core/lib/io/record_writer.h


def _crc_of_words(words: np.ndarray) -> np.ndarray:
    """CRC-32C register (Castagnoli, reflected polynomial 0x82F63B78) after 32 shifts from `words`, uint32 [any]."""
    for _ in range(32):
        words = np.where(words & 1, words >> 1 ^ np.uint32(0x82F63B78), words >> 1)
    return words


# The register is linear in its word, so a word's value is that of its low half xor that of its high half.
_CRC_LOW = _crc_of_words(np.arange(1 << 16, dtype=np.uint32))
_CRC_HIGH = _crc_of_words(np.arange(1 << 16, dtype=np.uint32) << 16)


def masked_crcs(records: Sequence[bytes]) -> np.ndarray:
    """The masked CRC-32C of each record of at least 4 bytes, uint32 [records]; word by word, but for all records at once.

    Starting from all ones equals starting from zero with the first word inverted, and zeros before the first word then change
    nothing: so records of any lengths line up at their ends.
    """
    width = -(-max(map(len, records)) // 4) * 4
    padded = bytearray().join(record.rjust(width, b"\0") for record in records)
    data = np.frombuffer(padded, np.uint8).reshape(len(records), width)
    starts = width - np.array([len(record) for record in records])
    data[np.arange(len(records))[:, None], starts[:, None] + np.arange(4)] ^= 0xFF
    crcs = np.zeros(len(records), np.uint32)
    for column in np.ascontiguousarray(data.view("<u4").T):  # [width / 4, records]
        crcs ^= column
        crcs = _CRC_LOW[crcs & 0xFFFF] ^ _CRC_HIGH[crcs >> 16]
    crcs = ~crcs
    return (crcs >> 15 | crcs << 17) + np.uint32(0xA282EAD8)


@functools.lru_cache(maxsize=1 << 16)
def _frame_head(length: int) -> bytes:
    head = struct.pack("<Q", length)
    return head + masked_crcs([head]).tobytes()


def frame_records(records: Sequence[bytes]) -> bytes:
    """The bytes that tf.io.TFRecordWriter writes for `records`."""
    checks = masked_crcs(records).astype("<u4").tobytes()
    return b"".join(
        part for i, record in enumerate(records) for part in (_frame_head(len(record)), record, checks[4 * i : 4 * i + 4])
    )


class ExampleWriter:
    """Writes one shard: `write` as often as needed, then `close`, which returns what the manifest says of the shard."""

    def __init__(self, path: str, max_length: int) -> None:
        self._file = open(path, "wb")
        self._max_length = max_length
        self._records = 0
        self._bytes = 0
        self._sha256 = hashlib.sha256()

    def write(self, table: ExampleTable, chosen: np.ndarray) -> None:
        """Appends the examples of `table` with the numbers `chosen`, int [any], in that order."""
        encoded = table.encode(chosen, self._max_length)
        for start in range(0, len(encoded), RECORDS_AT_ONCE):
            data = frame_records(encoded[start : start + RECORDS_AT_ONCE])
            self._file.write(data)
            self._sha256.update(data)
            self._bytes += len(data)
        self._records += len(encoded)

    def close(self) -> dict[str, str | int]:
        self._file.close()
        return {"records": self._records, "bytes": self._bytes, "sha256": self._sha256.hexdigest()}
