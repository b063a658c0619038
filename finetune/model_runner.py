"""ModelRunner: one trial of fine-tuning, from start weights to scores. Weights are selected on dev."""

import functools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from configure_finetuning import FinetuningConfig
from finetune.finetuning_model import FinetuningModel
from finetune.preprocessing import Preprocessor
from finetune.starting_point import StartingPoint
from finetune.task import Task
from model import checkpoint, devices
from model.command import DataError, UserError, read_json, write_json
from model.estimator import Estimator, RunConfig, Sums
from model.hooks import ProgressHook
from model.layers import variable_name
from model.optimization import AdamWeightDecayOptimizer, layerwise_factors

BEST = "best"  # folder of the selected weights
Scores = dict[str, dict[str, float]]  # task -> metric -> value
AfterEvaluation = Callable[[int, float], None]  # (how many evaluations on dev there were, score of the last)


class TrialProgress(ProgressHook):
    """A progress line that reckons with the whole trial, not with the stretch up to the next evaluation."""

    def __init__(self, num_train_steps: int):
        super().__init__(("loss", "learning_rate"))
        self._num_train_steps, self._begun = num_train_steps, False

    def begin(self, step: int, max_steps: int) -> None:
        if not self._begun:
            super().begin(step, self._num_train_steps)
        self._begun = True


class ShapeByShapeEstimator(Estimator):
    """An Estimator for batches of different lengths, each fetched by the host.

    The step is traced once for all of them; what XLA compiles of it is compiled for each length.
    """

    @functools.cached_property
    def train_steps(self) -> Callable[[Iterator, int], Sums]:
        traced: list[Callable[[Any], Sums]] = []

        def train_steps(batches: Any, count: int) -> Sums:
            assert count == 1, "iterations_per_loop is 1 where lengths differ"
            if not traced:
                traced.append(tf.function(self._train_step, input_signature=[batches.element_spec], autograph=False))
            return traced[0](next(batches))

        return train_steps


