import numpy as np
import pytest
from absl import logging

from finetune.feature_spec import FeatureSpec
from finetune.preprocessing import (
    Preprocessor,
    build_table,
    concatenate,
    padded_lengths,
    prediction_order,
    read_table,
    training_order,
    write_table,
)
from finetune.starting_point import find_starting_point
from finetune.task_builder import get_tasks
from model.estimator import InputContext

SPECS = (FeatureSpec("input_ids", per_token=True), FeatureSpec("tags", per_token=True, default=-1), FeatureSpec("label", default=7))


def test_tables_hold_pieces_end_to_end_and_fill_in_defaults():
    table = build_table([{"input_ids": [1, 2, 3], "tags": [4, 5, 6], "label": 8}, {"input_ids": [9]}], SPECS)
    np.testing.assert_array_equal(table.columns["input_ids"], [1, 2, 3, 9])
    np.testing.assert_array_equal(table.columns["tags"], [4, 5, 6, -1])
    np.testing.assert_array_equal(table.columns["label"], [8, 7])
    np.testing.assert_array_equal(table.offsets, [0, 3, 4])
    both = concatenate([table, table])
    np.testing.assert_array_equal(both.offsets, [0, 3, 4, 7, 8])
    np.testing.assert_array_equal(both.columns["label"], [8, 7, 8, 7])
    assert len(both) == 4 and list(both.lengths) == [3, 1, 3, 1]


def test_a_cached_table_is_read_back_and_a_damaged_one_is_not(tmp_path):
    path = str(tmp_path / "cache" / "table.npz")
    write_table(path, build_table([{"input_ids": [1, 2], "label": 3}], SPECS))
    table = read_table(path)
    np.testing.assert_array_equal(table.columns["input_ids"], [1, 2])
    assert table.columns["label"].dtype == np.int32 and table.offsets.dtype == np.int64
    with open(path, "r+b") as file:
        file.truncate(100)
    assert read_table(path) is None


def test_a_cached_table_with_any_bit_turned_over_is_the_same_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr(logging, "warning", lambda *arguments: None)
    path = tmp_path / "table.npz"
    write_table(str(path), build_table([{"input_ids": [1, 2], "label": 3}], SPECS))
    whole, sound = path.read_bytes(), read_table(str(path))
    damaged = 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
        table = read_table(str(path))
        damaged += table is None
        if table:  # padding, or a date
            assert table.columns.keys() == sound.columns.keys()
            np.testing.assert_array_equal(table.offsets, sound.offsets)
            for name, values in sound.columns.items():
                np.testing.assert_array_equal(table.columns[name], values)
    assert damaged > len(whole) // 2


LENGTHS = np.random.default_rng(3).integers(2, 60, 1000)


def test_every_epoch_holds_every_example_once():
    order = training_order(LENGTHS, 125, 16, seed=1, group_by_length=False)  # two epochs
    assert order.shape == (125, 16)
    first, second = order.ravel()[:1000], order.ravel()[1000:]
    assert sorted(first) == sorted(second) == list(range(1000))
    assert not np.array_equal(first, second)


def test_the_order_is_a_function_of_the_seed():
    order = training_order(LENGTHS, 125, 16, seed=1, group_by_length=True)
    np.testing.assert_array_equal(order, training_order(LENGTHS, 125, 16, seed=1, group_by_length=True))
    assert not np.array_equal(order, training_order(LENGTHS, 125, 16, seed=2, group_by_length=True))


def test_grouping_moves_examples_within_a_stretch_only_and_saves_padding():
    plain, grouped = (training_order(LENGTHS, 125, 16, 1, group) for group in (False, True))
    for start in (0, 64):
        assert sorted(plain[start : start + 64].ravel()) == sorted(grouped[start : start + 64].ravel())
    assert LENGTHS[grouped].max(1).mean() < 0.65 * LENGTHS[plain].max(1).mean()
    assert abs(np.corrcoef(np.arange(125), LENGTHS[grouped].max(1))[0, 1]) < 0.3, "long and short batches are mixed"


def test_prediction_has_every_example_once_and_marks_the_fillers():
    rows, is_real = prediction_order(np.array([3, 9, 4, 9, 1]), 2)
    np.testing.assert_array_equal(rows, [[1, 3], [2, 0], [4, 4]])
    np.testing.assert_array_equal(is_real, [[1, 1], [1, 1], [1, 0]])


def test_padded_lengths_lie_an_eighth_apart():
    assert padded_lengths(100) == [*range(4, 64, 4), *range(64, 100, 8), 100]
    assert padded_lengths(256) == [*range(4, 64, 4), *range(64, 128, 8), *range(128, 256, 16), 256]
    assert padded_lengths(10) == [4, 8, 10]
    assert padded_lengths(3) == [3]
    assert padded_lengths(300, step=16) == [*range(16, 256, 16), 256, 288, 300]


