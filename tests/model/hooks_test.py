"""model/hooks.py: what a run shows of itself."""

import json
import os

import pytest
import tensorflow as tf
from absl import logging

from model import hooks


class Clock:
    """A time.monotonic that the test moves."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(hooks.time, "monotonic", lambda: moved.now)
    return moved


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """What absl's logging.info said, formatted."""
    said: list[str] = []
    monkeypatch.setattr(logging, "info", lambda message, *arguments: said.append(message % arguments))
    return said


# --- progress -----------------------------------------------------------------------------------------------------------------------


def test_a_progress_line_says_step_metrics_speed_and_time_left(clock, lines):
    hook = hooks.ProgressHook(("loss", "disc_loss", "absent"))
    hook.begin(100, 300)
    clock.now += 20.0
    hook.after_steps(200, {"loss": 45.25, "disc_loss": 0.69314, "other": 1.0, "tokens": 40000.0})
    hook.after_save(200, "models/a/model.ckpt-200")
    assert lines == [
        "step 200/300 (66.7 %) loss 45.25 disc_loss 0.6931 | 5.00 steps/s, 2,000 tokens/s, 0:00:20 left",
        "Saved models/a/model.ckpt-200",
    ]


def test_time_left_leaves_out_the_first_interval_and_averages_over_the_others(clock, lines):
    """The first interval holds compilation: 100 s here. Then 10 steps in 10 s, 10 steps in 30 s: 2 s a step, 20 steps left."""
    hook = hooks.ProgressHook(())
    hook.begin(0, 50)
    for step, seconds in ((10, 100.0), (20, 10.0), (30, 30.0)):
        clock.now += seconds
        hook.after_steps(step, {})
    assert [line.rpartition(", ")[2] for line in lines] == ["0:06:40 left", "0:00:30 left", "0:00:40 left"]


def test_long_times_are_in_hours(clock, lines):
    hook = hooks.ProgressHook(())
    hook.begin(0, 1000)
    clock.now += 100.0
    hook.after_steps(1, {})
    assert lines[0].endswith("0.01 steps/s, 27:45:00 left")


# --- history ------------------------------------------------------------------------------------------------------------------------


def test_the_history_is_written_with_each_checkpoint_and_at_the_end(tmp_path, clock):
    hook = hooks.HistoryHook(str(tmp_path))
    path = tmp_path / hooks.HISTORY
    hook.begin(0, 30)
    clock.now += 5.0
    hook.after_steps(10, {"loss": 2.0})
    assert not path.exists()
    hook.before_save(10)
    assert hooks.read_history(str(path)) == [{"step": 10, "loss": 2.0, "steps_per_second": 2.0}]
    clock.now += 2.0
    hook.after_steps(20, {"loss": 1.0})
    hook.end(20)
    assert [json.loads(line) for line in path.read_text().splitlines()][1] == {"step": 20, "loss": 1.0, "steps_per_second": 5.0}
    assert os.listdir(tmp_path) == [hooks.HISTORY]


def test_a_resumed_run_drops_what_lies_beyond_its_checkpoint(tmp_path, clock):
    first = hooks.HistoryHook(str(tmp_path))
    first.begin(0, 40)
    for step in (10, 20, 30):
        first.after_steps(step, {"loss": float(step)})
    first.end(30)  # say the last checkpoint is of step 20
    second = hooks.HistoryHook(str(tmp_path))
    second.begin(20, 40)
    second.after_steps(30, {"loss": 31.0})
    second.end(30)
    history = hooks.read_history(str(tmp_path / hooks.HISTORY))
    assert [(row["step"], row["loss"]) for row in history] == [(10, 10.0), (20, 20.0), (30, 31.0)]


def test_no_history_is_an_empty_one(tmp_path):
    assert hooks.read_history(str(tmp_path / hooks.HISTORY)) == []


# --- TensorBoard --------------------------------------------------------------------------------------------------------------------


def read_scalars(folder: str) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) of all event files in `folder`."""
    scalars: dict[str, list[tuple[int, float]]] = {}
    for name in sorted(os.listdir(folder)):
        for serialized in tf.data.TFRecordDataset(os.path.join(folder, name)):
            event = tf.compat.v1.Event.FromString(serialized.numpy())
            for value in event.summary.value:
                scalars.setdefault(value.tag, []).append((event.step, float(tf.make_ndarray(value.tensor))))
    return scalars


def test_tensorboard_gets_generator_discriminator_and_training_apart(tmp_path, clock):
    metrics = {
        "loss": 45.0,
        "masked_lm_loss": 10.0,
        "sampled_masked_lm_accuracy": 0.25,
        "cloze_loss": 3.0,
        "disc_loss": 0.5,
        "learning_rate": 1e-4,
        "gradient_norm": 2.0,
        "tokens": 600.0,
        "examples": 8.0,
    }
    hook = hooks.SummaryHook(str(tmp_path))
    hook.begin(10, 100)
    clock.now += 4.0
    hook.after_steps(20, metrics)
    clock.now += 1.0
    hook.after_steps(30, {**metrics, "loss": 44.0})
    hook.end(30)
    scalars = read_scalars(str(tmp_path))
    assert scalars["training/loss"] == [(20, 45.0), (30, 44.0)]
    assert scalars["training/steps_per_second"] == [(20, 2.5), (30, 10.0)]
    assert scalars["training/tokens_per_second"] == [(20, 150.0), (30, 600.0)]
    groups = {"generator": ("masked_lm_loss", "sampled_masked_lm_accuracy", "cloze_loss"), "discriminator": ("disc_loss",)}
    groups["training"] = ("loss", "learning_rate", "gradient_norm", "steps_per_second", "tokens_per_second")
    assert set(scalars) == {f"{group}/{name}" for group, names in groups.items() for name in names}


# --- curves -------------------------------------------------------------------------------------------------------------------------


def test_curves_are_drawn_as_one_png_with_a_panel_for_each_entry(tmp_path):
    history = [{"step": step, "loss": 50.0 / step, "accuracy": step / 10} for step in (1, 2, 3)] + [{"step": 4, "loss": 12.0}]
    widths = []
    for panels in ({"loss": ("loss",)}, {"loss": ("loss",), "accuracy": ("accuracy", "loss")}):
        path = tmp_path / "curve.png"
        hooks.draw_curves(history, panels, str(path))
        image = tf.io.decode_png(path.read_bytes())
        assert image.numpy().std() > 1.0
        widths.append(image.shape[1])
    assert widths[1] == 2 * widths[0]
    assert os.listdir(tmp_path) == ["curve.png"]


def test_where_there_is_nothing_to_draw_no_file_is_written(tmp_path):
    hooks.draw_curves([], {}, str(tmp_path / "curve.png"))
    assert os.listdir(tmp_path) == []
