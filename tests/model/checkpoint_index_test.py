"""model/checkpoint_index.py: indexes with right check sums and wrong content, on some of which TensorFlow would end this process."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

from model import checkpoint
from model.command import DataError
from pretrain.example_writer import masked_crcs

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
FLOAT, FLOAT_REF = 1, 101


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def block(entries: list[tuple[bytes, bytes]], restart: int = 0) -> bytes:
    content = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    return content + restart.to_bytes(4, "little") + (1).to_bytes(4, "little")


def table(entries: list[tuple[bytes, bytes]], restart: int = 0, kind: bytes = b"\0") -> bytes:
    """What TensorFlow's tables are: one block of entries, one without any, one that says where the first lies, and a footer."""
    data, handles = b"", []

    def add(content: bytes, kind: bytes = b"\0") -> None:
        nonlocal data
        handles.append(varint(len(data)) + varint(len(content)))
        data += content + kind + masked_crcs([content + kind]).astype("<u4").tobytes()

    add(block(entries, restart), kind)
    add(block([]))
    add(block([(b"\xff", handles[0])]))
    return data + (handles[1] + handles[2]).ljust(40, b"\0") + MAGIC


def write(folder, *sizes: int, dtype: int = FLOAT, unknown_rank: bool = False, fields: dict | None = None, **options) -> str:
    """A checkpoint of one variable "v" of this shape and type; its data are six numbers. `fields`: what its entry says besides."""
    values = np.arange(6, dtype=np.float32).tobytes()
    entry = BundleEntryProto(**{"dtype": dtype, "size": len(values), "crc32c": int(masked_crcs([values])[0])} | (fields or {}))
    entry.shape.unknown_rank = unknown_rank
    for size in sizes:
        entry.shape.dim.add(size=size)
    header = BundleHeaderProto(num_shards=1)
    header.version.producer = 1
    prefix = folder / "model.ckpt-1"
    (folder / "model.ckpt-1.data-00000-of-00001").write_bytes(values)
    entries = [(b"", header.SerializeToString()), (b"v", entry.SerializeToString())]
    (folder / "model.ckpt-1.index").write_bytes(table(entries, **options))
    return str(prefix)


def test_what_is_written_here_is_a_checkpoint(tmp_path):
    """Or the tests below would test nothing."""
    prefix = write(tmp_path, 2, 3)
    assert checkpoint.read_shapes(prefix) == {"v": [2, 3]}
    np.testing.assert_array_equal(checkpoint.read(prefix, ["v"])["v"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    "sizes, options, words",
    [
        ([-2, 3], {}, "'v' has an impossible shape"),
        ([-2, -3], {}, "'v' has an impossible shape"),
        ([2**40, 2**40], {}, "'v' has an impossible shape"),
        ([2**62], {}, "'v' has an impossible shape"),
        ([1] * 255, {}, "'v' has an impossible shape"),
        ([], {"unknown_rank": True}, "'v' has an impossible shape"),
        ([2, 3], {"dtype": 999}, "'v' has the unknown type 999"),
        ([2, 3], {"dtype": 0}, "'v' has the unknown type 0"),
        ([2, 3], {"dtype": FLOAT_REF}, "'v' has the unknown type 101"),
        ([2, 3], {"restart": 7}, "no index of a checkpoint"),
        ([2, 3], {"kind": b"\1"}, "compressed"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(tmp_path, sizes, options, words):
    prefix = write(tmp_path, *sizes, **options)
    with pytest.raises(DataError, match=words):
        checkpoint.read_shapes(prefix)
    with pytest.raises(DataError, match=words):
        checkpoint.read(prefix, ["v"])


SMALL, ANY = st.integers(-1, 6), st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(SMALL | ANY, max_size=4),
    dtype=st.just(FLOAT) | st.integers(0, 140),
    fields=st.fixed_dictionaries({}, optional={"size": SMALL | ANY, "offset": SMALL | ANY, "shard_id": SMALL}),
    extents=st.lists(st.tuples(SMALL | ANY, SMALL | ANY), max_size=3),
)
def test_whatever_an_entry_says_it_is_read_or_refused(tmp_path, sizes, dtype, fields, extents):
    if extents:
        fields |= {"slices": [{"extent": [{"start": start, "length": length} for start, length in extents]}]}
    prefix = write(tmp_path, *sizes, dtype=dtype, fields=fields)
    with contextlib.suppress(DataError):
        assert checkpoint.read_shapes(prefix) == {"v": sizes}
        assert list(checkpoint.read(prefix, ["v"])["v"].shape) == sizes


@pytest.mark.parametrize("change", ["cut", "handle", "entry"])
def test_a_structure_that_leads_nowhere_is_refused(tmp_path, change):
    prefix = write(tmp_path, 2, 3)
    index = tmp_path / "model.ckpt-1.index"
    data = index.read_bytes()
    footer = {"cut": b"", "handle": (varint(2**40) * 4).ljust(40, b"\0") + MAGIC, "entry": b"\xff" * 48}[change]
    index.write_bytes(data[:-48] + footer if footer else data[:30])
    with pytest.raises(DataError, match="cannot be read: it is"):
        checkpoint.read_shapes(prefix)


def test_parts_of_a_variable_that_was_split_are_no_shape(tmp_path):
    """A variable of many parts, as TensorFlow's partitioners make them."""
    parts = tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "model.ckpt-1"),
        tensor_names=["v"] * 40,
        shape_and_slices=[f"40 3 {part},1:0,3" for part in range(40)],
        tensors=[tf.fill([1, 3], float(part)) for part in range(40)],
    )
    assert parts is None
    assert checkpoint.read_shapes(str(tmp_path / "model.ckpt-1")) == {"v": [40, 3]}
    np.testing.assert_array_equal(checkpoint.read(str(tmp_path / "model.ckpt-1"), ["v"])["v"][:, 0], np.arange(40))
