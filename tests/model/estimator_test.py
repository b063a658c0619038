"""model/estimator.py: training that can be split, stopped and resumed without changing a bit of its result."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.scaling import free_addresses
from model import checkpoint, devices
from model.command import DataError, UserError
from model.estimator import Estimator, Hook, ModeKeys, RunConfig, Stopped, check_divides
from model.hooks import HISTORY, HistoryHook, SummaryHook, read_history


def assert_same_bits(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if first[name].tobytes() != second[name].tobytes()]
    assert not different


# --- learning -----------------------------------------------------------------------------------------------------------------------


def test_a_linear_model_learns_what_the_data_were_made_with(tmp_path, tiny):
    recorder = tiny.Recorder()
    estimator = tiny.toy_estimator(tmp_path, log_steps=50)
    assert estimator.train(tiny.toy_inputs(), 300, [recorder]) == 300
    np.testing.assert_allclose(estimator.model.kernel.numpy()[:, 0], [1.0, -2.0, 3.0], atol=0.05)
    losses = [metrics["loss"] for metrics in recorder.metrics]
    assert losses[-1] < 0.01 < 1.0 < losses[0]
    assert estimator.evaluate(tiny.toy_inputs(examples=10)) == pytest.approx({"loss": 0.0, "examples": 10.0}, abs=0.05)


def test_the_first_steps_are_those_worked_out_by_hand(tmp_path, tiny):
    """Mean over the global batch, gradients clipped to norm 1, Adam without bias correction at rate .1 (1 - step / 1000)."""
    estimator = tiny.toy_estimator(tmp_path)
    recorder = tiny.Recorder()
    estimator.train(tiny.toy_inputs(), 3, [recorder])
    kernel, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    batches = tiny.toy_inputs()(tiny.InputContext(4)).take(3).as_numpy_iterator()
    for step, (features, metrics) in enumerate(zip(batches, recorder.metrics, strict=True)):
        error = features["x"].astype(np.float64) @ kernel - features["y"]
        gradient = 2 * features["x"].T @ error / 4
        norm = np.linalg.norm(gradient)
        assert metrics == pytest.approx(
            {"loss": np.mean(error**2), "examples": 4, "gradient_norm": norm, "learning_rate": 0.1 * (1 - step / 1000)}, rel=1e-4
        )
        gradient /= max(norm, 1)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        kernel -= 0.1 * (1 - step / 1000) * m / (np.sqrt(v) + 1e-6)
    np.testing.assert_allclose(estimator.model.kernel.numpy()[:, 0], kernel, atol=1e-5)


def test_metrics_are_means_over_the_steps_since_the_last_call(tmp_path, tiny):
    single, double = tiny.Recorder(), tiny.Recorder()
    tiny.toy_estimator(tmp_path / "a").train(tiny.toy_inputs(), 4, [single])
    tiny.toy_estimator(tmp_path / "b", log_steps=2).train(tiny.toy_inputs(), 4, [double])
    for index, metrics in enumerate(double.metrics):
        pair = single.metrics[2 * index : 2 * index + 2]
        assert metrics["examples"] == 8
        for name in ("loss", "learning_rate", "gradient_norm"):
            assert metrics[name] == pytest.approx(np.mean([m[name] for m in pair]), rel=1e-6)


# --- hooks --------------------------------------------------------------------------------------------------------------------------


def test_hooks_are_called_as_documented(tmp_path, tiny):
    recorder = tiny.Recorder()
    estimator = tiny.toy_estimator(tmp_path, log_steps=3, save_checkpoints_steps=4)
    estimator.train(tiny.toy_inputs(), 7, [recorder])
    assert recorder.calls == [
        ("begin", 0, 7),
        ("after_steps", 3),
        ("after_steps", 4),  # before every save
        ("before_save", 4),
        ("after_save", 4, "model.ckpt-4"),
        ("after_steps", 6),
        ("after_steps", 7),
        ("before_save", 7),
        ("after_save", 7, "model.ckpt-7"),
        ("end", 7),
    ]
    recorder.calls.clear()
    assert estimator.train(tiny.toy_inputs(), 8, [recorder]) == 8
    assert recorder.calls == [("begin", 7, 8), ("after_steps", 8), ("before_save", 8), ("after_save", 8, "model.ckpt-8"), ("end", 8)]
    recorder.calls.clear()
    assert estimator.train(tiny.toy_inputs(), 8, [recorder]) == 8
    assert recorder.calls == []


def test_the_device_is_visited_once_a_loop_but_stops_for_checkpoints(tmp_path, tiny):
    recorder = tiny.Recorder()
    estimator = tiny.toy_estimator(tmp_path, iterations_per_loop=3, log_steps=2, save_checkpoints_steps=5)
    estimator.train(tiny.toy_inputs(), 7, [recorder])
    steps = [call[1] for call in recorder.calls if call[0] == "after_steps"]
    assert steps == [3, 5, 7] and [call[1] for call in recorder.calls if call[0] == "after_save"] == [5, 7]


def test_hooks_end_with_the_step_that_was_reached_even_when_one_fails(tmp_path, tiny):
    class Failing(Hook):
        def after_steps(self, step: int, metrics: dict) -> None:
            raise RuntimeError("disk full")

    recorder = tiny.Recorder()
    with pytest.raises(RuntimeError, match="disk full"):
        tiny.toy_estimator(tmp_path, log_steps=2).train(tiny.toy_inputs(), 7, [recorder, Failing()])
    assert recorder.calls == [("begin", 0, 7), ("after_steps", 2), ("end", 2)]


# --- resuming -----------------------------------------------------------------------------------------------------------------------


def test_three_steps_and_three_more_are_six_to_the_bit(tmp_path, tiny):
    straight = tiny.pretraining_estimator(tmp_path / "straight")
    straight.train(tiny.pretraining_inputs, 6)
    tiny.pretraining_estimator(tmp_path / "split").train(tiny.pretraining_inputs, 3)
    resumed = tiny.pretraining_estimator(tmp_path / "split")
    recorder = tiny.Recorder()
    assert resumed.train(tiny.pretraining_inputs, 6, [recorder]) == 6
    assert recorder.calls[0] == ("begin", 3, 6)
    assert_same_bits(tiny.values_of(straight), tiny.values_of(resumed))
    start = tiny.pretraining_estimator(tmp_path / "start")
    moved = [name for name, value in tiny.values_of(start).items() if not np.array_equal(value, tiny.values_of(resumed)[name])]
    assert len(moved) == len(start.variables)  # every weight, every slot, the step


@pytest.mark.slow
def test_loops_on_the_device_give_the_same_bits(tmp_path, tiny):
    single, looped = tiny.pretraining_estimator(tmp_path / "a"), tiny.pretraining_estimator(tmp_path / "b", iterations_per_loop=3)
    recorders = tiny.Recorder(), tiny.Recorder()
    single.train(tiny.pretraining_inputs, 5, [recorders[0]])
    looped.train(tiny.pretraining_inputs, 5, [recorders[1]])
    assert_same_bits(tiny.values_of(single), tiny.values_of(looped))
    last = [metrics["loss"] for metrics in recorders[0].metrics[3:]]
    assert recorders[1].metrics[-1]["loss"] == pytest.approx(np.mean(last), rel=1e-3)


def test_loops_on_the_device_give_a_linear_model_the_same_bits(tmp_path, tiny):
    estimators = [tiny.toy_estimator(tmp_path / str(loop), iterations_per_loop=loop) for loop in (1, 3, 100)]
    for estimator in estimators:
        estimator.train(tiny.toy_inputs(), 8)
    for other in estimators[1:]:
        assert_same_bits(tiny.values_of(estimators[0]), tiny.values_of(other))


@pytest.mark.parametrize("suffix", ["data-00000-of-00001", "index"])
@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path, tiny, warnings, suffix, how):
    """One byte missing at the end, or one bit turned over in the middle."""
    straight = tiny.toy_estimator(tmp_path / "straight")
    straight.train(tiny.toy_inputs(), 6)
    tiny.toy_estimator(tmp_path / "damaged", save_checkpoints_steps=2).train(tiny.toy_inputs(), 4)
    path = tmp_path / "damaged" / f"model.ckpt-4.{suffix}"
    content, middle = path.read_bytes(), path.stat().st_size // 2
    path.write_bytes(content[:-1] if how == "cut" else content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    resumed, recorder = tiny.toy_estimator(tmp_path / "damaged"), tiny.Recorder()
    resumed.train(tiny.toy_inputs(), 6, [recorder])
    assert recorder.calls[0] == ("begin", 2, 6)
    assert len(warnings) == 1 and "model.ckpt-4" in warnings[0] and "trying the one before it" in warnings[0]
    assert_same_bits(tiny.values_of(straight), tiny.values_of(resumed))


def test_a_disk_that_is_full_at_any_moment_leaves_what_was_saved(tmp_path, tiny, mount):
    """Page by page: the first write that fails is one of the history, of a checkpoint, of its state file."""

    def train(folder) -> None:
        hooks = [HistoryHook(str(folder)), SummaryHook(str(folder / "events"))]
        tiny.toy_estimator(folder, save_checkpoints_steps=2, keep_checkpoint_max=2).train(tiny.toy_inputs(), 8, hooks)

    train(tmp_path / "whole")
    errors, reached = [], set()
    for pages in range(2, 10):
        folder = mount(f"size={4 * pages}k") / "run"
        with pytest.raises(DataError, match="No space left on device") as error:
            train(folder)
        errors.append(str(error.value))
        sound = checkpoint.checkpoints(str(folder))
        for prefix in sound:
            checkpoint.read(prefix, ["global_step", "toy/kernel"])
        reached.add(len(sound))
        assert not [name for name in os.listdir(folder) if "tmp" in name or "saving" in name]
        mount("size=1m")
        train(folder)
        expected, found = (
            checkpoint.read(str(place / "model.ckpt-8"), ["toy/kernel", "global_step"]) for place in (tmp_path / "whole", folder)
        )
        assert_same_bits(expected, found)
        assert [row["step"] for row in read_history(str(folder / HISTORY))] == list(range(1, 9))
        shutil.rmtree(folder)
    assert reached >= {0, 1, 2} and len({error.partition(":")[0] for error in errors}) == 2  # history and checkpoints


def test_weights_come_from_model_dir_before_init_checkpoint(tmp_path, tiny):
    first = tiny.toy_estimator(tmp_path / "first")
    first.train(tiny.toy_inputs(), 5)

    def warm() -> Estimator:
        config = RunConfig(str(tmp_path / "second"), train_batch_size=4)
        return Estimator(tiny.Toy, config, lambda v: tiny.AdamWeightDecayOptimizer(v, 0.1, 1000), init_checkpoint=str(tmp_path / "first"))

    second = warm()
    assert second.restore_or_initialize() == 0  # weights only: a new run starts from step 0 with empty slots
    np.testing.assert_array_equal(second.model.kernel, first.model.kernel)
    assert not any(slot.numpy().any() for slot in second.optimizer.slots)
    second.train(tiny.toy_inputs(scale=-1.0), 2)
    again = warm()
    assert again.restore_or_initialize() == 2
    np.testing.assert_array_equal(again.model.kernel, second.model.kernel)


def test_leftovers_of_a_killed_save_go_when_training_starts_and_only_then(tmp_path, tiny):
    """An evaluation may run beside a training that is just saving."""
    tiny.toy_estimator(tmp_path).train(tiny.toy_inputs(), 2)
    leftover = tmp_path / "saving-3.index"
    leftover.write_bytes(b"half")
    tiny.toy_estimator(tmp_path).evaluate(tiny.toy_inputs(examples=4))
    assert leftover.exists()
    tiny.toy_estimator(tmp_path).train(tiny.toy_inputs(), 3)
    assert not leftover.exists()


def test_another_configuration_is_refused_with_the_variable_and_both_shapes(tmp_path, tiny):
    tiny.toy_estimator(tmp_path).train(tiny.toy_inputs(), 1)

    class Wider(tiny.Toy):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = tiny.create_variable("toy/kernel", (4, 1), tiny.zeros, 0)

    with pytest.raises(UserError, match=r"'toy/kernel' has shape \[3, 1\] .* \[4, 1\]"):
        Estimator(Wider, RunConfig(str(tmp_path))).restore_or_initialize()


# --- splitting a batch --------------------------------------------------------------------------------------------------------------


def test_a_linear_model_does_not_notice_accumulation(tmp_path, tiny):
    whole, parts = tiny.toy_estimator(tmp_path / "a"), tiny.toy_estimator(tmp_path / "b", gradient_accumulation_steps=4)
    recorders = tiny.Recorder(), tiny.Recorder()
    whole.train(tiny.toy_inputs(), 5, [recorders[0]])
    parts.train(tiny.toy_inputs(), 5, [recorders[1]])
    for name, value in tiny.values_of(whole).items():
        np.testing.assert_allclose(tiny.values_of(parts)[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    for first, second in zip(recorders[0].metrics, recorders[1].metrics, strict=True):
        assert first == pytest.approx(second, rel=1e-5)


def assert_same_training(whole: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Traces of masks and samples equal; weights as near as float32 sums in another order are (they moved by 1e-3)."""
    assert whole.keys() == other.keys() and sum("trace" in name for name in whole) >= 6
    for name, value in whole.items():
        tolerance = {"rtol": 1e-4} if "metrics" in name else {"rtol": 0, "atol": 0.0 if "trace" in name else 2e-6}
        np.testing.assert_allclose(other[name], value, **tolerance, err_msg=name)


