import json
import os

import numpy as np
import pytest
import tensorflow as tf

from model.command import DataError, UserError
from model.estimator import InputContext
from pretrain import pretrain_data
from pretrain.pretrain_data import Inputs, RecordSet, eval_input_fn, explained, features_to_inputs, find_records, train_input_fn

LENGTH = 6
NO_EXAMPLE = b"\xff\xff not an example"  # TensorFlow's own message about it is no UTF-8
TOKENIZER = {"tokenizer_type": "wordpiece", "vocab_sha256": "ab", "vocab_size": 500}


def example(number, length=LENGTH, **features):
    """A serialized example that holds its number: [CLS] number [SEP] padding."""
    padding = [0] * (length - 3)
    values = {"input_ids": [2, 10 + number, 3, *padding], "input_mask": [1, 1, 1, *padding], "segment_ids": [0, 0, 1, *padding], **features}
    feature = {name: tf.train.Feature(int64_list=tf.train.Int64List(value=value)) for name, value in values.items() if value}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def write_shards(folder, counts, prefix="pretrain_data", records=None):
    """Shards with examples numbered through; returns their paths."""
    folder.mkdir(exist_ok=True)
    paths, number = [], 0
    for index, count in enumerate(counts):
        paths.append(str(folder / f"{prefix}.tfrecord-{index:05d}-of-{len(counts):05d}"))
        with tf.io.TFRecordWriter(paths[-1]) as writer:
            for _ in range(count):
                writer.write(example(number) if records is None else records[number])
                number += 1
    return paths


def write_manifest(folder, train, held_out=(), counts=None, **changes):
    """The manifest.json that build_pretraining_dataset.py leaves beside the shards."""

    def shards(paths):
        return [
            {"file": os.path.basename(path), "records": (counts or {}).get(path, 0) or count(path), "bytes": os.path.getsize(path)}
            for path in paths
        ]

    def count(path):
        return sum(1 for _ in tf.data.TFRecordDataset(path))

    manifest = {"format_version": 1, "max_seq_length": LENGTH, "tokenizer": TOKENIZER, "train": {"shards": shards(train)}}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "eval": {"shards": shards(held_out)}, **changes}))


def data_set(folder, counts):
    return RecordSet(write_shards(folder, counts), list(counts), {}, -1)


def batches(records, size, number, start=0, seed=7):
    """The example numbers in `number` batches from `start` on."""
    dataset = train_input_fn(records, LENGTH, seed)(InputContext(size, start))
    return [(features["input_ids"].numpy()[:, 1] - 10).tolist() for features in dataset.take(number)]


def flip_byte(path, offset):
    data = bytearray(open(path, "rb").read())
    data[offset] ^= 1
    with open(path, "wb") as file:
        file.write(data)


# --- order --------------------------------------------------------------------------------------------------------------------


def test_features_are_int32_and_batches_have_positions(tmp_path):
    features = next(iter(train_input_fn(data_set(tmp_path, [4]), LENGTH, 7)(InputContext(3))))
    assert {name: (value.dtype, value.shape.as_list()) for name, value in features.items()} == {
        "input_ids": (tf.int32, [3, LENGTH]),
        "input_mask": (tf.int32, [3, LENGTH]),
        "segment_ids": (tf.int32, [3, LENGTH]),
        "position": (tf.int64, [3]),
    }
    assert features["position"].numpy().tolist() == [0, 1, 2]
    assert features["input_mask"].numpy()[0].tolist() == [1, 1, 1, 0, 0, 0] and features["segment_ids"].numpy()[0].tolist() == [
        0,
        0,
        1,
        0,
        0,
        0,
    ]


@pytest.mark.parametrize("window, size", [(1, 4), (5, 7), (11, 1), (65536, 4)])
def test_fixed_order_is_a_function_of_seed_and_step_alone(tmp_path, monkeypatch, window, size):
    """A run from step k sees what a run from 0 sees from k on, over windows of shards and epochs; 17 records an epoch."""
    monkeypatch.setattr(pretrain_data, "_WINDOW_RECORDS", window)
    records = data_set(tmp_path, [5, 1, 4, 3, 4])
    whole = batches(records, size, 40)
    for start in (1, 2, 4, 9, 17, 33):
        assert batches(records, size, 5, start) == whole[start : start + 5]