@pytest.fixture
def preprocessor(make_config):
    def make(**user) -> Preprocessor:
        config = make_config(**user)
        return Preprocessor(config, get_tasks(config), find_starting_point(config).tokenizer)

    return make


def batches(input_fn, **context):
    return [{name: value.numpy() for name, value in batch.items()} for batch in input_fn(InputContext(16, **context))]


def test_batches_hold_the_texts_of_the_file(preprocessor, home):
    (home / "finetuning_data" / "nsmc" / "ratings_test.txt").write_text("id\tdocument\tlabel\n5\t영화 좋다\t1\n6\t\t0\n7\t모르는말\t0\n")
    made = preprocessor(max_seq_length=32, predict_batch_size=2)
    input_fn, steps = made.prepare_predict(made._tasks, "test")
    first, second = batches(input_fn)
    assert steps == 2
    np.testing.assert_array_equal(first["input_ids"], [[2, 13, 5, 3], [2, 1, 3, 0]])
    np.testing.assert_array_equal(first["input_mask"], [[1, 1, 1, 1], [1, 1, 1, 0]])
    np.testing.assert_array_equal(second["input_ids"][:, :3], [[2, 3, 0], [2, 3, 0]])
    np.testing.assert_array_equal(second["is_real"], [1, 0])
    assert first["input_ids"].shape == first["segment_ids"].shape == (2, 4), "cut to what the batch needs"
    np.testing.assert_array_equal(first["nsmc_label_ids"], [1, 0])
    np.testing.assert_array_equal(first["nsmc_eid"], [2, 4])
    np.testing.assert_array_equal(first["position"], [0, 1])
    static = batches(input_fn, static_shapes=True)
    assert {batch["input_ids"].shape for batch in static} == {(2, 32)}
    np.testing.assert_array_equal(static[0]["input_ids"][:, :4], first["input_ids"])


def test_training_goes_on_at_any_step(preprocessor):
    input_fn, num_steps = preprocessor(num_train_epochs=2.0).prepare_train(seed=5)
    whole = batches(input_fn)
    assert len(whole) == num_steps
    resumed = batches(input_fn, start_step=num_steps - 3)
    assert len(resumed) == 3
    for batch, again in zip(whole[-3:], resumed, strict=True):
        for name, value in batch.items():
            np.testing.assert_array_equal(value, again[name], err_msg=name)


def test_number_of_steps(preprocessor):
    made = preprocessor(num_train_epochs=1.5)
    rows = made.num_examples(made._tasks[0], "train")
    assert made.prepare_train(0)[1] == int(rows * 1.5 / 16)
    assert rows + made.num_examples(made._tasks[0], "dev") == 300


def test_features_are_cached_by_text_vocabulary_and_length(preprocessor, home, monkeypatch):
    made = preprocessor()
    before = batches(made.prepare_predict(made._tasks, "test")[0])

    def refuse(*arguments):
        raise AssertionError("features were made again")

    with monkeypatch.context() as patch:
        patch.setattr(Preprocessor, "_make_table", refuse)
        again = preprocessor()
        for batch, cached in zip(before, batches(again.prepare_predict(again._tasks, "test")[0]), strict=True):
            np.testing.assert_array_equal(batch["input_ids"], cached["input_ids"])
        for user in ({"max_seq_length": 12}, {"use_tfrecords_if_existing": False}, {"do_lower_case": True}):
            with pytest.raises(AssertionError, match="made again"):
                preprocessor(**user).num_examples(made._tasks[0], "test")
        (home / "finetuning_data" / "nsmc" / "ratings_test.txt").write_text("id\tdocument\tlabel\n5\t영화 좋다\t1\n")
        with pytest.raises(AssertionError, match="made again"):
            preprocessor().num_examples(made._tasks[0], "test")


def test_several_tasks_share_a_batch_and_lack_each_others_features(preprocessor, twin):
    made = preprocessor(task_names=["nsmc", "twin"], num_train_epochs=1.0)
    rows = [made.num_examples(task, "train") for task in made._tasks]
    whole = batches(made.prepare_train(seed=1)[0])
    assert len(whole) == sum(rows) // 16
    task_ids = np.concatenate([batch["task_id"] for batch in whole])
    assert abs(np.mean(task_ids) - rows[1] / sum(rows)) < 0.05 and set(task_ids) == {0, 1}
    for name, other in (("nsmc", 1), ("twin", 0)):
        eids = np.concatenate([batch[f"{name}_eid"] for batch in whole])
        assert not eids[task_ids == other].any() and eids[task_ids != other].all()
