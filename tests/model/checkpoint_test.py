"""model/checkpoint.py: the original's format, and a save that may be killed at any moment."""

import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from model import checkpoint
from model.command import DataError, UserError
from tests.kills import Killed

INDEX, DATA = ".index", ".data-00000-of-00001"


def make_variables(value: float) -> list[tf.Variable]:
    step = tf.Variable(int(value), dtype=tf.int64, name="global_step", trainable=False)
    return [tf.Variable(tf.fill([2, 3], value), name="electra/a/kernel"), tf.Variable(tf.fill([3], -value), name="electra/a/bias"), step]


def save_steps(folder: pathlib.Path, *steps: int, keep_max: int = 0) -> None:
    for step in steps:
        checkpoint.save(str(folder), step, make_variables(step), keep_max)


def restored(folder: pathlib.Path) -> float | None:
    """The value that every variable got from the newest sound checkpoint of `folder`, None without one."""
    variables = make_variables(-1.0)
    if checkpoint.restore_newest(str(folder), variables) is None:
        return None
    value = variables[0].numpy()[0, 0]
    assert (variables[0].numpy() == value).all() and (variables[1].numpy() == -value).all() and variables[2].numpy() == value
    return float(value)


# --- the original's checkpoint ------------------------------------------------------------------------------------------------------


def test_the_originals_checkpoint_holds_what_ours_holds_by_name_and_shape(golden, tiny):
    from configure_pretraining import PretrainingConfig
    from model.optimization import AdamWeightDecayOptimizer

    config = PretrainingConfig.create("small", "data", checkpoint_hparams(golden))
    model = tiny.PretrainingModel(config, 1000, tiny.SPECIAL)
    slots = AdamWeightDecayOptimizer(model.trainable_variables, 1e-3, 10).slots
    ours = {checkpoint.variable_name(variable): variable.shape.as_list() for variable in (*model.trainable_variables, *slots)}
    assert {**ours, "global_step": []} == checkpoint.read_shapes(str(golden / "small" / "model.ckpt-30"))
    assert checkpoint.warm_start(checkpoint.resolve(str(golden / "small")), model.trainable_variables) == []
    expected = tf.train.load_checkpoint(str(golden / "small" / "model.ckpt-30"))
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(variable.numpy(), expected.get_tensor(checkpoint.variable_name(variable)))


def checkpoint_hparams(golden: pathlib.Path) -> dict:
    import json

    return json.loads((golden / "small" / "hparams.json").read_text())


def test_the_originals_slots_and_step_can_be_restored(golden):
    prefix = str(golden / "small" / "model.ckpt-30")
    kernel = "electra/encoder/layer_0/output/dense/kernel"
    named = [kernel, f"{kernel}/adam_m", f"{kernel}/adam_v"]
    variables = [*(tf.Variable(tf.zeros([128, 64]), name=name) for name in named), tf.Variable(0, dtype=tf.int64, name="global_step")]
    checkpoint.restore(prefix, variables)
    assert variables[-1].numpy() == 30
    assert all(np.abs(variable.numpy()).max() > 0 for variable in variables[:3])
    assert (variables[2].numpy() >= 0).all()


# --- format -------------------------------------------------------------------------------------------------------------------------


def test_files_and_names_are_those_every_tool_knows(tmp_path):
    prefix = checkpoint.save(str(tmp_path), 7, make_variables(7.0), 5)
    assert prefix == str(tmp_path / "model.ckpt-7")
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model.ckpt-7" + DATA, "model.ckpt-7" + INDEX]
    assert tf.train.latest_checkpoint(str(tmp_path)) == prefix
    assert dict(tf.train.list_variables(prefix)) == {"electra/a/bias": [3], "electra/a/kernel": [2, 3], "global_step": []}
    assert checkpoint.read(prefix, ["electra/a/bias"])["electra/a/bias"].tolist() == [-7.0] * 3


def test_the_newest_are_kept_and_listed(tmp_path):
    save_steps(tmp_path, 5, 9, 10, 100, keep_max=3)
    assert checkpoint.checkpoints(str(tmp_path)) == [str(tmp_path / f"model.ckpt-{step}") for step in (9, 10, 100)]  # by number, not text
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert [os.path.basename(path) for path in state.all_model_checkpoint_paths] == ["model.ckpt-9", "model.ckpt-10", "model.ckpt-100"]
    assert 'model_checkpoint_path: "model.ckpt-100"' in (tmp_path / "checkpoint").read_text()  # relative, so that it can be moved