@pytest.fixture(scope="module")
def split_runs(tmp_path_factory, start_tiny, tiny) -> dict[str, dict[str, np.ndarray]]:
    """Weights, metrics and traces of three steps over the same batches of 32, for every way to split them."""
    folder = tmp_path_factory.mktemp("split")
    process = start_tiny("split", folder)
    _, stderr = process.communicate(timeout=1800)
    assert process.returncode == 0, stderr[-2000:]
    return {name: dict(np.load(folder / f"{name}.npz")) for name in tiny.SPLITS}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accumulated", "2 replicas", "4 replicas", "2 replicas, accumulated"])
def test_32_at_once_are_4_times_8_are_2_replicas_of_16_are_4_of_8_are_2_of_2_times_8(split_runs, name):
    """And so are an evaluation that counts every example once, and predictions in their order, spread over the replicas."""
    whole = split_runs["whole"]
    assert len({whole[f"{step}/trace_masks"].tobytes() for step in range(3)}) == 3  # every step masks anew
    assert whole["metrics/examples"] == len(whole["predictions"]) == 80 and np.isfinite(whole["metrics/loss"])
    assert_same_training(whole, split_runs[name])


@pytest.mark.slow
def test_two_workers_train_as_one_on_shards_of_their_own_and_the_first_writes(tmp_path, start_tiny, split_runs):
    """TF_CONFIG on one machine; also what a worker that is not the first must leave alone. Neither can read the other's shards."""
    addresses = free_addresses(2)
    configs = [json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}) for index in range(2)]
    processes = [start_tiny("worker", tmp_path, TF_CONFIG=config) for config in configs]
    for process in processes:
        _, stderr = process.communicate(timeout=1800)
        assert process.returncode == 0, stderr[-2000:]
    for index in range(2):
        assert_same_training(split_runs["whole"], dict(np.load(tmp_path / f"worker{index}.npz")))
    assert checkpoint.checkpoints(str(tmp_path / "worker0")) and not os.path.exists(tmp_path / "worker1")


