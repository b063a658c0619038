"""Every way in which a shard can be bad, planted in a small one and named with its record and byte."""

import hashlib
import pathlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pretrain.example_writer import frame_records
from pretrain.record_checker import Checker, Expectation, Fault, ShardReport, ShardTask

GOOD = {"input_ids": [2, 5, 3, 6, 3, 0, 0], "input_mask": [1] * 5 + [0] * 2, "segment_ids": [0, 0, 0, 1, 1, 0, 0]}
SEGMENTS = "expected zeros, then ones, and zeros in the padding"


def example(**changes: list[int] | None) -> bytes:
    """GOOD with other features; None leaves one out."""
    values = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    feature = {name: tf.train.Feature(int64_list=tf.train.Int64List(value=value)) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


FRAME = 16 + len(example())  # bytes of a sound record with its frame


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    return tmp_path / "shard"


def write(path: pathlib.Path, *records: bytes) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def check(path: pathlib.Path, entry: dict[str, Any] | None = None, limit: int | None = None) -> ShardReport:
    return Checker(Expectation(7, vocab_size=16, cls_id=2, sep_id=3)).check(ShardTask(str(path), entry or {}, limit))


def flip(path: pathlib.Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def test_a_sound_shard(path):
    write(path, *[example()] * 3, example(input_ids=[2, 5, 3, 0, 0, 0, 0], input_mask=[1] * 3 + [0] * 4, segment_ids=[0] * 7))
    report = check(path)
    assert (report.path, report.size, report.records, report.fault) == (str(path), path.stat().st_size, 4, None)
    assert report.statistics.lengths.tolist() == [0, 0, 0, 1, 0, 3, 0, 0]
    assert report.statistics.pieces.tolist() == [0, 0, 4, 7, 0, 4, 3] + [0] * 9
    assert report.statistics.two_segments == 3
    assert check(path, limit=2).records == 2


def test_a_flipped_byte_of_the_data(path):
    write(path, *[example()] * 5)
    flip(path, 3 * FRAME + 12 + 20)
    damaged = path.read_bytes()[3 * FRAME + 12 : 4 * FRAME - 4]
    found, written = (frame_records([record])[-4:][::-1].hex() for record in (damaged, example()))
    report = check(path)
    assert report.fault == Fault(
        str(path), f"the check sum of its data is 0x{found}, expected 0x{written} as written", record=3, offset=3 * FRAME
    )
    assert report.records == 3


def test_a_flipped_byte_of_the_length(path):
    write(path, *[example()] * 5)
    flip(path, 3 * FRAME)
    length = len(example())
    damaged, sound = (number.to_bytes(8, "little") for number in (length ^ 0x10, length))
    found, written = (frame_records([head])[-4:][::-1].hex() for head in (damaged, sound))
    reason = f"the check sum of its length {length ^ 0x10} is 0x{found}, expected 0x{written} as written"
    assert check(path).fault == Fault(str(path), reason, record=3, offset=3 * FRAME)


@pytest.mark.parametrize(("kept", "needed"), [(1, 16), (11, 16), (12, FRAME), (30, FRAME), (FRAME - 1, FRAME)])
def test_a_cut_off_file(path, kept, needed):
    write(path, *[example()] * 5)
    path.write_bytes(path.read_bytes()[: 3 * FRAME + kept])
    reason = f"it is cut off: the file ends at byte {3 * FRAME + kept}, expected at least {3 * FRAME + needed}"
    assert str(check(path).fault) == f"record 3 of {path}, from byte {3 * FRAME}: {reason}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({name: values[:6] for name, values in GOOD.items()}, "input_ids holds 6 numbers, expected 7"),
        ({"segment_ids": [0] * 8}, "segment_ids holds 8 numbers, expected 7"),
        ({"input_mask": None}, "input_mask holds nothing, expected 7 int64"),
        ({"input_ids": [2, 16, 3, 6, 3, 0, 0]}, "input_ids[1] is 16, expected 0 to 15"),
        ({"input_ids": [2, 5, 3, -1, 3, 0, 0]}, "input_ids[3] is -1, expected 0 to 15"),
        ({"input_ids": [2, 2**40, 3, 6, 3, 0, 0]}, f"input_ids[1] is {2**40}, expected 0 to 15"),
        ({"input_mask": [1, 1, 0, 1, 1, 0, 0]}, "input_mask[3] is 1, expected ones, then zeros"),
        ({"input_mask": [1, 1, 2, 1, 1, 0, 0]}, "input_mask[2] is 2, expected ones, then zeros"),
        ({"input_mask": [0] * 7}, "input_mask[0] is 0, expected ones, then zeros"),
        ({"segment_ids": [0, 0, 0, 1, 0, 0, 0]}, f"segment_ids[4] is 0, {SEGMENTS}"),
        ({"segment_ids": [0, 0, 0, 1, 1, 1, 0]}, f"segment_ids[5] is 1, {SEGMENTS}"),
        ({"segment_ids": [1, 1, 1, 1, 1, 0, 0]}, f"segment_ids[0] is 1, {SEGMENTS}"),
        ({"segment_ids": [0, 0, 0, 2, 2, 0, 0]}, f"segment_ids[3] is 2, {SEGMENTS}"),
        ({"input_ids": [5, 5, 3, 6, 3, 0, 0]}, "input_ids[0] is 5, expected [CLS] = 2"),
        ({"input_ids": [2, 5, 3, 6, 6, 0, 0]}, "input_ids[4] is 6, expected [SEP] = 3 before the padding"),
    ],
)
def test_an_example_that_pretraining_could_not_use(path, changes, reason):
    bad = example(**changes)
    write(path, example(), example(), bad, example(), bad)
    report = check(path)
    assert report.fault == Fault(str(path), reason, record=2, offset=2 * FRAME)
    assert report.records == 2 and report.statistics.examples == 2


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"\xff\xfe not an example", "it is not a tf.train.Example"),
        (b"abc", "it is 3 bytes long, too short for an example"),
        (b"", "it is 0 bytes long, too short for an example"),
        (tf.train.Example().SerializeToString() + b"\x0a\x02\x0a\x00", "input_ids holds nothing, expected 7 int64"),
    ],
)
def test_a_record_that_is_no_example(path, record, reason):
    write(path, example(), record, example())
    assert check(path).fault == Fault(str(path), reason, record=1, offset=FRAME)