def test_keep_max_0_keeps_all(tmp_path):
    save_steps(tmp_path, 1, 2, 3, 4, 5, 6, 7)
    assert len(checkpoint.checkpoints(str(tmp_path))) == 7


def test_a_moved_folder_still_loads(tmp_path):
    save_steps(tmp_path / "old", 1, 2)
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert restored(tmp_path / "new") == 2.0


def test_a_copied_folder_with_absolute_paths_loads_its_own_files(tmp_path):
    """State files of TensorFlow 1 may hold them."""
    save_steps(tmp_path / "old", 1, 2, 3)
    (tmp_path / "old" / "checkpoint").write_text(f'model_checkpoint_path: "{tmp_path}/old/model.ckpt-2"\n')
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    assert checkpoint.latest(str(tmp_path / "new")) == str(tmp_path / "new" / "model.ckpt-2")
    shutil.rmtree(tmp_path / "old")
    assert restored(tmp_path / "new") == 2.0


@pytest.mark.parametrize(
    "state", [None, "", 'model_checkpoint_path: "model.ckpt-99"\n', "not a state file {", b"\xff\xfe\x00garbage"], ids=str
)
def test_without_a_state_file_that_helps_the_newest_complete_checkpoint_counts(tmp_path, state):
    save_steps(tmp_path, 9, 10)
    if state is None:
        (tmp_path / "checkpoint").unlink()
    else:
        (tmp_path / "checkpoint").write_bytes(state if isinstance(state, bytes) else state.encode())
    assert checkpoint.latest(str(tmp_path)) == str(tmp_path / "model.ckpt-10")
    assert restored(tmp_path) == 10.0


def test_the_state_file_wins_over_a_newer_checkpoint(tmp_path):
    """So that a run can be rolled back; what it then saves again replaces what was there."""
    save_steps(tmp_path, 1, 2, 3)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1"\n')
    assert restored(tmp_path) == 1.0
    variables = make_variables(2.5)
    checkpoint.save(str(tmp_path), 2, variables, 5)
    assert checkpoint.latest(str(tmp_path)) == str(tmp_path / "model.ckpt-2")
    assert checkpoint.read(str(tmp_path / "model.ckpt-2"), ["electra/a/bias"])["electra/a/bias"].tolist() == [-2.5] * 3


def test_no_folder_and_an_empty_folder_have_no_checkpoint(tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        assert checkpoint.latest(str(folder)) is None and checkpoint.checkpoints(str(folder)) == []
        assert restored(folder) is None
        checkpoint.remove_leftovers(str(folder))


# --- a save that is killed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps, next_step, keep_max", [((1, 2), 3, 2), ((1,), 2, 1), ((1, 2, 3), 3, 2), ((), 1, 1)])
def test_a_save_killed_at_any_moment_leaves_the_old_or_the_new(tmp_path, monkeypatch, killed_after, steps, next_step, keep_max):
    save_steps(tmp_path / "before", *steps, keep_max=keep_max) if steps else os.makedirs(tmp_path / "before")
    if next_step in steps:  # a run that was rolled back saves that step again, with other values
        checkpoint.save(str(tmp_path / "before"), next_step, make_variables(99.0), keep_max)
        (tmp_path / "before" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-2"\n')
    old, seen = restored(tmp_path / "before"), set()
    for changes in range(20):
        folder = tmp_path / str(changes)
        shutil.copytree(tmp_path / "before", folder)
        killed_after(changes)
        try:
            save_steps(folder, next_step, keep_max=keep_max)
            finished = True
        except Killed:
            finished = False
        monkeypatch.undo()
        found = restored(folder)
        assert found in (old, float(next_step)), f"killed after {changes} changes"
        seen.add(found)
        for prefix in checkpoint.checkpoints(str(folder)):
            checkpoint.restore(prefix, make_variables(-1.0))  # what looks complete is sound
        checkpoint.remove_leftovers(str(folder))
        assert_tidy(folder)
        save_steps(folder, next_step + 1, keep_max=keep_max)
        assert restored(folder) == next_step + 1 and len(checkpoint.checkpoints(str(folder))) <= keep_max + (next_step in steps)
        if finished:
            break
    assert finished and changes >= 4 and seen == {old, float(next_step)}


def assert_tidy(folder: pathlib.Path) -> None:
    """Nothing but complete checkpoints and the state file."""
    complete = {f"{pathlib.Path(prefix).name}{suffix}" for prefix in checkpoint.checkpoints(str(folder)) for suffix in (INDEX, DATA)}
    assert set(os.listdir(folder)) - {"checkpoint"} == complete


def test_leftovers_are_ignored_and_removed(tmp_path):
    save_steps(tmp_path, 1)
    for name in (
        "saving-2" + DATA + ".tempstate123",
        "saving-2" + DATA,
        "saving-2" + INDEX,
        "model.ckpt-2" + DATA,
        "checkpoint.tmp-0123abcd",
    ):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "config.json").write_text("{}")
    assert checkpoint.checkpoints(str(tmp_path)) == [str(tmp_path / "model.ckpt-1")]
    assert restored(tmp_path) == 1.0
    save_steps(tmp_path, 1)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "config.json", "model.ckpt-1" + DATA, "model.ckpt-1" + INDEX]