@pytest.mark.parametrize("option", [{"train_batch_size": 6}, {"train_batch_size": 2}])
def test_a_batch_that_does_not_divide_is_a_user_error(tmp_path, tiny, option):
    with pytest.raises(UserError, match=f"train_batch_size {option['train_batch_size']} .*1 replicas x 4.*--train_batch_size"):
        tiny.toy_estimator(tmp_path, gradient_accumulation_steps=4, **option)


def test_a_batch_that_cannot_be_dealt_out_to_the_replicas_is_a_user_error():
    check_divides(8, 4)
    with pytest.raises(UserError, match="batches of 6 are not a multiple of 4 replicas .*--eval_batch_size, --predict_batch_size"):
        check_divides(6, 4)


@pytest.mark.slow
def test_a_step_that_xla_compiles_whole_is_the_same_step(tmp_path, tiny):
    """Masks and samples equal, weights up to the rounding of other matrix products."""
    results = []
    for name in ("plain", "compiled"):
        tiny.TracedModel.traces = []
        estimator = tiny.pretraining_estimator(tmp_path / name, traced=True, jit_compile=name == "compiled")
        estimator.train(tiny.pretraining_inputs, 3)
        traces = {f"{step}/{key}": value for step, trace in enumerate(tiny.TracedModel.traces) for key, value in trace.items()}
        results.append({**tiny.values_of(estimator), **traces})
    assert_same_training(*results)