@pytest.mark.parametrize("window", [1, 11, 65536])
def test_every_record_comes_exactly_once_per_epoch(tmp_path, monkeypatch, window):
    monkeypatch.setattr(pretrain_data, "_WINDOW_RECORDS", window)
    order = [number for batch in batches(data_set(tmp_path, [5, 1, 4, 3, 4]), 4, 17) for number in batch]  # four epochs
    epochs = [order[start : start + 17] for start in range(0, 68, 17)]
    assert all(sorted(epoch) == list(range(17)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_seeds_differ_and_records_do_not_come_as_they_lie(tmp_path):
    records = data_set(tmp_path, [20, 20])
    first, again, other = (batches(records, 40, 1, seed=seed)[0] for seed in (7, 7, 8))
    assert first == again and first != other
    assert first != sorted(first) and abs(np.corrcoef(first, range(40))[0, 1]) < 0.5


def test_records_are_shuffled_within_windows_of_whole_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain_data, "_WINDOW_RECORDS", 20)
    order = np.array(batches(data_set(tmp_path, [10] * 6), 60, 1)[0])
    windows = [set(order[start : start + 20] // 10) for start in (0, 20, 40)]
    assert all(len(window) == 2 for window in windows) and set.union(*windows) == set(range(6))
    assert any(np.any(np.diff(order[start : start + 20] // 10) < 0) for start in (0, 20, 40))  # the two shards are mixed


def test_a_run_that_goes_on_leaves_the_windows_before_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain_data, "_WINDOW_RECORDS", 10)
    records = data_set(tmp_path, [10] * 4)
    first, *rest = batches(records, 10, 4)
    os.remove(records.files[first[0] // 10])
    assert batches(records, 10, 3, start=1) == rest


def test_the_order_does_not_depend_on_where_the_data_lie(tmp_path):
    assert batches(data_set(tmp_path / "a", [9, 8]), 5, 7) == batches(data_set(tmp_path / "b", [9, 8]), 5, 7)


# --- several workers -----------------------------------------------------------------------------------------------------------


def rows_of(worker, workers, records, streams, number, start=0, size=8):
    """(position, example number) of the rows that a worker gets in `number` batches."""
    dataset = train_input_fn(records, LENGTH, 7, streams)(InputContext(size, start, worker=worker, workers=workers))
    batches = [(features["position"].numpy().tolist(), features["input_ids"].numpy()[:, 1].tolist()) for features in dataset.take(number)]
    return [[(position, number - 10) for position, number in zip(*batch, strict=True)] for batch in batches]


@pytest.mark.parametrize("worker, own", [(0, (0, 3)), (1, (1, 2))])
def test_a_worker_reads_only_the_shards_of_its_streams(tmp_path, worker, own):
    """The others' shards are not even there. Of 5, 4, 4 and 3 examples it gets two epochs of 8."""
    records, shard_of = data_set(tmp_path, [5, 4, 4, 3]), np.repeat([0, 1, 2, 3], [5, 4, 4, 3])
    for place in {0, 1, 2, 3} - set(own):
        os.remove(records.files[place])
    rows = rows_of(worker, 2, records, 2, 4)
    assert all([position for position, _ in batch] == list(range(4 * worker, 4 * worker + 4)) for batch in rows)
    numbers = [number for batch in rows for _, number in batch]
    examples = [number for number in range(16) if shard_of[number] in own]
    assert sorted(numbers[:8]) == sorted(numbers[8:]) == examples and numbers[:8] != numbers[8:]


@pytest.mark.parametrize("streams, workers", [(2, 2), (4, 2), (4, 4), (1, 2), (1, 4)])
def test_however_many_workers_share_the_streams_the_batches_are_the_same(tmp_path, streams, workers):
    """Also from step 3 on, and where one stream is read by all."""
    records = data_set(tmp_path, [5, 3, 4, 4, 6, 2, 4, 4])
    (alone,) = [rows_of(0, 1, records, streams, 9)]
    for start in (0, 3):
        shares = [rows_of(worker, workers, records, streams, 6, start) for worker in range(workers)]
        assert [sum(parts, []) for parts in zip(*shares, strict=True)] == alone[start : start + 6]
    assert [position for position, _ in alone[0]] == list(range(8))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_several_workers_evaluate_every_example_once(tmp_path, workers):
    records, found = data_set(tmp_path, [5, 0, 4]), []
    for worker in range(workers):
        for features in eval_input_fn(records, LENGTH)(InputContext(4, worker=worker, workers=workers)):
            real = features["is_real"].numpy() == 1
            found += zip(features["position"].numpy()[real].tolist(), (features["input_ids"].numpy()[real, 1] - 10).tolist(), strict=True)
    assert sorted(found) == [(number, number) for number in range(9)]


# --- evaluation ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4, 9])
def test_fixed_evaluation_counts_every_example_once_and_fills_up_the_last_batch(tmp_path, size):
    records = data_set(tmp_path, [5, 0, 4])
    found = list(eval_input_fn(records, LENGTH)(InputContext(size)))
    assert len(found) == -(-9 // size) and all(features["input_ids"].shape == (size, LENGTH) for features in found)
    flat = {name: np.concatenate([features[name].numpy() for features in found]) for name in found[0]}
    real = flat["is_real"] == 1
    assert (flat["input_ids"][real][:, 1] - 10).tolist() == list(range(9)) and real.sum() == 9
    assert flat["position"].tolist() == list(range(len(real))) and flat["is_real"].dtype == np.float32
    assert not flat["input_mask"][~real].any()


def test_rows_that_fill_up_a_batch_have_nothing_in_their_mask():
    ids, mask = tf.constant([[2, 9, 3], [2, 9, 3]]), tf.ones([2, 3], tf.int32)
    features = {"input_ids": ids, "input_mask": mask, "segment_ids": tf.zeros_like(ids), "is_real": tf.constant([1.0, 0.0])}
    inputs = features_to_inputs(features)
    assert isinstance(inputs, Inputs) and inputs.input_mask.numpy().tolist() == [[1, 1, 1], [0, 0, 0]]


# --- finding records ----------------------------------------------------------------------------------------------------------


def test_a_data_set_is_found_by_its_manifest_unread(tmp_path):
    train, held_out = write_shards(tmp_path, [3, 2]), write_shards(tmp_path, [1], "eval_data")
    write_manifest(tmp_path, train, held_out, counts={train[0]: 18})  # a count that only the manifest can have told
    (tmp_path / "pretrain_data.tfrecord-00001-of-00002.tmp-12").write_text("half a shard")
    found = find_records(f"{tmp_path}/pretrain_data*", "pretrain_tfrecords", LENGTH)
    assert found == RecordSet(train, [18, 2], TOKENIZER, -1) and found.total == 20
    assert find_records(f"{tmp_path}/eval_data*", "eval_tfrecords", LENGTH).counts == [1]


def test_a_data_set_of_the_originals_builder_has_no_manifest_and_is_counted(tmp_path):
    """google-research/electra writes 1000 shards, empty ones among them."""
    paths = write_shards(tmp_path, [3, 0, 2])
    assert find_records(f"{tmp_path}/pretrain_data*", "pretrain_tfrecords", LENGTH) == RecordSet(paths, [3, 0, 2], {}, 14)


def test_patterns_may_be_several_and_folders_too(tmp_path):
    first, second = write_shards(tmp_path / "a", [3]), write_shards(tmp_path / "b", [2])
    write_manifest(tmp_path / "a", first)
    write_manifest(tmp_path / "b", second)
    assert find_records(f"{tmp_path}/b/*.tfrecord*, {tmp_path}/a/*.tfrecord*", "flag", LENGTH).counts == [3, 2]
    assert find_records(f"{tmp_path}/*/pretrain*,{tmp_path}/a/pretrain*", "flag", LENGTH).files == [*first, *second]
    write_manifest(tmp_path / "b", second, tokenizer={**TOKENIZER, "vocab_sha256": "cd"})
    with pytest.raises(UserError, match=r"vocab_sha256 is 'ab' in .*/a but 'cd' in .*/b \(--flag\)"):
        find_records(f"{tmp_path}/*/pretrain*", "flag", LENGTH)


def test_a_folder_whose_name_looks_temporary_is_found(tmp_path):
    paths = write_shards(tmp_path / "x.tmpdir", [2])
    assert find_records(f"{tmp_path}/x.tmpdir/pretrain*", "flag", LENGTH).files == paths


@pytest.mark.parametrize("pattern", ["", "pretrain*", "missing/pretrain*"])
def test_nothing_found(tmp_path, pattern):
    with pytest.raises(UserError, match=r"no TFRecord files match .*build_pretraining_dataset.py or set --pretrain_tfrecords"):
        find_records(pattern and f"{tmp_path}/{pattern}", "pretrain_tfrecords", LENGTH)


def test_no_examples(tmp_path):
    write_shards(tmp_path, [0, 0])
    with pytest.raises(UserError, match=r"hold no examples \(--eval_tfrecords\)"):
        find_records(f"{tmp_path}/pretrain*", "eval_tfrecords", LENGTH)


@pytest.mark.parametrize("with_manifest", [True, False])
def test_another_length_is_refused_with_both_named(tmp_path, with_manifest):
    paths = write_shards(tmp_path, [2])
    if with_manifest:
        write_manifest(tmp_path, paths)
    with pytest.raises(UserError, match=r"max_seq_length 6, but this run has 9: set --max_seq_length=6 or rebuild") as caught:
        find_records(f"{tmp_path}/pretrain*", "pretrain_tfrecords", 9)
    assert caught.value.exit_code == 2


def test_a_shard_that_the_manifest_does_not_know_is_refused(tmp_path):
    paths = write_shards(tmp_path, [2, 2])
    write_manifest(tmp_path, paths[:1])
    with pytest.raises(UserError, match=r"-00001-of-00002 is not in the manifest.json.*--eval_tfrecords"):
        find_records(f"{tmp_path}/pretrain*", "eval_tfrecords", LENGTH)


def test_a_shard_that_is_missing_is_named(tmp_path):
    paths = write_shards(tmp_path, [2, 2])
    write_manifest(tmp_path, paths)
    os.remove(paths[1])
    with pytest.raises(DataError, match=rf"^{paths[1]} is missing, but manifest.json lists it"):
        find_records(f"{tmp_path}/pretrain*", "pretrain_tfrecords", LENGTH)
    assert find_records(paths[0], "pretrain_tfrecords", LENGTH).counts == [2]  # asked for alone, it is all that is wanted


@pytest.mark.parametrize("text, message", [("{", "is not JSON"), ("[]", "is not a manifest"), ('{"a": 1}', "is not a manifest")])
def test_a_manifest_that_is_none_is_refused(tmp_path, text, message):
    write_shards(tmp_path, [2])
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=message):
        find_records(f"{tmp_path}/pretrain*", "pretrain_tfrecords", LENGTH)


def test_a_data_set_that_is_still_being_built_is_refused(tmp_path):
    write_shards(tmp_path, [2])
    (tmp_path / "unfinished_build").mkdir()
    with pytest.raises(UserError, match="unfinished: run build_pretraining_dataset.py to its end"):
        find_records(f"{tmp_path}/pretrain*", "pretrain_tfrecords", LENGTH)


# --- damage -------------------------------------------------------------------------------------------------------------------


def damage(path, kind):
    """Damages the third of five equal records; returns how the error begins."""
    size = os.path.getsize(path) // 5
    if kind == "truncated":
        os.truncate(path, 2 * size + size // 2)
    elif kind == "byte of the data":
        flip_byte(path, 2 * size + size // 2)
    elif kind == "byte of the length":
        flip_byte(path, 2 * size)
    return f"record 2 of {path} is truncated or corrupt"


@pytest.mark.parametrize("kind", ["truncated", "byte of the data", "byte of the length"])
def test_a_damaged_shard_without_manifest_is_named_with_its_record(tmp_path, kind):
    paths = write_shards(tmp_path, [5, 5])
    expected = damage(paths[1], kind)
    with pytest.raises(DataError) as caught:
        find_records(f"{tmp_path}/pretrain*", "pretrain_tfrecords", LENGTH)
    assert str(caught.value).startswith(expected) and str(caught.value).endswith("build the data set again")
    assert "\n" not in str(caught.value) and "[Op:" not in str(caught.value) and caught.value.exit_code == 1


def test_a_truncated_shard_is_found_by_its_size_before_the_run(tmp_path):
    paths = write_shards(tmp_path, [5, 5])
    write_manifest(tmp_path, paths)
    expected = damage(paths[1], "truncated")
    with pytest.raises(DataError) as caught:
        find_records(f"{tmp_path}/pretrain*", "pretrain_tfrecords", LENGTH)
    assert str(caught.value).startswith(expected)


def test_a_shard_cut_between_two_records_is_found_by_its_size(tmp_path):
    paths = write_shards(tmp_path, [5])
    write_manifest(tmp_path, paths)
    size = os.path.getsize(paths[0])
    os.truncate(paths[0], size // 5 * 4)
    with pytest.raises(DataError, match=rf"has {size // 5 * 4} bytes but manifest.json says {size}"):
        find_records(f"{tmp_path}/pretrain*", "pretrain_tfrecords", LENGTH)


@pytest.mark.parametrize("kind", ["truncated", "byte of the data", "byte of the length"])
@pytest.mark.parametrize("read", [train_input_fn, eval_input_fn])
def test_damage_met_during_a_run_is_named_with_its_record(tmp_path, kind, read):
    paths = write_shards(tmp_path, [5, 5])
    write_manifest(tmp_path, paths)
    records = find_records(f"{tmp_path}/pretrain*", "pretrain_tfrecords", LENGTH)
    expected = damage(paths[1], kind)
    arguments = (records, LENGTH, 7) if read is train_input_fn else (records, LENGTH)
    with pytest.raises(DataError) as caught, explained(records, LENGTH):
        list(read(*arguments)(InputContext(2)).take(5))
    assert str(caught.value).startswith(expected)


def test_a_shard_that_disappears_during_a_run_is_named(tmp_path):
    records = data_set(tmp_path, [5, 5])
    os.remove(records.files[1])
    with pytest.raises(DataError, match=rf"^{records.files[1]} disappeared"), explained(records, LENGTH):
        list(train_input_fn(records, LENGTH, 7)(InputContext(2)).take(5))


def test_an_error_that_the_records_did_not_cause_stays_as_it_is(tmp_path):
    with pytest.raises(tf.errors.InvalidArgumentError, match="else"), explained(data_set(tmp_path, [2]), LENGTH):
        raise tf.errors.InvalidArgumentError(None, None, "something else")


@pytest.mark.parametrize(
    "record, message",
    [
        (NO_EXAMPLE, "record 1 of .* is not a tf.train.Example"),
        (b"", r"record 1 of .* has features of lengths \{'input_ids': 0, 'input_mask': 0, 'segment_ids': 0\} instead of 6"),
        (example(1, segment_ids=[]), r"record 1 of .* 'segment_ids': 0\} instead of 6"),
        (example(1, input_mask=[1] * 7), r"record 1 of .* 'input_mask': 7, .* instead of 6"),
        (example(1, length=9), r"record 1 of .* \{'input_ids': 9, .* instead of 6"),
    ],
    ids=["not an example", "empty", "missing feature", "one long feature", "other length"],
)
def test_a_record_that_does_not_fit_is_named(tmp_path, record, message):
    write_shards(tmp_path, [3], records=[example(0), record, example(2)])
    with pytest.raises(DataError, match=message):
        find_records(f"{tmp_path}/pretrain*", "pretrain_tfrecords", LENGTH)


def test_a_record_that_is_no_example_is_named_also_during_a_run(tmp_path):
    paths = write_shards(tmp_path, [3], records=[example(0), example(1), NO_EXAMPLE])
    records = RecordSet(paths, [3], TOKENIZER, -1)
    with pytest.raises(DataError, match="record 2 of .* is not a tf.train.Example"), explained(records, LENGTH):
        list(eval_input_fn(records, LENGTH)(InputContext(2)))


def test_a_first_record_that_is_none_says_nothing_about_the_length(tmp_path):
    write_shards(tmp_path, [1], records=[b""])
    with pytest.raises(DataError, match="record 0 of .* has features of lengths"):
        find_records(f"{tmp_path}/pretrain*", "pretrain_tfrecords", LENGTH)


def test_a_file_that_holds_no_records_at_all_is_named(tmp_path):
    (tmp_path / "pretrain_data.tfrecord-00000-of-00001").write_text("a text file, not records")
    with pytest.raises(DataError, match="record 0 of .*00000-of-00001 is truncated or corrupt"):
        find_records(f"{tmp_path}/pretrain*", "pretrain_tfrecords", LENGTH)


def test_data_sets_of_build_pretraining_dataset_are_read(tmp_path):
    """Its own writer frames records without TensorFlow; all that it promises is checked by reading them with TensorFlow."""
    from pretrain.example_writer import Example, encode_example, frame_records

    rows = [Example([2, 10 + number, 3], 3) for number in range(4)]
    path = tmp_path / "pretrain_data.tfrecord-00000-of-00001"
    path.write_bytes(frame_records([encode_example(row, LENGTH) for row in rows]))
    records = find_records(str(path), "pretrain_tfrecords", LENGTH)
    assert records.counts == [4] and sorted(batches(records, 4, 1)[0]) == [0, 1, 2, 3]


@pytest.mark.parametrize("row, words", [(500, "id 500, but the model has 500"), (-3, "id -3, which is no vocabulary's")])
def test_ids_that_no_vocabulary_has_are_named_after_the_error_that_they_cause(tmp_path, row, words):
    data = data_set(tmp_path, [2])
    write_shards(tmp_path, [1], records=[example(1, input_ids=[2, row, 3, 0, 0, 0])])
    with pytest.raises(DataError, match=words), explained(data, LENGTH, 500):
        raise tf.errors.InvalidArgumentError(None, None, "indices[1] is not in [0, 500)")