def test_removing_takes_the_index_first(tmp_path, killed_after):
    save_steps(tmp_path, 1, 2)
    killed_after(1)
    with pytest.raises(Killed):
        checkpoint.remove(str(tmp_path / "model.ckpt-1"))
    assert checkpoint.checkpoints(str(tmp_path)) == [str(tmp_path / "model.ckpt-2")]


def test_a_folder_that_cannot_be_written_to_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="could not write a checkpoint to .*file.*--model_dir"):
        save_steps(tmp_path / "file", 1)


# --- damaged files --------------------------------------------------------------------------------------------------------------------


def damage(path: pathlib.Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "flipped":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        path.write_bytes(content[: len(content) // 2 if how == "cut" else 0])


DAMAGES = [(DATA, "cut"), (DATA, "empty"), (DATA, "flipped"), (DATA, "missing"), (INDEX, "cut"), (INDEX, "empty")]


@pytest.mark.parametrize("suffix, how", DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(tmp_path, warnings, suffix, how):
    save_steps(tmp_path, 1, 2, 3)
    damage(tmp_path / f"model.ckpt-3{suffix}", how)
    assert restored(tmp_path) == 2.0
    assert len(warnings) == 1 and "model.ckpt-3" in warnings[0] and "the one before it" in warnings[0]
    save_steps(tmp_path, 3)
    assert restored(tmp_path) == 3.0


@pytest.mark.parametrize("suffix, how", DAMAGES)
def test_a_damaged_checkpoint_that_was_asked_for_is_a_data_error(tmp_path, suffix, how):
    save_steps(tmp_path, 1)
    damage(tmp_path / f"model.ckpt-1{suffix}", how)
    variables = make_variables(-1.0)
    with pytest.raises(DataError, match="model.ckpt-1 cannot be read") as error:
        checkpoint.restore(str(tmp_path / "model.ckpt-1"), variables)
    assert error.value.exit_code == 1
    assert variables[0].numpy()[0, 0] == -1.0


def test_every_byte_is_watched_over(tmp_path):
    """Whichever byte of a checkpoint has a bit turned over: what can be read at all is what was written."""
    save_steps(tmp_path, 1)
    damaged = {}
    for suffix in (DATA, INDEX):
        path = tmp_path / f"model.ckpt-1{suffix}"
        content, damaged[suffix] = path.read_bytes(), 0
        for position in range(len(content)):
            path.write_bytes(content[:position] + bytes([content[position] ^ 1 << position % 8]) + content[position + 1 :])
            try:
                assert restored(tmp_path) == 1.0  # in the index there are bytes that only fill up
            except DataError:
                damaged[suffix] += 1
        for size in (len(content) - 1, len(content) // 2):
            path.write_bytes(content[:size])
            with pytest.raises(DataError):
                restored(tmp_path)
        path.write_bytes(content)
    assert damaged[DATA] == len((tmp_path / f"model.ckpt-1{DATA}").read_bytes())
    assert damaged[INDEX] > len((tmp_path / f"model.ckpt-1{INDEX}").read_bytes()) // 2


def test_when_all_are_damaged_nothing_is_started_anew_by_itself(tmp_path):
    save_steps(tmp_path, 1, 2)
    for step in (1, 2):
        damage(tmp_path / f"model.ckpt-{step}{DATA}", "cut")
    with pytest.raises(DataError, match="none of the 2 checkpoint.*--model_dir"):
        restored(tmp_path)


# --- other configurations, and warm starts ----------------------------------------------------------------------------------------------


def test_another_shape_is_an_error_that_names_variable_and_both_shapes(tmp_path):
    save_steps(tmp_path, 1, 2)
    other = [tf.Variable(tf.zeros([4, 3]), name="electra/a/kernel")]
    for function in (checkpoint.restore, checkpoint.warm_start):
        with pytest.raises(UserError, match=r"'electra/a/kernel' has shape \[2, 3\] .* but \[4, 3\]"):
            function(str(tmp_path / "model.ckpt-2"), other)
    with pytest.raises(UserError, match=r"\[4, 3\]"):  # an older one would be no better: not passed over
        checkpoint.restore_newest(str(tmp_path), other)


def test_restore_misses_a_variable_and_changes_none(tmp_path):
    save_steps(tmp_path, 1)
    variables = [*make_variables(-1.0), tf.Variable([0.0], name="electra/a/kernel/adam_m")]
    with pytest.raises(UserError, match="model.ckpt-1 has no variable 'electra/a/kernel/adam_m'.*--model_dir"):
        checkpoint.restore(str(tmp_path / "model.ckpt-1"), variables)
    assert variables[0].numpy()[0, 0] == -1.0


def test_a_warm_start_needs_no_slots_and_lists_what_is_missing(tmp_path, warnings):
    save_steps(tmp_path, 5)
    extra = [tf.Variable([9.0], name="task_specific/nsmc/kernel"), tf.Variable([8.0], name="electra/b/bias")]
    variables = [*extra, *make_variables(-1.0)[:2]]
    assert checkpoint.warm_start(str(tmp_path / "model.ckpt-5"), variables) == ["electra/b/bias", "task_specific/nsmc/kernel"]
    assert [variable.numpy().ravel()[0] for variable in variables] == [9.0, 8.0, 5.0, -5.0]
    assert [line.rpartition(" ")[2] for line in warnings] == ["electra/b/bias", "task_specific/nsmc/kernel"]


def test_a_warm_start_of_one_scope_leaves_the_others_alone(tmp_path, warnings):
    save_steps(tmp_path, 5)
    variables = [tf.Variable(tf.zeros([2, 3]), name="electra/a/kernel"), tf.Variable([8.0], name="generator/a/bias")]
    assert checkpoint.warm_start(str(tmp_path / "model.ckpt-5"), variables, "electra/") == ["generator/a/bias"]
    assert [variable.numpy().ravel()[0] for variable in variables] == [5.0, 8.0]
    with pytest.raises(UserError, match="none of this model's variables"):
        checkpoint.warm_start(str(tmp_path / "model.ckpt-5"), variables, "generator/")


def test_a_warm_start_from_something_else_altogether_is_an_error(tmp_path):
    save_steps(tmp_path, 1)
    with pytest.raises(UserError, match="none of this model's variables, such as 'bert/a/kernel'.*--init_checkpoint"):
        checkpoint.warm_start(str(tmp_path / "model.ckpt-1"), [tf.Variable([0.0], name="bert/a/kernel")])


def test_resolve_takes_a_folder_a_prefix_or_one_of_its_files(tmp_path):
    save_steps(tmp_path, 1, 2)
    assert checkpoint.resolve(str(tmp_path)) == str(tmp_path / "model.ckpt-2")
    for suffix in ("", INDEX, DATA):
        assert checkpoint.resolve(str(tmp_path / f"model.ckpt-1{suffix}")) == str(tmp_path / "model.ckpt-1")


def test_resolve_takes_a_released_checkpoint_under_another_name(tmp_path):
    save_steps(tmp_path, 1)
    for suffix in (INDEX, DATA):
        os.rename(tmp_path / f"model.ckpt-1{suffix}", tmp_path / f"electra_small{suffix}")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "electra_small"\n')
    assert checkpoint.resolve(str(tmp_path)) == str(tmp_path / "electra_small")
    assert restored(tmp_path) == 1.0


@pytest.mark.parametrize("path", ["", "model.ckpt-3", "none/model.ckpt-1"])
def test_resolve_explains_what_it_did_not_find(tmp_path, path):
    with pytest.raises(UserError, match="no checkpoint at .*--init_checkpoint"):
        checkpoint.resolve(str(tmp_path / path))
