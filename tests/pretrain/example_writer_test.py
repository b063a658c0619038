import hashlib

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.example_writer import Example, ExampleTable, ExampleWriter, encode_example, frame_records, masked_crcs


@st.composite
def examples(draw):
    ids = draw(st.lists(st.integers(0, 2**31), min_size=2, max_size=40))
    return Example(ids, draw(st.integers(1, len(ids))))


def by_tensorflow(example: Example, max_length: int) -> bytes:
    features = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=values)) for name, values in example.features(max_length).items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def test_features_by_hand():
    assert Example([2, 7, 3, 8, 9, 3], 3).features(8) == {
        "input_ids": [2, 7, 3, 8, 9, 3, 0, 0],
        "input_mask": [1, 1, 1, 1, 1, 1, 0, 0],
        "segment_ids": [0, 0, 0, 1, 1, 1, 0, 0],
    }


@given(examples(), st.integers(40, 300))
@settings(max_examples=200, deadline=None)
def test_encoding_equals_protocol_buffers_of_tensorflow(example, max_length):
    assert encode_example(example, max_length) == by_tensorflow(example, max_length)


def test_crc_by_known_values():
    """CRC-32C of the RFC 3720 test patterns, B.4, masked as TensorFlow does."""
    records = [bytes(32), b"\xff" * 32, bytes(range(32)), b"123456789"]
    known = [0x8A9136AA, 0x62A8AB43, 0x46DD794E, 0xE3069283]
    masked = [((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF for crc in known]
    assert masked_crcs(records).tolist() == masked


@given(st.lists(st.binary(min_size=4, max_size=50), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_framing_equals_the_record_writer_of_tensorflow(tmp_path_factory, records):
    path = str(tmp_path_factory.getbasetemp() / "records")
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    with open(path, "rb") as file:
        assert frame_records(records) == file.read()


def test_shard_is_what_tensorflow_would_write_and_reads_back(tmp_path):
    generator = np.random.default_rng(1)
    made = [Example([2, *generator.integers(5, 40000, size).tolist(), 3], int(generator.integers(1, size))) for size in range(2, 60)]
    writer = ExampleWriter(str(tmp_path / "shard"), 64)
    table = ExampleTable.from_examples(made)
    writer.write(table, np.arange(20))
    writer.write(table, np.arange(20, len(made)))
    entry = writer.close()
    with tf.io.TFRecordWriter(str(tmp_path / "expected")) as expected:
        for example in made:
            expected.write(by_tensorflow(example, 64))
    data = (tmp_path / "shard").read_bytes()
    assert data == (tmp_path / "expected").read_bytes()
    assert entry == {"records": len(made), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    spec = {name: tf.io.FixedLenFeature([64], tf.int64) for name in ("input_ids", "input_mask", "segment_ids")}
    for record, example in zip(tf.data.TFRecordDataset(str(tmp_path / "shard")), made, strict=True):
        parsed = tf.io.parse_single_example(record, spec)
        assert {name: values.numpy().tolist() for name, values in parsed.items()} == example.features(64)


def test_table_encodes_the_rows_asked_for():
    first = [Example([2, 300, 3], 3), Example([2, 5, 3, 70000, 3], 3)]
    second = [Example([2, 9, 3], 3)]
    table = ExampleTable.concatenate([ExampleTable.from_examples(part) for part in (first, [], second)])
    assert table.encode(np.array([2, 0, 1]), 8) == [by_tensorflow(example, 8) for example in (second[0], first[0], first[1])]
    assert table.encode(np.array([], np.int64), 8) == []


@given(st.lists(examples(), max_size=8))
@settings(max_examples=100, deadline=None)
def test_tables_equal_protocol_buffers_of_tensorflow(made):
    table = ExampleTable.from_examples(made)
    assert table.encode(np.arange(len(made)), 64) == [by_tensorflow(example, 64) for example in made]