# --- stopping -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum, exit_code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops_with_the_shells_exit_code(tmp_path, tiny, signum, exit_code):
    before = signal.getsignal(signum)
    recorder = tiny.Recorder(at=2, signum=signum)
    with pytest.raises(Stopped, match="stopped by SIG.* at step 3, checkpoint saved") as error:
        tiny.toy_estimator(tmp_path, save_checkpoints_steps=100).train(tiny.toy_inputs(), 10, [recorder])
    assert error.value.exit_code == exit_code and isinstance(error.value, UserError)
    assert signal.getsignal(signum) is before
    assert recorder.calls[-2:] == [("after_save", 3, "model.ckpt-3"), ("end", 3)]
    straight, resumed = tiny.toy_estimator(tmp_path / "straight"), tiny.toy_estimator(tmp_path)
    straight.train(tiny.toy_inputs(), 10)
    resumed.train(tiny.toy_inputs(), 10)
    assert_same_bits(tiny.values_of(straight), tiny.values_of(resumed))


@pytest.mark.parametrize("moment", ["after_steps", "after_save"])
def test_whenever_a_signal_comes_the_step_it_reports_is_on_disk(tmp_path, tiny, moment):
    """Also between the decision not to save and the end of the step, and during a save."""

    class Sender(Hook):
        def after_steps(self, step: int, metrics: dict) -> None:
            if moment == "after_steps" and step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        def after_save(self, step: int, path: str) -> None:
            if moment == "after_save" and step == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="at step (4|5), checkpoint saved") as error:
        tiny.toy_estimator(tmp_path, save_checkpoints_steps=4).train(tiny.toy_inputs(), 10, [Sender()])
    assert checkpoint.latest(str(tmp_path)).endswith(f"model.ckpt-{4 if 'step 4' in str(error.value) else 5}")


