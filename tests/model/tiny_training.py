"""Small things to train, for the tests of the estimator; as a program, the runs that need a process of their own.

python tiny_training.py split FOLDER      the same global batches computed whole, in parts, and on several replicas
python tiny_training.py terminated FOLDER a run that gets SIGTERM in its second step
python tiny_training.py worker FOLDER     one of several workers (TF_CONFIG)
"""

import dataclasses
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import numpy as np
import tensorflow as tf

from configure_pretraining import PretrainingConfig
from model import command, devices
from model.estimator import Estimator, Hook, InputContext, RunConfig
from model.layers import create_variable, matmul, variable_name, zeros
from model.optimization import AdamWeightDecayOptimizer
from pretrain.pretrain_data import FEATURES, RecordSet, SpecialTokens, eval_input_fn, train_input_fn
from pretrain.pretraining_model import PretrainingModel

LENGTH, VOCAB_SIZE, EXAMPLES = 16, 40, 320
SPECIAL = SpecialTokens(cls=2, sep=3, mask=4)
HPARAMS = {
    "max_seq_length": LENGTH,
    "mask_prob": 0.3,
    "generator_hidden_size": 0.5,
    "embedding_size": 8,
    "model_hparam_overrides": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
}


# --- a linear model, for everything but the network ---------------------------------------------------------------------------


