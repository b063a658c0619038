"""model/devices.py: which strategy, which compute type, and what is said where a device is missing."""

import types

import pytest
import tensorflow as tf

from configure_pretraining import PretrainingConfig
from model import devices
from model.command import UserError
from model.hparams import check


def pretend_gpus(monkeypatch, *capabilities: tuple[int, int]) -> None:
    """TensorFlow reports one GPU of each compute capability."""
    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{index}", "GPU") for index in range(len(capabilities))]
    details = {gpu.name: {"compute_capability": capability} for gpu, capability in zip(gpus, capabilities, strict=True)}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: gpus if kind == "GPU" else [])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details[gpu.name])


@pytest.mark.parametrize(
    "mixed, precision, kind, expected",
    [
        (False, None, "CPU", tf.float32),
        (False, None, "TPU", tf.float32),
        (True, None, "CPU", tf.bfloat16),
        (True, None, "TPU", tf.bfloat16),
        (False, "bfloat16", "CPU", tf.bfloat16),
        (True, "float32", "TPU", tf.float32),
        (True, "float16", "CPU", tf.float16),
    ],
)
def test_the_compute_type(mixed, precision, kind, expected):
    assert devices.compute_dtype(mixed, precision, kind) == expected


@pytest.mark.parametrize(
    "capabilities, expected",
    [([(9, 0)], tf.bfloat16), ([(8, 0)], tf.bfloat16), ([(7, 5)], tf.float16), ([(9, 0), (7, 0)], tf.float16), ([(12, 0)], tf.bfloat16)],
)
def test_mixed_precision_on_gpus_is_what_the_oldest_of_them_computes_in(monkeypatch, capabilities, expected):
    pretend_gpus(monkeypatch, *capabilities)
    assert devices.compute_dtype(True, None, "GPU") == expected
    assert devices.compute_dtype(False, None, "GPU") == tf.float32


def test_a_gpu_that_does_not_say_what_it_can_gets_float16(monkeypatch):
    pretend_gpus(monkeypatch, (0, 0))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {})
    assert devices.compute_dtype(True, None, "GPU") == tf.float16


def test_every_precision_is_a_type_and_a_choice_of_the_configuration():
    for precision in devices.PRECISIONS:
        assert devices.compute_dtype(False, precision, "CPU").name == precision
        assert check(PretrainingConfig, {"precision": precision})


def test_the_kind_of_device(monkeypatch):
    pretend_gpus(monkeypatch, (8, 0))
    assert (devices.device_kind(True), devices.device_kind(False)) == ("TPU", "GPU")
    pretend_gpus(monkeypatch)
    assert devices.device_kind(False) == "CPU"


def test_xla_compiles_whole_steps_everywhere_but_on_cpus():
    assert [devices.jit_by_default(kind) for kind in ("CPU", "GPU", "TPU")] == [False, True, True]


@pytest.mark.parametrize(
    "kind, cores, threads, expected",
    [("CPU", 2, 0, 2), ("CPU", 1, 0, 1), ("CPU", 2, 1, 2), ("CPU", 8, 1, 8), ("CPU", 20, 3, 6), ("CPU", 4, 4, 1), ("GPU", 16, 1, 1)],
)
def test_as_many_batches_at_once_as_keep_the_cores_busy(monkeypatch, kind, cores, threads, expected):
    set_threads = []
    monkeypatch.setattr(devices, "device_kind", lambda use_tpu: kind)
    monkeypatch.setattr(devices, "_cores", lambda: cores)
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: threads)
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", set_threads.append)
    assert devices.batches_at_once() == expected
    devices.give_batches_a_core_each()
    assert set_threads == ([] if kind == "GPU" else [3 if cores == 20 else 1])


def test_one_device_needs_no_strategy_of_its_own(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for gpus in ([], [tf.config.LogicalDevice("/device:GPU:0", "GPU")]):
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind, gpus=gpus: gpus)
        assert devices.create_strategy() is tf.distribute.get_strategy()


def test_several_gpus_are_mirrored(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    gpus = [tf.config.LogicalDevice(f"/device:GPU:{index}", "GPU") for index in range(2)]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda names: names)
    assert devices.create_strategy() == ["/device:GPU:0", "/device:GPU:1"]


def test_tf_config_means_several_workers(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: "workers")
    assert devices.create_strategy() == "workers"


def test_every_host_or_process_reads_for_the_devices_of_its_own():
    def strategy(replicas, *own_devices):
        return types.SimpleNamespace(num_replicas_in_sync=replicas, extended=types.SimpleNamespace(worker_devices=own_devices))

    class Slice(tf.distribute.TPUStrategy):
        extended = types.SimpleNamespace(num_hosts=4)

        def __init__(self):
            pass

    assert devices.num_workers(tf.distribute.get_strategy()) == 1
    assert devices.num_workers(strategy(4, "GPU:0", "GPU:1", "GPU:2", "GPU:3")) == 1
    assert devices.num_workers(strategy(4, "GPU:0", "GPU:1")) == 2
    assert devices.num_workers(Slice()) == 4


def test_a_tf_config_that_is_not_json_is_a_user_error(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{worker: a}")
    with pytest.raises(UserError, match="TF_CONFIG.*{worker: a}"):
        devices.create_strategy()


def test_a_tpu_that_is_not_there_is_a_user_error_of_one_line(monkeypatch):
    def resolver(tpu, zone, project):
        raise ValueError(f"Could not find TPU {tpu}\nand a long story")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    for name, shown in (("v3", "'v3'"), (None, "'local'")):
        with pytest.raises(UserError, match=f"no TPU {shown} can be used: Could not find TPU .*--tpu_name") as error:
            devices.create_strategy(use_tpu=True, tpu_name=name)
        assert "\n" not in str(error.value)


def test_determinism_is_asked_for(monkeypatch):
    calls = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append(1))
    devices.make_deterministic()
    assert calls == [1]