def test_a_signal_in_the_last_step_is_not_swallowed(tmp_path, tiny):
    with pytest.raises(Stopped, match="at step 3, checkpoint saved"):
        tiny.toy_estimator(tmp_path).train(tiny.toy_inputs(), 3, [tiny.Recorder(at=3)])
    assert checkpoint.latest(str(tmp_path)).endswith("model.ckpt-3")


def test_a_second_signal_acts_as_usual(tmp_path, tiny):
    class Impatient(RuntimeError):
        pass

    def handler(signum: int, frame: object) -> None:
        raise Impatient

    class Twice(Hook):
        def after_steps(self, step: int, metrics: dict) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(Impatient):
            tiny.toy_estimator(tmp_path).train(tiny.toy_inputs(), 3, [Twice()])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert checkpoint.latest(str(tmp_path)) is None


@pytest.mark.slow
def test_a_terminated_process_exits_with_143_and_one_line(tmp_path, start_tiny):
    process = start_tiny("terminated", tmp_path)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 143 and stdout == ""
    assert stderr.splitlines()[-1].startswith("tiny_training.py: error: stopped by SIGTERM at step 3, checkpoint saved")
    assert "Traceback" not in stderr and checkpoint.latest(str(tmp_path)).endswith("model.ckpt-3")