class Toy(tf.Module):
    """Fits y = x kernel by least squares in the compute type `dtype`; the loss is the mean over the global batch."""

    def __init__(self, dtype: tf.DType = tf.float32):
        super().__init__()
        self.dtype = dtype
        self.kernel = create_variable("toy/kernel", (3, 1), zeros, 0)

    def denominators(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"examples": tf.reduce_sum(_real(features))}

    def loss(self, features: Mapping[str, tf.Tensor], denominators: Mapping[str, tf.Tensor], step: tf.Tensor, mode: str) -> Any:
        error = tf.cast(self.predict(features)["y"], tf.float32) - features["y"]
        total = tf.reduce_sum(error * error * _real(features))
        return total / denominators["examples"], {"error": total, "examples": tf.reduce_sum(_real(features))}

    def summarize(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {"loss": float(sums["error"] / sums["examples"]), "examples": float(sums["examples"])}

    def predict(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"y": matmul(features["x"], self.kernel, self.dtype)[:, 0], "position": features["position"]}


def _real(features: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return features["is_real"] if "is_real" in features else tf.ones_like(features["y"])


def toy_inputs(scale: float = 1.0, bad_batch: int = -1, examples: int | None = None) -> Callable[[InputContext], tf.data.Dataset]:
    """Batches of y = scale * x (1, -2, 3), of which number `bad_batch` holds a NaN; without `examples` they never end."""

    def batch(number: tf.Tensor, size: int) -> dict[str, tf.Tensor]:
        x = tf.random.stateless_normal([size, 3], [1, number])
        y = scale * tf.linalg.matvec(x, [1.0, -2.0, 3.0]) + tf.where(number == bad_batch, np.nan, 0.0)
        features = {"x": x, "y": y, "position": tf.range(size, dtype=tf.int64)}
        if examples:
            features["position"] += number * size
            features["is_real"] = tf.cast(features["position"] < examples, tf.float32)
        return features

    def input_fn(context: InputContext) -> tf.data.Dataset:
        end = -(-examples // context.batch_size) if examples else 10**9
        return tf.data.Dataset.range(context.start_step, end).map(lambda number: batch(number, context.batch_size))

    return input_fn


def toy_estimator(folder: str, dtype: tf.DType = tf.float32, learning_rate: float = 0.1, **options: Any) -> Estimator:
    """An Estimator of a Toy over batches of 4."""
    config = RunConfig(**{"model_dir": str(folder), "train_batch_size": 4, "eval_batch_size": 4, "log_steps": 1, **options})

    def optimizer_fn(variables: Any) -> AdamWeightDecayOptimizer:
        return AdamWeightDecayOptimizer(variables, learning_rate, 1000, weight_decay_rate=0.0)

    return Estimator(lambda: Toy(dtype), config, optimizer_fn)


# --- the real network, tiny -----------------------------------------------------------------------------------------------------


class TracedModel(PretrainingModel):
    """Also gives, for every position in the global batch, sums that change with its masked positions and its sampled ids."""

    traces: list[dict[str, np.ndarray]] = []

    def loss(self, features: Mapping[str, tf.Tensor], denominators: Mapping[str, tf.Tensor], step: tf.Tensor, mode: str) -> Any:
        loss, sums = super().loss(features, denominators, step, mode)
        positions, samples = self._outputs.masked_inputs.masked_lm_positions, self._outputs.fake.sampled_ids  # [B, N]
        odd = tf.range(1, positions.shape[1] * 2, 2)
        for name, values in (("masks", positions), ("samples", samples)):
            rows = tf.cast(tf.reduce_sum(values * odd, -1), tf.float32)
            sums[f"trace_{name}"] = tf.math.unsorted_segment_sum(rows, features["position"] % 32, 32)
        return loss, sums

    def forward(self, *arguments: Any) -> Any:
        self._outputs = super().forward(*arguments)
        return self._outputs

    def summarize(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        self.traces.append({name: value for name, value in sums.items() if name.startswith("trace_")})
        return super().summarize(sums)


def pretraining_rows() -> dict[str, np.ndarray]:
    """Rows of different lengths with random ids, the same for every run: int32 [EXAMPLES, LENGTH]."""
    generator = np.random.default_rng(3)
    ids = generator.integers(5, VOCAB_SIZE, (EXAMPLES, LENGTH)).astype(np.int32)
    lengths = generator.integers(8, LENGTH + 1, EXAMPLES)
    input_mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int32)
    ids[:, 0], ids[np.arange(EXAMPLES), lengths - 1] = SPECIAL.cls, SPECIAL.sep
    segment_ids = (np.arange(LENGTH) >= lengths[:, None] // 2).astype(np.int32) * input_mask
    return {"input_ids": ids * input_mask, "input_mask": input_mask, "segment_ids": segment_ids}


def pretraining_inputs(context: InputContext) -> tf.data.Dataset:
    """Batches of the rows, in their order."""
    rows = tf.data.Dataset.from_tensor_slices(pretraining_rows())
    batches = rows.repeat().batch(context.batch_size, drop_remainder=True).skip(context.start_step)
    return batches.map(lambda features: {**features, "position": tf.range(context.batch_size, dtype=tf.int64)})


def pretraining_estimator(
    folder: str,
    dtype: tf.DType = tf.float32,
    strategy: tf.distribute.Strategy | None = None,
    traced: bool = False,
    **options: Any,
) -> Estimator:
    """An Estimator of a tiny ELECTRA with dropout over batches of 8."""
    config = PretrainingConfig.create("tiny", str(folder), HPARAMS)
    run_config = RunConfig(**{"model_dir": str(folder), "train_batch_size": 8, "log_steps": 1, **options})

    def optimizer_fn(variables: Any) -> AdamWeightDecayOptimizer:
        return AdamWeightDecayOptimizer(variables, 1e-3, 100, num_warmup_steps=2)

    model_class = TracedModel if traced else PretrainingModel
    return Estimator(lambda: model_class(config, VOCAB_SIZE, SPECIAL, dtype), run_config, optimizer_fn, strategy)


def values_of(estimator: Estimator) -> dict[str, np.ndarray]:
    """Everything a checkpoint holds, by name."""
    return {variable_name(variable): variable.numpy() for variable in estimator.variables}


@dataclasses.dataclass
class Recorder(Hook):
    """Notes every call, and sends itself the signal `signum` in after_steps of step `at`."""

    at: int = -1
    signum: int = signal.SIGTERM
    calls: list[tuple] = dataclasses.field(default_factory=list)
    metrics: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def begin(self, step: int, max_steps: int) -> None:
        self.calls.append(("begin", step, max_steps))

    def after_steps(self, step: int, metrics: Mapping[str, float]) -> None:
        self.calls.append(("after_steps", step))
        self.metrics.append(dict(metrics))
        if step == self.at:
            os.kill(os.getpid(), self.signum)

    def before_save(self, step: int) -> None:
        self.calls.append(("before_save", step))

    def after_save(self, step: int, path: str) -> None:
        self.calls.append(("after_save", step, os.path.basename(path)))

    def end(self, step: int) -> None:
        self.calls.append(("end", step))


# --- runs in a process of their own -----------------------------------------------------------------------------------------------


class SpreadEstimator(Estimator):
    """Predicts over all replicas, as on a TPU."""

    _on_tpu = True


def write_shards(folder: str, readable: Collection[int] = range(4)) -> RecordSet:
    """The rows in four shards of as many bytes as ever, of which only those that are `readable` can be read."""
    os.makedirs(folder)
    rows, files = pretraining_rows(), [os.path.join(folder, f"shard-{number}") for number in range(4)]
    for number, file in enumerate(files):
        with tf.io.TFRecordWriter(file) as writer:
            for row in range(number, EXAMPLES, 4):
                feature = {name: tf.train.Feature(int64_list=tf.train.Int64List(value=rows[name][row])) for name in FEATURES}
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
        if number not in readable:
            with open(file, "r+b") as damaged:
                damaged.write(b"\0" * os.path.getsize(file))
    return RecordSet(files, [EXAMPLES // 4] * 4, {}, -1)


def _train_traced(folder: str, name: str, records: RecordSet, held_out: RecordSet, **options: Any) -> None:
    """Three steps over global batches of 32 from two input streams and an evaluation over 80 examples, the last batch half full.

    Weights, the evaluation's metrics, predictions, and traces of masks and samples go to FOLDER/NAME.npz.
    """
    TracedModel.traces = []
    estimator = pretraining_estimator(os.path.join(folder, name), train_batch_size=32, traced=True, **options)
    estimator.train(train_input_fn(records, LENGTH, seed=5, streams=2), 3)
    for variable in estimator.variables:
        first, *others = (value.numpy().tobytes() for value in estimator.strategy.experimental_local_results(variable))
        assert all(other == first for other in others), f"the replicas' copies of {variable.name} went apart"
    metrics = estimator.evaluate(eval_input_fn(held_out, LENGTH))
    traces = {f"{step}/{key}": value for step, trace in enumerate(TracedModel.traces) for key, value in trace.items()}
    metrics = {f"metrics/{key}": np.array(value) for key, value in metrics.items()}
    if isinstance(estimator.strategy, tf.distribute.MirroredStrategy):
        estimator.__class__ = SpreadEstimator
    metrics["predictions"] = np.array([row["is_fake"] for row in estimator.predict(eval_input_fn(held_out, LENGTH))])
    np.savez(os.path.join(folder, f"{name}.npz"), **values_of(estimator), **traces, **metrics)


SPLITS = {  # name -> replicas, accumulated parts
    "whole": (1, 1),
    "accumulated": (1, 4),
    "2 replicas": (2, 1),
    "4 replicas": (4, 1),
    "2 replicas, accumulated": (2, 2),
}


def run_split(folder: str) -> None:
    """A child for every number of replicas, as TensorFlow takes two MirroredStrategies of one process for one."""
    records = write_shards(os.path.join(folder, "shards"))
    children = {}
    for replicas in sorted({replicas for replicas, _ in SPLITS.values()}):
        children[replicas] = os.fork()
        if not children[replicas]:
            _run_splits(folder, replicas, records)
            return
    statuses = {replicas: os.waitpid(child, 0)[1] for replicas, child in children.items()}
    assert not any(statuses.values()), statuses


def _run_splits(folder: str, replicas: int, records: RecordSet) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)]) if replicas > 1 else None
    for name, (needed, parts) in SPLITS.items():
        if needed == replicas:
            _train_traced(folder, name, records, _held_out(records), strategy=strategy, gradient_accumulation_steps=parts)


def _held_out(records: RecordSet) -> RecordSet:
    return records._replace(files=records.files[:1], counts=records.counts[:1])


def run_terminated(folder: str) -> None:
    toy_estimator(folder).train(toy_inputs(), 100, [Recorder(at=2)])


def run_worker(folder: str) -> None:
    """Of four shards worker 0 can read the first and the third, worker 1 the second and the fourth."""
    strategy = devices.create_strategy()
    name = f"worker{strategy.cluster_resolver.task_id}"
    records = write_shards(os.path.join(folder, f"shards-{name}"), readable=range(strategy.cluster_resolver.task_id, 4, 2))
    held_out = _held_out(write_shards(os.path.join(folder, f"held-out-{name}")))
    _train_traced(folder, name, records, held_out, strategy=strategy)


if __name__ == "__main__":
    runs = {"split": run_split, "terminated": run_terminated, "worker": run_worker}
    chosen, target = sys.argv.pop(1), sys.argv.pop(1)
    command.run(lambda: runs[chosen](target))