def test_floats_are_no_ids(path):
    bad = tf.train.Example.FromString(example())
    bad.features.feature["input_mask"].CopyFrom(tf.train.Feature(float_list=tf.train.FloatList(value=[1.0] * 7)))
    write(path, example(), bad.SerializeToString())
    assert check(path).fault == Fault(str(path), "input_mask holds floats, expected 7 int64", record=1, offset=FRAME)


def test_other_features_and_unpacked_numbers_are_fine(path):
    """As writers other than ours may leave them."""
    record = tf.train.Example.FromString(example())
    record.features.feature["document"].bytes_list.value.append("한국어".encode())
    write(path, record.SerializeToString(), example())
    assert check(path).fault is None


NO_MASK, SHORT = example(input_mask=[0] * 7), example(input_mask=[1])


@pytest.mark.parametrize(
    ("bad", "flipped", "number"),
    [((NO_MASK, SHORT), True, 5000), ((SHORT, NO_MASK), True, 5000), ((example(), NO_MASK), True, 5001), ((), True, 4999)],
)
def test_the_first_bad_record_is_named_whatever_is_wrong_with_it(path, bad, flipped, number):
    """Of misfits, unreadable records and damaged ones in one batch, and beyond the first batch."""
    write(path, *[example()] * 5000, *bad)
    flip(path, path.stat().st_size - 6)
    fault = check(path).fault
    assert fault and (fault.record, fault.offset) == (number, number * FRAME)


def test_the_manifest_is_compared(path):
    write(path, *[example()] * 3)
    entry = {"records": 3, "bytes": 3 * FRAME, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert check(path, entry).fault is None
    assert str(check(path, {**entry, "records": 2}).fault) == f"{path}: records 3, expected 2 as manifest.json says of shard"
    write(path, *[example()] * 2, example(input_ids=[2, 5, 3, 7, 3, 0, 0]))
    other = hashlib.sha256(path.read_bytes()).hexdigest()
    assert check(path, entry).fault == Fault(str(path), f"sha256 {other}, expected {entry['sha256']} as manifest.json says of shard")


def test_an_empty_file(path):
    path.write_bytes(b"")
    assert check(path).fault is None and not np.any(check(path).statistics.lengths)