# --- divergence ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_steps", [1, 100])
def test_a_loss_that_is_not_finite_stops_with_step_quantity_and_advice_and_saves_nothing(tmp_path, tiny, log_steps):
    estimator = tiny.toy_estimator(tmp_path, save_checkpoints_steps=3, log_steps=log_steps)
    recorder = tiny.Recorder()
    with pytest.raises(DataError, match="error is nan at step 5: .*--learning_rate.*warm up for longer") as error:
        estimator.train(tiny.toy_inputs(bad_batch=4), 20, [recorder])
    assert error.value.exit_code == 1
    assert checkpoint.latest(str(tmp_path)).endswith("model.ckpt-3")
    assert not any(call[0] == "after_steps" and call[1] > 4 for call in recorder.calls) and recorder.calls[-1][0] == "end"
    assert np.isfinite(checkpoint.read(str(tmp_path / "model.ckpt-3"), ["toy/kernel"])["toy/kernel"]).all()
    straight, mended = tiny.toy_estimator(tmp_path / "straight"), tiny.toy_estimator(tmp_path)
    straight.train(tiny.toy_inputs(), 20)
    mended.train(tiny.toy_inputs(), 20)
    assert_same_bits(tiny.values_of(straight), tiny.values_of(mended))


def test_a_gradient_that_is_not_finite_stops_too(tmp_path, tiny):
    class Steep(tiny.Toy):
        def loss(self, features: dict, denominators: dict, step: tf.Tensor, mode: str) -> tuple:
            loss, sums = super().loss(features, denominators, step, mode)
            return loss * tf.where(step == 1, 1e38, 1.0) ** 2, sums

    estimator = Estimator(Steep, RunConfig(str(tmp_path), train_batch_size=4), lambda v: tiny.AdamWeightDecayOptimizer(v, 0.1, 10))
    with pytest.raises(DataError, match="gradient_norm is (inf|nan) at step 2"):
        estimator.train(tiny.toy_inputs(), 3)
    assert checkpoint.latest(str(tmp_path)) is None


# --- float16 ------------------------------------------------------------------------------------------------------------------------


def float16_estimator(tiny, folder, **options) -> Estimator:
    """Errors of some 100 times the first scale of 32768 are beyond float16's 65504, so the first steps overflow."""
    return tiny.toy_estimator(folder, dtype=tf.float16, loss_scaling=True, **options)


def test_an_overflow_skips_the_step_but_not_the_batch(tmp_path, tiny):
    recorder = tiny.Recorder()
    estimator = float16_estimator(tiny, tmp_path)
    assert estimator.train(tiny.toy_inputs(scale=100.0), 3, [recorder]) == 3
    values = tiny.values_of(estimator)
    skipped = values["batches_seen"] - 3
    assert values["global_step"] == 3 and skipped > 3
    assert values["loss_scale"] == 2.0 ** (15 - skipped) and values["loss_scale_good_steps"] <= 3
    assert [call[1] for call in recorder.calls if call[0] == "after_steps"] == [1, 2, 3]  # skipped steps go into the next call
    assert sum(metrics["examples"] for metrics in recorder.metrics) == 4 * values["batches_seen"]
    assert recorder.metrics[0]["examples"] > 4
    assert all(np.isfinite(list(metrics.values())).all() for metrics in recorder.metrics)
    assert values["loss_scale"] <= recorder.metrics[-1]["loss_scale"] < recorder.metrics[0]["loss_scale"] < 2.0**15
    assert [call for call in recorder.calls if call[0] == "after_save"] == [("after_save", 3, "model.ckpt-3")]


