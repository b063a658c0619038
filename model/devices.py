"""Which device a run uses: the distribution strategy, the compute type, and whether XLA compiles the step whole."""

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from model.command import UserError

# What an operation that all workers take part in ends with when one of them is gone, or is back before the others have noticed.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError, tf.errors.CancelledError)
_MOST_BATCHES = 8  # of a prediction at once, for the sake of memory
PRECISIONS = ("float32", "bfloat16", "float16")


class WorkerLost(UserError):
    """Another worker of this run is gone. Exits as a temporary failure (sysexits.h): a scheduler shall start the run again."""

    exit_code = os.EX_TEMPFAIL


@contextlib.contextmanager
def lost_workers_explained() -> Iterator[None]:
    """Turns the error that TensorFlow meets when another worker is gone into WorkerLost; it takes TensorFlow up to 10 s to notice."""
    try:
        yield
    except _LOST as error:
        if not _has_workers():
            raise
        reason = error.message.rpartition("aborted by: ")[2].strip().partition("\n")[0]
        raise WorkerLost(
            f"lost another worker ({reason}): start all workers again with the same commands, they go on from the last checkpoint"
        ) from error


def create_strategy(
    use_tpu: bool = False, tpu_name: str | None = None, tpu_zone: str | None = None, gcp_project: str | None = None
) -> tf.distribute.Strategy:
    """TPUStrategy, MultiWorkerMirroredStrategy (TF_CONFIG), MirroredStrategy (several GPUs), or the default one (CPU, one GPU)."""
    if use_tpu:
        return _tpu_strategy(tpu_name, tpu_zone, gcp_project)
    if _has_workers():
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus])
    return tf.distribute.get_strategy()


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """How many processes (on a TPU: hosts) read input, each for the devices of its own."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return strategy.extended.num_hosts
    replicas = strategy.num_replicas_in_sync
    return replicas // len(strategy.extended.worker_devices) if replicas > 1 else 1


def _has_workers() -> bool:
    """Whether TF_CONFIG names a cluster."""
    try:
        return bool(tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict())
    except ValueError as error:
        raise UserError(f"the environment variable TF_CONFIG is not JSON ({error}): {os.environ.get('TF_CONFIG')}") from error


def _tpu_strategy(tpu_name: str | None, tpu_zone: str | None, gcp_project: str | None) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu_name or "local", zone=tpu_zone, project=gcp_project)
        if tpu_name and tpu_name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"no TPU {tpu_name or 'local'!r} can be used: {reason} (--tpu_name, --tpu_zone, --use_tpu)") from error


def device_kind(use_tpu: bool) -> str:
    """'TPU', 'GPU' or 'CPU'."""
    return "TPU" if use_tpu else "GPU" if tf.config.list_physical_devices("GPU") else "CPU"


def give_batches_a_core_each() -> None:
    """For prediction on a CPU, where batches have few rows: an operation uses one core, and others take other batches (Estimator.predict).

    With more cores than _MOST_BATCHES an operation uses several. To be called before TensorFlow computes anything.
    """
    if device_kind(use_tpu=False) == "CPU":
        tf.config.threading.set_intra_op_parallelism_threads(-(-_cores() // _MOST_BATCHES))


def batches_at_once() -> int:
    """How many batches of a prediction keep all cores of a CPU busy: operations on few rows, one after the other, do not. Elsewhere 1."""
    if device_kind(use_tpu=False) != "CPU":
        return 1
    threads = tf.config.threading.get_intra_op_parallelism_threads()  # of one operation; 0: as many as there are cores
    return min(2 if threads == 0 else max(1, _cores() // threads), _cores(), _MOST_BATCHES)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compute_dtype(mixed_precision: bool, precision: str | None, kind: str) -> tf.DType:
    """The type of matrix products. `precision` forces one; else mixed precision means bfloat16 where the device computes in it.

    GPUs before compute capability 8.0 have no bfloat16 units and take float16, with dynamic loss scaling in the estimator.
    """
    if precision:
        return tf.as_dtype(precision)
    if not mixed_precision:
        return tf.float32
    if kind == "GPU":
        capabilities = [
            tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
            for gpu in tf.config.list_physical_devices("GPU")
        ]
        return tf.bfloat16 if min(capabilities) >= (8, 0) else tf.float16
    return tf.bfloat16


def jit_by_default(kind: str) -> bool:
    """Whether XLA compiles the step whole: not on CPUs, where its matrix products are slower than oneDNN's (docs/performance.md)."""
    return kind != "CPU"


def make_deterministic() -> None:
    """Asks TensorFlow for operations that give the same bits every time; all randomness here is stateless and needs no seed."""
    tf.config.experimental.enable_op_determinism()
    logging.debug("Deterministic operations are on")
