"""The one training loop: an estimator over tf.distribute, for pre-training and fine-tuning, on CPU, GPUs and TPU.

It keeps the names of tf.estimator (RunConfig, ModeKeys, train, evaluate, predict, hooks), which left TensorFlow after 2.15.
What it trains is any object that follows the `Model` protocol below. A run is a pure function of its configuration and data:
the batch of step s and all noise in it depend on (seed, s) alone, so a run that was killed and resumed ends in the same bits.
"""

import collections
import concurrent.futures
import dataclasses
import enum
import functools
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from absl import logging

from model import checkpoint, devices
from model.command import DataError, UserError
from model.layers import sizes_of
from model.optimization import AdamWeightDecayOptimizer

Features = Mapping[str, tf.Tensor]
Sums = dict[str, tf.Tensor]
_OWN_METRICS: tuple[str, ...] = ("learning_rate", "gradient_norm", "loss_scale")
_FIRST_LOSS_SCALE, _GOOD_STEPS_TO_DOUBLE = 2.0**15, 2000
_STOP = "stop"  # among the sums of a step: how many replicas belong to workers that were told to stop


class ModeKeys(str, enum.Enum):
    """What a batch is for."""

    TRAIN = "train"
    EVAL = "eval"
    PREDICT = "infer"


class Model(Protocol):
    """What an Estimator can train.

    A batch of features is a dict of tensors [B, ...]; it holds "position" int64 [B], each example's place in the global batch
    (for evaluation and prediction: in the data set) and, there, "is_real" float32 [B], 0 for rows that only fill up a batch.
    """

    @property
    def trainable_variables(self) -> Sequence[tf.Variable]:
        """Variables under their checkpoint names."""

    def denominators(self, features: Features) -> Sums:
        """Scalars float32 that sums of losses are divided by. They are added up over the whole global batch before `loss`."""

    def loss(self, features: Features, denominators: Sums, step: tf.Tensor, mode: ModeKeys) -> tuple[tf.Tensor, Sums]:
        """(loss [], sums). This part's share of the global loss, and additive float32 tensors from which metrics are made."""

    def summarize(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Added-up sums -> metrics, "loss" among them."""

    def predict(self, features: Features) -> dict[str, tf.Tensor]:
        """Outputs [B, ...] for each example."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How a run is carried out, whatever is trained. Batch sizes are global: over all replicas and accumulated parts."""

    model_dir: str
    train_batch_size: int = 32
    eval_batch_size: int = 32
    save_checkpoints_steps: int = 1000
    keep_checkpoint_max: int = 5
    iterations_per_loop: int = 1  # steps the device runs between two visits of the host
    log_steps: int = 100  # steps between two calls of the hooks
    gradient_accumulation_steps: int = 1
    loss_scaling: bool = False  # float16 only
    jit_compile: bool = False  # XLA compiles forward and backward pass as one


@dataclasses.dataclass(frozen=True)
class InputContext:
    """What an input function is told: the global batch size and the number of batches that went before.

    Its batches hold the rows of its worker alone, the `worker`-th of `workers` equal slices of the global batch.
    """

    batch_size: int
    start_step: int = 0
    static_shapes: bool = False  # XLA compiles the whole step, so that every new shape costs a compilation
    worker: int = 0
    workers: int = 1

    def own_rows(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """This worker's slices of global batches, for an input function that reads them whole."""
        if self.workers == 1:
            return dataset
        return dataset.map(lambda features: {name: tf.split(value, self.workers)[self.worker] for name, value in features.items()})


InputFn = Callable[[InputContext], tf.data.Dataset]


class Hook:
    """Something that happens beside training; override what you need."""

    def begin(self, step: int, max_steps: int) -> None:
        """Before the first step; `step` steps were done by earlier runs."""

    def after_steps(self, step: int, metrics: Mapping[str, float]) -> None:
        """After every `log_steps` steps and before every save; metrics are means over the steps since the previous call."""

    def before_save(self, step: int) -> None:
        """Before a checkpoint is written, which may be the last thing this process does."""

    def after_save(self, step: int, path: str) -> None:
        """After a checkpoint is complete."""

    def end(self, step: int) -> None:
        """After training, also when it was stopped or failed."""


class Stopped(UserError):
    """Training was asked to stop by a signal; a checkpoint was saved. Exits as a shell reports that signal: 128 + number."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step}, checkpoint saved: the same command goes on from there")
        self.exit_code = 128 + signum


class PeerStopped(UserError):
    """Another worker was asked to stop by a signal, and all did at one step. Exits as a temporary failure: a scheduler tries again."""

    exit_code = os.EX_TEMPFAIL

    def __init__(self, step: int):
        super().__init__(f"stopped at step {step}, as another worker was told to, checkpoint saved: the same command goes on from there")


class Diverged(DataError):
    """A loss or gradients that are not finite: nothing is wrong with the files, but with the settings."""


class Estimator:
    """Trains, evaluates and applies the model that `model_fn` builds, on whatever `strategy` spans.

    Args:
      model_fn: builds the model; called once, under the strategy's scope.
      config: see RunConfig.
      optimizer_fn: makes the optimizer for the model's variables; None if nothing will be trained.
      strategy: see model.devices.create_strategy; None means TensorFlow's current one.
      init_checkpoint: weights to start from where model_dir holds no checkpoint yet.
      init_scope: takes only those of them whose names begin with this.
    """

    def __init__(
        self,
        model_fn: Callable[[], Model],
        config: RunConfig,
        optimizer_fn: Callable[[Sequence[tf.Variable]], AdamWeightDecayOptimizer] | None = None,
        strategy: tf.distribute.Strategy | None = None,
        init_checkpoint: str | None = None,
        init_scope: str = "",
    ):
        self.config = config
        self.strategy = strategy or tf.distribute.get_strategy()
        if optimizer_fn:
            _check_batch(config, self.strategy.num_replicas_in_sync)
        self._init_checkpoint, self._init_scope = init_checkpoint, init_scope
        with self.strategy.scope():
            self.model = model_fn()
            self.optimizer = optimizer_fn(self.model.trainable_variables) if optimizer_fn else None
            self.global_step = _counter("global_step")
            # With float16 a step can be skipped: batches are counted apart from updates, or a resumed run would see them twice.
            self._scaling = LossScaling() if config.loss_scaling else None
        # What a worker was told, for all to know. Not in the scope of the strategy: it is this worker's own.
        workers = isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self._stop_request = tf.Variable(0.0, trainable=False) if workers else None
        self._compiled_gradients = tf.function(self._gradients, jit_compile=config.jit_compile or None, autograph=False)
        if self.optimizer:
            # Apart, because it is the same for batches of every shape: tracing it takes as long as an encoder of six layers.
            self._apply_gradients = tf.function(self.optimizer.apply_gradients, jit_compile=config.jit_compile or None, autograph=False)
        self._restored = False

    @property
    def variables(self) -> list[tf.Variable]:
        """All that a training checkpoint holds."""
        slots = self.optimizer.slots if self.optimizer else []
        scaling = self._scaling.variables if self._scaling else []
        return [*self.model.trainable_variables, *slots, *scaling, self.global_step]

    # --- training ------------------------------------------------------------------------------------------------------------

    def train(self, input_fn: InputFn, max_steps: int, hooks: Sequence[Hook] = ()) -> int:
        """Trains until `max_steps` updates were made in all, counting earlier runs in this model_dir; returns the step reached.

        Raises Stopped after SIGTERM or SIGINT, and PeerStopped after that of another worker (a checkpoint is saved first); Diverged
        when a loss or gradient is not finite. Then, as after any other error, nothing is saved: the last checkpoint stays as it is.
        """
        if self.writes_files:
            checkpoint.remove_leftovers(self.config.model_dir)
        step = self.restore_or_initialize()
        self._require_common_step(step)
        if step >= max_steps:
            logging.info("Nothing to train: %s is at step %d of %d", self.config.model_dir, step, max_steps)
            return step
        batches = self.iterate(input_fn, InputContext(self.config.train_batch_size, self._batches_seen(), self.config.jit_compile))
        hooks = hooks if self.writes_files else ()
        for hook in hooks:
            hook.begin(step, max_steps)
        try:
            with _catch_signals() as caught:
                step = self._train_loop(batches, step, max_steps, hooks, caught)
        finally:
            for hook in hooks:
                hook.end(int(self.global_step.numpy()))
        return step

    def _train_loop(self, batches: Iterator, step: int, max_steps: int, hooks: Sequence[Hook], caught: list[int]) -> int:
        pending: list[tuple[int, Sums]] = []
        saved, stopping = step, False
        while step < max_steps and not stopping:
            if caught and self._stop_request is not None:
                self._stop_request.assign(1.0)
            count = min(self.config.iterations_per_loop, max_steps - step, _until_next(step, self.config.save_checkpoints_steps))
            previous, sums = step, self.train_steps(batches, count)
            # Asked once a step: a signal that comes during the lines below is noticed, and answered with a save, in the next step.
            # Several workers must stop at the same step, since a step needs them all.
            stopping = bool(sums.pop(_STOP).numpy()) if self._stop_request is not None else bool(caught)
            step = int(self.global_step.numpy()) if self._scaling else step + count
            pending.append((step, sums))
            self._check_scale(step > previous, step)
            # Not twice at one step: where float16 skips, the checkpoint that is there leads to the same weights.
            save = step > saved and (stopping or step == max_steps or step % self.config.save_checkpoints_steps == 0)
            if save or step // self.config.log_steps > previous // self.config.log_steps:
                metrics = self._add_up(pending)
                pending = []
                for hook in hooks:
                    hook.after_steps(step, metrics)
            if save:
                for hook in hooks:
                    hook.before_save(step)
                saved, path = step, self.save(step)
                for hook in hooks:
                    hook.after_save(step, path)
        if caught:
            raise Stopped(caught[0], step)
        if stopping:
            raise PeerStopped(step)
        return step

    def save(self, step: int) -> str:
        """Writes a checkpoint of everything to model_dir; returns its prefix. Of several workers only the first writes."""
        if not self.writes_files:
            return tf.io.gfile.join(self.config.model_dir, f"{checkpoint.PREFIX}-{step}")
        return checkpoint.save(self.config.model_dir, step, self.variables, self.config.keep_checkpoint_max)

    def _add_up(self, pending: Sequence[tuple[int, Sums]]) -> dict[str, float]:
        totals: dict[str, np.ndarray] = {}
        for step, sums in pending:
            for name, value in sums.items():
                number = value.numpy().astype(np.float64)
                if not np.all(np.isfinite(number)):
                    raise Diverged(
                        f"{name} is {number} at step {step}: training diverged and was stopped, the last checkpoint is untouched; "
                        "lower --learning_rate, warm up for longer or train with --precision=float32"
                    )
                totals[name] = totals.get(name, 0.0) + number
        steps = totals.pop("steps")
        own = {name: float(totals.pop(name) / steps) for name in _OWN_METRICS if name in totals}
        return {**self.model.summarize(totals), **own}

    @functools.cached_property
    def train_steps(self) -> Callable[[Iterator, int], Sums]:
        """train_steps(batches, count): so many updates on batches of `iterate`, in one call of the device; what they add up to."""

        def train_steps(batches: Iterator, count: tf.Tensor | None) -> Sums:
            sums = self._train_step(next(batches))
            if count is None:
                return sums

            def one_more(index: tf.Tensor, sums: Sums) -> tuple[tf.Tensor, Sums]:
                return index + 1, tf.nest.map_structure(tf.add, sums, self._train_step(next(batches)))

            return tf.while_loop(lambda index, _: index < count, one_more, (tf.constant(1), sums))[1]

        traced = tf.function(train_steps, autograph=False)
        # A tensor, so that a loop of another number of steps, as before a checkpoint, is not compiled anew.
        return lambda batches, count: traced(batches, tf.constant(count) if count > 1 else None)

    def _train_step(self, features: Features) -> Sums:
        results = self.strategy.run(self._replica_step, args=(features,))
        return tf.nest.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], results)

    def _replica_step(self, features: Features) -> Sums:
        """One update from this replica's part of the global batch: normalizers, gradients, sums over replicas, Adam."""
        assert self.optimizer is not None, "an estimator that trains was given an optimizer_fn"
        requests = {} if self._stop_request is None else {_STOP: self._stop_request.read_value()}
        denominators, requests = self._over_replicas((self.model.denominators(features), requests))
        scale = self._scaling.scale.read_value() if self._scaling else tf.ones([])
        gradients, sums = self._over_replicas(self._compiled_gradients(features, denominators, self._batch_step(), scale))
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients]) if self._scaling else tf.constant(True)
        norm = self._apply_gradients(gradients, self.global_step.read_value(), finite)
        rate = self.optimizer.learning_rate(self.global_step)
        sums = {**sums, **requests, "steps": tf.ones([]), "gradient_norm": norm, "learning_rate": rate}
        if self._scaling:
            sums |= {"loss_scale": scale, "gradient_norm": tf.where(finite, norm, 0.0)}  # an overflow is no news in float16
            self._scaling.update(finite)
        self.global_step.assign_add(tf.cast(finite, tf.int64))
        return sums

    def _gradients(self, features: Features, denominators: Sums, step: tf.Tensor, scale: tf.Tensor) -> tuple[list[tf.Tensor], Sums]:
        """Gradients of this replica's share of the loss, one micro-batch after the other."""
        parts = self.config.gradient_accumulation_steps
        if parts == 1:
            return self._part_gradients(features, denominators, step, scale)
        split = {name: tf.reshape(value, [parts, -1, *sizes_of(value)[1:]]) for name, value in features.items()}
        totals = self._part_gradients({name: value[0] for name, value in split.items()}, denominators, step, scale)

        def add_part(index: tf.Tensor, totals: Any) -> tuple[tf.Tensor, Any]:
            part = self._part_gradients({name: value[index] for name, value in split.items()}, denominators, step, scale)
            return index + 1, tf.nest.map_structure(tf.add, totals, part)

        return tf.while_loop(lambda index, _: index < parts, add_part, (tf.constant(1), totals), maximum_iterations=parts)[1]

    def _part_gradients(self, features: Features, denominators: Sums, step: tf.Tensor, scale: tf.Tensor) -> tuple[list[tf.Tensor], Sums]:
        variables = list(self.model.trainable_variables)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss, sums = self.model.loss(features, denominators, step, ModeKeys.TRAIN)
            scaled = loss * scale
        gradients = tape.gradient(scaled, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
        return [gradient / scale for gradient in dense] if self._scaling else dense, sums

    def _over_replicas(self, values: Any) -> Any:
        if self.strategy.num_replicas_in_sync == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    @property
    def writes_files(self) -> bool:
        """False in all but the first of several workers (TF_CONFIG): they share one model_dir."""
        return self.strategy.extended.should_checkpoint

    def _require_common_step(self, step: int) -> None:
        """Workers that went on from different checkpoints would train apart without anybody noticing."""
        if self._stop_request is None:
            return
        total = tf.function(lambda: self.strategy.run(lambda: self._over_replicas(self.global_step.read_value())), autograph=False)()
        replicas = self.strategy.num_replicas_in_sync
        if int(self.strategy.experimental_local_results(total)[0]) != step * replicas:
            raise UserError(
                f"this worker found the checkpoint of step {step} in {self.config.model_dir!r} and others found another: give all of them "
                "one folder that they share (--model_dir)"
            )

    def _check_scale(self, advanced: bool, step: int) -> None:
        if self._scaling and not advanced and self._scaling.scale.numpy() <= 1.0:
            raise Diverged(
                f"gradients are not finite after step {step}, whatever the loss scale: training was stopped, the last checkpoint is "
                "untouched; lower --learning_rate or train with --precision=bfloat16 or float32"
            )

    def _batch_step(self) -> tf.Tensor:
        return self._scaling.batches.read_value() if self._scaling else self.global_step.read_value()

    def _batches_seen(self) -> int:
        return int(self._batch_step().numpy())

    def iterate(self, input_fn: InputFn, context: InputContext) -> Iterator:
        """Batches for `strategy.run`: each worker reads its slice of the global batch and deals it out to its replicas."""
        replicas = self.strategy.num_replicas_in_sync
        if replicas == 1 and not self._on_tpu:
            return iter(input_fn(context))

        def replica_batches(place: tf.distribute.InputContext) -> tf.data.Dataset:
            dataset = input_fn(dataclasses.replace(context, worker=place.input_pipeline_id, workers=place.num_input_pipelines))
            rows = dataset.element_spec["position"].shape[0] * place.num_input_pipelines
            check_divides(rows, replicas)
            return dataset.rebatch(rows // replicas, drop_remainder=True)

        return iter(self.strategy.distribute_datasets_from_function(replica_batches))

    @property
    def _on_tpu(self) -> bool:
        return isinstance(self.strategy, tf.distribute.TPUStrategy)

    # --- weights -------------------------------------------------------------------------------------------------------------

    def restore_or_initialize(self) -> int:
        """Weights, in this order: the newest checkpoint of model_dir, else init_checkpoint, else the start values. Returns the step."""
        if not self._restored:
            resume = checkpoint.restore_newest(self.config.model_dir, self.variables)
            if resume:
                logging.info("Resumed from %s", resume)
            elif self._init_checkpoint:
                checkpoint.warm_start(checkpoint.resolve(self._init_checkpoint), self.model.trainable_variables, self._init_scope)
            self._restored = True
        return int(self.global_step.numpy())

    def load(self, path: str) -> None:
        """Takes the model's weights (not the optimizer's) from the checkpoint at `path`."""
        checkpoint.restore(checkpoint.resolve(path), self.model.trainable_variables)
        self._restored = True

    # --- evaluation and prediction -------------------------------------------------------------------------------------------

    def evaluate(self, input_fn: InputFn, steps: int | None = None) -> dict[str, float]:
        """Metrics over the whole data set of `input_fn`, or its first `steps` batches, with the newest weights."""
        self.restore_or_initialize()
        totals: dict[str, np.ndarray] = {}
        for index, features in enumerate(self.iterate(input_fn, InputContext(self.config.eval_batch_size, 0, self.config.jit_compile))):
            if index == steps:
                break
            for name, value in self._evaluate_step(features).items():
                totals[name] = totals.get(name, 0.0) + value.numpy().astype(np.float64)
        if not totals:
            raise DataError("there is nothing to evaluate on: the evaluation data is empty (--eval_tfrecords)")
        return self.model.summarize(totals)

    @functools.cached_property
    def _evaluate_step(self) -> Callable[[Features], Sums]:
        def replica(features: Features) -> Sums:
            denominators = self.model.denominators(features)
            return self._over_replicas(self.model.loss(features, denominators, tf.constant(0, tf.int64), ModeKeys.EVAL)[1])

        def step(features: Features) -> Sums:
            results = self.strategy.run(replica, args=(features,))
            return tf.nest.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], results)

        return tf.function(step, autograph=False)

    def predict(self, input_fn: InputFn) -> Iterator[dict[str, np.ndarray]]:
        """Yields the model's outputs for each example, in order."""
        self.restore_or_initialize()
        context = InputContext(self.config.eval_batch_size, 0, self.config.jit_compile)
        batches = self.iterate(input_fn, context) if self._on_tpu else iter(input_fn(context))
        for step in self._predictions(batches):
            outputs, positions, is_real = tf.nest.map_structure(lambda value: value.numpy(), step)
            for row in sorted(np.flatnonzero(is_real), key=lambda row: positions[row]):
                yield {name: value[row] for name, value in outputs.items()}

    def _predictions(self, batches: Iterator[Features]) -> Iterator[Any]:
        """What `_predict_step` makes of each batch, in their order; on a CPU of several at once."""
        at_once, begin = 1 if self._on_tpu else devices.batches_at_once(), list(itertools.islice(batches, 2))
        if at_once == 1 or len(begin) == 1:  # threads would cost a single text a good part of its time
            yield from map(self._predict_step, itertools.chain(begin, batches))
            return
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            waiting: collections.deque[concurrent.futures.Future] = collections.deque()
            try:
                for features in itertools.chain(begin, batches):
                    waiting.append(pool.submit(self._predict_step, features))
                    if len(waiting) > at_once:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:  # after an error, or where no more is asked for
                    future.cancel()

    @functools.cached_property
    def _predict_step(self) -> Callable[[Features], Any]:
        """On one device, and by each of several workers, for all examples; only TPUs share the work: their hosts are no match for them.

        There shapes are known beforehand; else the second length that is met makes a trace for all lengths.
        """

        def replica(features: Features) -> Any:
            return self.model.predict(features), features["position"], features["is_real"]

        def step(features: Features) -> Any:
            results = self.strategy.run(replica, args=(features,))
            return tf.nest.map_structure(lambda value: tf.concat(self.strategy.experimental_local_results(value), 0), results)

        return tf.function(step if self._on_tpu else replica, autograph=False, reduce_retracing=not self._on_tpu)