def test_a_skipped_step_changes_no_weight_and_no_slot(tmp_path, tiny):
    first, later = float16_estimator(tiny, tmp_path / "a"), tiny.toy_estimator(tmp_path / "b", dtype=tf.float16)
    first.train(tiny.toy_inputs(scale=100.0), 1)
    skipped = int(tiny.values_of(first)["batches_seen"]) - 1

    def without_skipped(context) -> tf.data.Dataset:
        return tiny.toy_inputs(scale=100.0)(context).skip(skipped)

    later.train(without_skipped, 1)
    for name, value in tiny.values_of(later).items():
        np.testing.assert_allclose(tiny.values_of(first)[name], value, rtol=2e-3, atol=1e-3, err_msg=name)  # float16 gradients


@pytest.mark.parametrize("stop", [1, 2])
def test_float16_resumes_to_the_bit(tmp_path, tiny, stop):
    straight = float16_estimator(tiny, tmp_path / "straight")
    straight.train(tiny.toy_inputs(scale=100.0), 4)
    float16_estimator(tiny, tmp_path / "split").train(tiny.toy_inputs(scale=100.0), stop)
    resumed = float16_estimator(tiny, tmp_path / "split", iterations_per_loop=2)
    resumed.train(tiny.toy_inputs(scale=100.0), 4)
    assert_same_bits(tiny.values_of(straight), tiny.values_of(resumed))


def test_a_checkpoint_is_not_written_again_while_float16_skips(tmp_path, tiny):
    """Every step is a checkpoint here; an overflow after one must not replace it."""
    recorder = tiny.Recorder()
    estimator = float16_estimator(tiny, tmp_path, save_checkpoints_steps=1)

    def inputs(context) -> tf.data.Dataset:
        batches = tiny.toy_inputs()(context).enumerate()
        return batches.map(lambda number, batch: {**batch, "y": batch["y"] * tf.where(number % 2 == 1, 1e4, 1.0)})

    estimator.train(inputs, 4, [recorder])
    saved = [call[1] for call in recorder.calls if call[0] == "after_save"]
    assert saved == [1, 2, 3, 4] and tiny.values_of(estimator)["batches_seen"] > 4


def test_gradients_that_overflow_at_every_scale_end_the_run(tmp_path, tiny):
    with pytest.raises(DataError, match="not finite after step 0, whatever the loss scale.*--precision"):
        float16_estimator(tiny, tmp_path).train(tiny.toy_inputs(scale=1e9), 3)
    assert checkpoint.latest(str(tmp_path)) is None


def test_the_scale_doubles_after_2000_good_steps(tmp_path, tiny):
    estimator = float16_estimator(tiny, tmp_path)
    named = {variable.name: variable for variable in estimator.variables}
    named["loss_scale_good_steps:0"].assign(1998)
    named["loss_scale:0"].assign(4.0)
    estimator.train(tiny.toy_inputs(), 1)
    assert (named["loss_scale:0"].numpy(), named["loss_scale_good_steps:0"].numpy()) == (4.0, 1999)
    estimator.train(tiny.toy_inputs(), 2)
    assert (named["loss_scale:0"].numpy(), named["loss_scale_good_steps:0"].numpy()) == (8.0, 0)


# --- evaluation and prediction --------------------------------------------------------------------------------------------------------


def test_evaluation_counts_every_example_once_and_no_row_that_fills_up(tmp_path, tiny):
    estimator = tiny.toy_estimator(tmp_path, eval_batch_size=4)
    by_fours = estimator.evaluate(tiny.toy_inputs(examples=8))
    assert by_fours["examples"] == 8
    rows = list(tiny.toy_inputs(examples=8)(tiny.InputContext(4)).as_numpy_iterator())
    assert by_fours["loss"] == pytest.approx(np.mean(np.concatenate([row["y"] for row in rows]) ** 2), rel=1e-5)  # the kernel is 0
    short = estimator.evaluate(tiny.toy_inputs(examples=6))
    assert short == pytest.approx({"examples": 6.0, "loss": np.mean(np.concatenate([row["y"] for row in rows])[:6] ** 2)}, rel=1e-5)