class ModelRunner:
    """Fine-tunes and scores a model with one seed.

    In `trial_dir`: model.ckpt-N (to go on from after a kill), best/model.ckpt-N (the weights selected on dev, without optimizer
    slots) and history.json (the dev scores so far).
    """

    def __init__(
        self,
        config: FinetuningConfig,
        tasks: Sequence[Task],
        preprocessor: Preprocessor,
        start: StartingPoint,
        trial_dir: str,
        seed: int,
    ):
        self._config, self._tasks, self._preprocessor = config, list(tasks), preprocessor
        self._start, self._trial_dir, self._seed = start, trial_dir, seed
        self._train_input_fn, self.train_steps = preprocessor.prepare_train(seed)
        self._history_path = os.path.join(trial_dir, "history.json")
        self.history: list[dict[str, Any]] = []
        if tf.io.gfile.exists(self._history_path):
            self.history = read_scores(self._history_path)
        self.estimator = self._build_estimator()

    def _build_estimator(self) -> Estimator:
        config = self._config
        kind = devices.device_kind(config.use_tpu)
        dtype = devices.compute_dtype(config.mixed_precision, config.precision, kind)

        def model_fn() -> FinetuningModel:
            model = FinetuningModel(config, self._tasks, self._start.bert_config, self._start.embedding_size, self._seed, dtype)
            if self._start.prefix:
                model.load_encoder(self._start.prefix)
            return model

        run_config = RunConfig(
            model_dir=self._trial_dir,
            train_batch_size=config.train_batch_size,
            eval_batch_size=config.eval_batch_size,
            save_checkpoints_steps=config.save_checkpoints_steps,
            keep_checkpoint_max=1,
            iterations_per_loop=config.iterations_per_loop if config.use_tpu else 1,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            loss_scaling=dtype == tf.float16,
            jit_compile=devices.jit_by_default(kind) if config.jit_compile is None else config.jit_compile,
        )
        strategy = devices.create_strategy(config.use_tpu, config.tpu_name, config.tpu_zone, config.gcp_project)
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise UserError("fine-tuning runs on one machine: unset the environment variable TF_CONFIG, which names several workers")
        devices.make_deterministic()
        estimator_class = Estimator if config.use_tpu else ShapeByShapeEstimator
        return estimator_class(model_fn, run_config, self._create_optimizer, strategy)

    def _create_optimizer(self, variables: Sequence[tf.Variable]) -> AdamWeightDecayOptimizer:
        return create_optimizer(self._config, variables, self.train_steps, self._start.bert_config.num_hidden_layers)

    # --- training with selection ---------------------------------------------------------------------------------------------

    def train(self, after_evaluation: AfterEvaluation = lambda count, score: None) -> None:
        """Trains to the end, scoring dev on the way and keeping the best weights; goes on where an earlier run stopped.

        `after_evaluation` is told every score on dev, also those of the earlier run, and ends the training by raising.
        """
        for count, entry in enumerate(self.history, 1):
            after_evaluation(count, entry["score"])
        progress = TrialProgress(self.train_steps)
        while not self.is_trained:
            start, done = time.monotonic(), self.history[-1]["step"] if self.history else 0
            step = next(step for step in self._evaluation_steps() if step > done)
            self.estimator.train(self._train_input_fn, step, [progress])
            scores = self.evaluate("dev")
            self._select(step, scores, time.monotonic() - start)
            after_evaluation(len(self.history), self.history[-1]["score"])
        if self.history[-1]["step"] < self.train_steps:
            logging.info("Stopped at step %d: no better score on dev for %d evaluations", self.history[-1]["step"], self._patience)

    @property
    def is_trained(self) -> bool:
        """Whether the last step is done, or training stopped early. By the history alone, so that a killed run decides the same."""
        if not self.history or self.history[-1]["step"] >= self.train_steps:
            return bool(self.history)
        scores = [entry["score"] for entry in self.history]
        return 0 < self._patience <= len(scores) - 1 - scores.index(max(scores))

    @property
    def _patience(self) -> int:
        return self._config.early_stopping_patience

    def _evaluation_steps(self) -> list[int]:
        """The steps after which dev is scored; the last one always is."""
        interval = self._config.eval_every_steps
        if interval:
            return [*range(interval, self.train_steps, interval), self.train_steps]
        epochs = math.ceil(self._config.num_train_epochs)
        return sorted({max(1, self.train_steps * epoch // epochs) for epoch in range(1, epochs + 1)})

    def _select(self, step: int, scores: Scores, seconds: float) -> None:
        """Keeps the weights if they are the best so far; equal ones are not better. First the weights, then the note of them."""
        score = sum(scores[task.name][task.get_scorer().main_metric] for task in self._tasks) / len(self._tasks)
        best = self.best()
        if best is None or score > best["score"]:
            checkpoint.save(self._best_dir, step, self.estimator.model.trainable_variables, keep_max=1)
        self.history.append({"step": step, "score": score, "dev": scores, "seconds": seconds})
        write_json(self._history_path, self.history)

    @property
    def _best_dir(self) -> str:
        return os.path.join(self._trial_dir, BEST)

    def best(self) -> dict[str, Any] | None:
        """The entry of the history with the highest dev score, the first of equals; None before the first evaluation."""
        return max(self.history, key=lambda entry: entry["score"], default=None)

    def load_best(self) -> dict[str, Any]:
        """Takes the selected weights and returns their entry of the history; UserError if there are none."""
        best = self.best()
        if best is None or not self.is_trained:
            raise UserError(f"no finished trial in {self._trial_dir} to score: train first (--do_train)")
        self.estimator.load(os.path.join(self._best_dir, f"{checkpoint.PREFIX}-{best['step']}"))
        return best

    # --- scoring -------------------------------------------------------------------------------------------------------------

    def evaluate(self, split: str = "dev") -> Scores:
        """task -> metric -> value on `split`, with the current weights."""
        return {task.name: self.evaluate_task(task, split) for task in self._tasks}

    def evaluate_task(self, task: Task, split: str = "dev") -> dict[str, float]:
        """Metric -> value on `split`, with the current weights."""
        return self.score(task, split, self.predict(task, split))

    def score(self, task: Task, split: str, outputs: Iterable[dict[str, Any]]) -> dict[str, float]:
        """Metric -> value of what `predict` gave."""
        scorer = task.get_scorer()
        for output in outputs:
            scorer.update(output)
        logging.info("%s %s: %s", task.name, split, scorer.results_str())
        return dict(scorer.get_results())

    def predict(self, task: Task, split: str) -> Iterator[dict[str, Any]]:
        """The outputs of the task's prediction module for each example of `split`."""
        input_fn, _ = self._preprocessor.prepare_predict([task], split)
        for outputs in self.estimator.predict(input_fn):
            yield task.complete(split, {name.removeprefix(f"{task.name}/"): value for name, value in outputs.items()})

    def remove_training_checkpoints(self) -> None:
        """Leaves the selected weights alone: a finished trial is never gone on with."""
        for prefix in checkpoint.checkpoints(self._trial_dir):
            checkpoint.remove(prefix)


def read_scores(path: str) -> list[dict[str, Any]]:
    """A history.json, or DataError."""
    history = read_json(path, "model_dir")
    numbers = (("step", (int,)), ("score", (int, float)))
    if not isinstance(history, list) or not all(
        isinstance(entry, dict) and all(type(entry.get(name)) in kinds for name, kinds in numbers) for entry in history
    ):
        raise DataError(f"{path} is damaged: remove its folder to train anew (--model_dir)")
    return history


def create_optimizer(
    config: FinetuningConfig, variables: Sequence[tf.Variable], num_train_steps: int, num_layers: int
) -> AdamWeightDecayOptimizer:
    """The recipe's optimizer: linear decay to 0 after a linear warm-up, and a rate of its own for each layer."""
    names = [variable_name(variable) for variable in variables]
    decay = config.layerwise_lr_decay
    return AdamWeightDecayOptimizer(
        variables,
        config.learning_rate,
        num_train_steps,
        num_warmup_steps=int(num_train_steps * config.warmup_proportion),
        weight_decay_rate=config.weight_decay_rate,
        epsilon=config.adam_epsilon,
        clip_norm=config.clip_norm,
        bias_correction=config.adam_bias_correction,
        layer_factors=layerwise_factors(names, decay, num_layers, config.layerwise_lr_decay_off_by_one) if decay > 0 else None,
    )
