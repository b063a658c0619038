"""Looks through the index of a checkpoint before TensorFlow does, which ends the process on some that were forged.

The format is TensorFlow's (tensorflow/core/lib/io/table, that of LevelDB): blocks of sorted keys, one that says where they lie, and
a footer that says where that one lies. A value is a BundleHeaderProto under the empty key, else a BundleEntryProto under a variable's name.
"""

import math
from collections.abc import Iterator

from google.protobuf.message import DecodeError
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

_FOOTER_BYTES, _MAX_DIMENSIONS, _MAX_SIZE = 48, 254, 2**59  # elements, so that bytes do not overflow
_PLAIN = 0  # a block that is not compressed; TensorFlow has written no other in checkpoints since its release 1.2
_TYPES = {number for name, number in DataType.items() if name != "DT_INVALID" and not name.endswith("_REF")}


class BadIndex(ValueError):
    """The index is not one, or names a variable that cannot be."""


def check(data: bytes) -> None:
    """Raises BadIndex if `data`, the content of an index file, is damaged in its structure or has an impossible shape or type."""
    try:
        for name, value in _entries(data):
            if name:
                _check_entry(name, BundleEntryProto.FromString(value))
    except (IndexError, DecodeError) as error:
        raise BadIndex(f"it is no index of a checkpoint ({type(error).__name__})") from error


def _check_entry(name: bytes, entry: BundleEntryProto) -> None:
    sizes = [dimension.size for dimension in entry.shape.dim]
    extents = [number for part in entry.slices for extent in part.extent for number in (extent.start, extent.length)]
    is_possible = not entry.shape.unknown_rank and len(sizes) <= _MAX_DIMENSIONS and min([*sizes, *extents], default=0) >= 0
    if not is_possible or math.prod(max(size, 1) for size in sizes) > _MAX_SIZE:
        raise BadIndex(f"variable {name.decode(errors='replace')!r} has an impossible shape")
    if entry.dtype not in _TYPES:
        raise BadIndex(f"variable {name.decode(errors='replace')!r} has the unknown type {entry.dtype}")


def _entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of every entry."""
    footer = data[-_FOOTER_BYTES:]
    place = 0
    for _ in range(2):  # past the handle of the meta index, which checkpoints leave empty
        _, place = _varint(footer, place)
    for _, handle in _block(data, footer[place:]):
        yield from _block(data, handle)


def _block(data: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of every entry of the block at `handle`, its offset and size."""
    offset, place = _varint(handle, 0)
    size, _ = _varint(handle, place)
    if data[offset + size] != _PLAIN:
        raise BadIndex("it is compressed, as by TensorFlow before 1.2")
    block = data[offset : offset + size]
    end = len(block) - 4 * (int.from_bytes(block[-4:], "little") + 1)
    # Where TensorFlow begins to read: at the begin of entries, or it would see others than these.
    begins = {int.from_bytes(block[place : place + 4], "little") for place in range(max(end, 0), len(block) - 4, 4)}
    place, key = 0, b""
    while place < end:
        begins.discard(place)
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        length, place = _varint(block, place)
        if place + own + length > end:
            raise IndexError("an entry ends beyond its block")
        key, place = key[:shared] + block[place : place + own], place + own + length
        yield key, block[place - length : place]
    if begins - {0}:
        raise IndexError("a restart point is no begin of an entry")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at `place` in seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[place]
        value, place, shift = value | (byte & 127) << shift, place + 1, shift + 7
        if byte < 128:
            return value, place