def test_evaluation_of_the_first_batches(tmp_path, tiny):
    assert tiny.toy_estimator(tmp_path).evaluate(tiny.toy_inputs(examples=14), steps=2)["examples"] == 8


def test_evaluation_of_nothing_is_an_error(tmp_path, tiny):
    with pytest.raises(DataError, match="nothing to evaluate on"):
        tiny.toy_estimator(tmp_path).evaluate(lambda context: tiny.toy_inputs(examples=4)(context).take(0))


def test_evaluation_uses_the_newest_checkpoint_and_no_optimizer(tmp_path, tiny):
    trained = tiny.toy_estimator(tmp_path)
    trained.train(tiny.toy_inputs(), 20)
    fresh = Estimator(tiny.Toy, RunConfig(str(tmp_path), eval_batch_size=4))
    assert fresh.evaluate(tiny.toy_inputs(examples=8)) == trained.evaluate(tiny.toy_inputs(examples=8))
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model.ckpt-20.data-00000-of-00001", "model.ckpt-20.index"]


def test_predictions_come_in_order_without_the_rows_that_fill_up(tmp_path, tiny):
    estimator = tiny.toy_estimator(tmp_path)
    estimator.model.kernel.assign([[1.0], [-2.0], [3.0]])
    predictions = list(estimator.predict(tiny.toy_inputs(examples=6)))
    assert [prediction["position"] for prediction in predictions] == [0, 1, 2, 3, 4, 5]
    expected = np.concatenate([batch["y"] for batch in tiny.toy_inputs(examples=6)(tiny.InputContext(4)).as_numpy_iterator()])[:6]
    np.testing.assert_allclose([prediction["y"] for prediction in predictions], expected, rtol=1e-5)
    assert all(isinstance(value, (np.ndarray, np.generic)) for value in predictions[0].values())


@pytest.mark.parametrize("at_once", [1, 3])
def test_predictions_that_end_early_or_fail(tmp_path, tiny, monkeypatch, at_once):
    monkeypatch.setattr(devices, "batches_at_once", lambda: at_once)
    estimator, batches = tiny.toy_estimator(tmp_path), 0

    def step(features):
        nonlocal batches
        batches += 1
        if batches == 3:
            raise ValueError("third batch")
        return {"position": features["position"]}, features["position"], features["is_real"]

    estimator._predict_step = step
    predictions = estimator.predict(tiny.toy_inputs(examples=40))
    assert [next(predictions)["position"] for _ in range(8)] == list(range(8))
    with pytest.raises(ValueError, match="third batch"):
        next(predictions)
    batches = 3
    predictions = estimator.predict(tiny.toy_inputs(examples=40))
    assert next(predictions)["position"] == 0
    predictions.close()
    assert batches < 3 + 10, "nothing is computed that nobody asks for"


def test_chosen_weights_can_be_loaded_without_the_optimizers(tmp_path, tiny):
    tiny.toy_estimator(tmp_path / "a", save_checkpoints_steps=2).train(tiny.toy_inputs(), 4)
    other = tiny.toy_estimator(tmp_path / "b")
    other.load(str(tmp_path / "a" / "model.ckpt-2"))
    assert other.restore_or_initialize() == 0
    np.testing.assert_array_equal(other.model.kernel, checkpoint.read(str(tmp_path / "a" / "model.ckpt-2"), ["toy/kernel"])["toy/kernel"])


def test_the_modes_are_those_of_tf_estimator():
    assert (ModeKeys.TRAIN, ModeKeys.EVAL, ModeKeys.PREDICT) == ("train", "eval", "infer")