class LossScaling(tf.Module):
    """Dynamic loss scaling for float16 (Micikevicius et al. 2018): halve on overflow, double after 2000 good steps."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable(_FIRST_LOSS_SCALE, name="loss_scale", trainable=False)
        self.good_steps = _counter("loss_scale_good_steps")
        self.batches = _counter("batches_seen")

    def update(self, finite: tf.Tensor) -> None:
        good_steps = tf.where(finite, self.good_steps + 1, 0)
        double = good_steps >= _GOOD_STEPS_TO_DOUBLE
        factor = tf.where(finite, tf.where(double, 2.0, 1.0), 0.5)
        self.scale.assign(tf.maximum(self.scale * factor, 1.0))
        self.good_steps.assign(tf.where(double, tf.zeros([], tf.int64), good_steps))
        self.batches.assign_add(1)


def _counter(name: str) -> tf.Variable:
    return tf.Variable(0, dtype=tf.int64, name=name, trainable=False)


def _until_next(step: int, interval: int) -> int:
    return interval - step % interval


def _check_batch(config: RunConfig, replicas: int) -> None:
    parts = replicas * config.gradient_accumulation_steps
    if config.train_batch_size % parts:
        raise UserError(
            f"train_batch_size {config.train_batch_size} is not a multiple of {replicas} replicas x "
            f"{config.gradient_accumulation_steps} accumulated parts (--train_batch_size, --gradient_accumulation_steps)"
        )


def check_divides(batch_size: int, replicas: int) -> None:
    """UserError for a batch of evaluation or prediction that cannot be dealt out to the replicas."""
    if batch_size % replicas:
        raise UserError(f"batches of {batch_size} are not a multiple of {replicas} replicas (--eval_batch_size, --predict_batch_size)")


class _catch_signals:
    """Within this context SIGTERM and SIGINT are noted in the list it gives, so that a step is never cut in half.

    A second signal of the same kind acts as usual. Outside the main thread signals cannot be caught, and nothing is.
    """

    def __enter__(self) -> list[int]:
        self._caught: list[int] = []
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._previous[signum] = signal.signal(signum, self._note)
        return self._caught

    def _note(self, signum: int, frame: Any) -> None:
        logging.warning("Got %s: saving a checkpoint after this step", signal.Signals(signum).name)
        self._caught.append(signum)
        signal.signal(signum, self._previous[signum])

    def __exit__(self, *error: Any) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
