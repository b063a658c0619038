"""Hyper-parameter search with Optuna: trials of one fine-tuning after the other, judged by their scores on dev alone.

The study is a SQLite file in a folder named by a hash of all that its scores depend on, so that studies of different data or settings
never mix. What a trial is given depends on the finished ones before it and on the seed, so a search that was killed goes on with the
same command, from the last checkpoint of the trial it was at, and ends as one that was not.
"""

import difflib
import hashlib
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from configure_finetuning import FinetuningConfig, result_values
from finetune import search_report
from finetune.finetuning_run import decisive_values, hash_of
from finetune.model_runner import ModelRunner
from finetune.preprocessing import Preprocessor
from finetune.search_report import SearchTrial
from finetune.starting_point import find_starting_point
from finetune.task_builder import get_tasks
from model import hparams
from model.command import DataError, UserError, locked, make_folder, write_json
from model.estimator import Diverged

try:
    import optuna
    import sqlalchemy
except ImportError as error:
    raise UserError("Optuna is missing: run `pip install .[search]`, or leave out --search") from error

# What SKplanet/Dialog-KoELECTRA searched through for its published scores.
PUBLISHED_SPACE: dict[str, list[Any]] = {
    "learning_rate": [3e-5, 4e-5, 5e-5, 6e-5, 7e-5],
    "warmup_proportion": [0.0, 0.05, 0.1],
    "adam_epsilon": [1e-8, 1e-7, 1e-6],
    "weight_decay_rate": [0.0, 0.01],
}
NUM_TRIALS = 20
RANDOM_TRIALS = 10  # drawn at random before TPE learns from their scores; as many as by Optuna's default
# A trial is stopped once its best score so far is below the median of the complete trials' scores at the same evaluation.
COMPLETE_TRIALS_BEFORE_PRUNING = 5
FIRST_PRUNING_EVALUATION = 2
# With these, trials would be judged on different examples.
_NOT_SEARCHED = ("task_names", "dev_fraction", "dev_seed")
_COMPLETE, _PRUNED = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED


class Search:
    """One study. In its folder: study.db, study.json, study.png and best_hparams.json, the last three as of the last finished trial."""

    def __init__(self, model_name: str, data_dir: str, values: Mapping[str, Any], space: Mapping[str, Any], num_trials: int):
        """`values`: what the user asked for, as in FinetuningConfig.create; `space`: name of a setting -> values to try.

        Raises:
          UserError: an impossible space, number of trials or place for the study.
        """
        self._origin, self._values, self._num_trials = (model_name, data_dir), dict(values), num_trials
        self._config = config = self._create({})
        self._space = self._check_space(space)
        if num_trials < 1:
            raise UserError(f"search_trials must be at least 1, got {num_trials} (--search_trials)")
        if "://" in config.results_dir:
            raise UserError(f"a study is a SQLite file and needs a local folder, got {config.results_dir!r} (--results_dir)")
        tasks, start = get_tasks(config), find_starting_point(config)
        decisive = decisive_values(config, tasks, start, with_tests=False) | {"seed": config.seed, "space": self._space}
        decisive["config"] = {name: value for name, value in decisive["config"].items() if name not in self._space}
        self._hash = hash_of(decisive)
        self._folder = os.path.join(config.results_dir, f"search-{self._hash}")
        self._model_dir = os.path.join(config.model_dir, f"search-{self._hash}")
        self._metric = " and ".join(f"{task.get_scorer().main_metric} of {task.name}" for task in tasks)

    def _create(self, params: Mapping[str, Any]) -> FinetuningConfig:
        return FinetuningConfig.create(*self._origin, {**self._values, **params})

    def run(self) -> str:
        """Does the trials that are not finished yet; returns the table of all and the command that trains the best.

        Raises:
          UserError: a folder that cannot be made, or another process is at the same study.
          DataError: a damaged study, or every trial diverged.
        """
        for name in sorted(set(self._space) & set(self._values)):
            logging.warning("%s is searched: the %s that was given is not used", name, self._values[name])
        make_folder(self._folder, "results_dir")
        busy = f"another process is searching in {self._folder}: stop it, or wait for it (--results_dir)"
        with locked(os.path.join(self._folder, "lock"), busy):
            study = _open_study(os.path.join(self._folder, "study.db"))
            while len(trials := finished_trials(study)) < self._num_trials:
                self._run_trial(study, len(trials))
                self._write(finished_trials(study))
            self._write(trials)
            self._remove_models(None)
        return self._report(trials)

    def _run_trial(self, study: optuna.Study, number: int) -> None:
        """Asks for trial `number` (counting from 0) and does it. After a kill the answer is the same, so that the trial goes on."""
        study.sampler = _Sampler(self._config.seed, number)
        trial = study.ask()
        params = {name: trial.suggest_categorical(name, choices) for name, choices in self._space.items()}
        logging.info("Trial %d of %d: %s", number + 1, self._num_trials, ", ".join(f"{name}={value}" for name, value in params.items()))
        finished = study.get_trials(deepcopy=False, states=(_COMPLETE, _PRUNED))
        same = next((index for index, other in enumerate(finished) if other.params == params), None)
        if same is None:
            self._train(study, trial, params)
        else:
            _repeat(study, trial, finished[same], same)

    def _train(self, study: optuna.Study, trial: optuna.Trial, params: Mapping[str, Any]) -> None:
        """Trains with `params` and tells the study the selected weights' score on dev, or that the trial was stopped."""
        config, name = self._create(params), hash_of(params)
        self._remove_models(name)
        tasks, start = get_tasks(config), find_starting_point(config)
        preprocessor = Preprocessor(config, tasks, start.tokenizer)
        for task in tasks:  # a bad row shall not come to light after the training
            preprocessor.num_examples(task, "dev")
        runner = ModelRunner(config, tasks, preprocessor, start, os.path.join(self._model_dir, name), config.seed)

        def after_evaluation(count: int, score: float) -> None:
            trial.report(score, count)
            if not runner.is_trained and trial.should_prune():
                raise optuna.TrialPruned

        state = _COMPLETE
        try:
            runner.train(after_evaluation)
        except optuna.TrialPruned:
            state = _PRUNED
        except Diverged as error:
            logging.warning("%s", error)
            trial.set_user_attr("diverged", str(error))
            state = _PRUNED
        trial.set_user_attr("seconds", sum(entry["seconds"] for entry in runner.history))
        study.tell(trial, max(entry["score"] for entry in runner.history) if state == _COMPLETE else None, state)

    def _remove_models(self, keep: str | None) -> None:
        """Removes the weights of all trials but the one in folder `keep`: a finished trial is never gone on with."""
        if keep is None:
            if tf.io.gfile.isdir(self._model_dir):
                tf.io.gfile.rmtree(self._model_dir)
            return
        for found in tf.io.gfile.listdir(self._model_dir) if tf.io.gfile.isdir(self._model_dir) else ():
            if found.rstrip("/") != keep:
                tf.io.gfile.rmtree(os.path.join(self._model_dir, found))

    # --- what is searched through --------------------------------------------------------------------------------------------

    def _check_space(self, space: Mapping[str, Any]) -> dict[str, list[Any]]:
        """`space` in the order of its names, its values as FinetuningConfig has them; UserError if it is impossible."""
        if not space:
            raise UserError("--search_space is empty: it must name at least one setting with the values to try")
        return {name: self._check_choices(name, space[name]) for name in sorted(space)}

    def _check_choices(self, name: str, choices: Any) -> list[Any]:
        known = sorted(set(result_values(self._config)) - set(_NOT_SEARCHED))
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(known)}"
            raise UserError(f"--search_space has {name!r}, which is no setting that can be searched; {hint}")
        if not isinstance(choices, list) or not choices:
            raise UserError(f"--search_space must hold a list of values to try for {name!r}, got {choices!r}")
        checked = []
        for choice in choices:
            try:
                value = hparams.check(FinetuningConfig, {name: choice})[name]
                find_starting_point(self._create({name: value}))
            except UserError as error:
                raise UserError(f"--search_space: {error}") from error
            if isinstance(value, list | dict) or value in checked:
                reason = "is there twice" if value in checked else "is neither a number nor a string nor true, false or null"
                raise UserError(f"--search_space: {choice!r} of {name!r} {reason}")
            checked.append(value)
        return checked

    # --- what it gives -------------------------------------------------------------------------------------------------------

    def _write(self, trials: Sequence[SearchTrial]) -> None:
        """The files that show the study as it is now."""
        best = search_report.best_of(trials)
        summary = {
            "search_hash": self._hash,
            "score": self._metric,
            "seed": self._config.seed,
            "space": self._space,
            "best": best and best.number,
            "trials": [trial.as_dict() for trial in trials],
        }
        write_json(os.path.join(self._folder, "study.json"), summary)
        search_report.draw(trials, self._space, self._metric, os.path.join(self._folder, "study.png"))
        if best:
            write_json(self._best_path, {**self._values, **best.params})

    @property
    def _best_path(self) -> str:
        return os.path.join(self._folder, "best_hparams.json")

    def _report(self, trials: Sequence[SearchTrial]) -> str:
        best = search_report.best_of(trials)
        if best is None:
            raise DataError(f"none of the {len(trials)} trials came to its end: {trials[-1].note} (--search_space)")
        combinations = math.prod(map(len, self._space.values()))
        model_name, data_dir = self._origin
        command = ["python", "run_finetuning.py", f"--data_dir={data_dir}", f"--model_name={model_name}", f"--hparams={self._best_path}"]
        lines = [
            f"score: {self._metric} on dev, seed {self._config.seed}",
            f"space: {combinations:,} combinations",
            f"study: {self._folder}",
            "",
            *search_report.table(trials, list(self._space)),
            "",
            f"best: trial {best.number}. To train and to score the test split with its settings:",
            shlex.join(command),
        ]
        return "\n".join(lines)


def finished_trials(study: optuna.Study) -> list[SearchTrial]:
    """The finished trials in their order; those that a kill broke off have left only a failed entry, which does not count."""
    trials = []
    for number, trial in enumerate(study.get_trials(deepcopy=False, states=(_COMPLETE, _PRUNED)), 1):
        scores = [score for _, score in sorted(trial.intermediate_values.items())]
        attributes = trial.user_attrs
        state = "complete" if trial.state == _COMPLETE else "diverged" if "diverged" in attributes else "pruned"
        note, repeats = attributes.get("diverged", ""), attributes.get("repeats")
        trials.append(SearchTrial(number, trial.params, state, scores, attributes["seconds"], note, repeats))
    return trials


def _repeat(study: optuna.Study, trial: optuna.Trial, finished: optuna.trial.FrozenTrial, index: int) -> None:
    """Tells the study of `trial` what it knows of an earlier one with the same parameters: training again would give the same."""
    for count, score in finished.intermediate_values.items():
        trial.report(score, count)
    for name, value in {"repeats": index + 1, **finished.user_attrs, "seconds": 0.0}.items():
        trial.set_user_attr(name, value)
    study.tell(trial, finished.value if finished.state == _COMPLETE else None, finished.state)


def _open_study(path: str) -> optuna.Study:
    """The study in the SQLite file `path`, which is made if there is none; DataError if it cannot be read."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(COMPLETE_TRIALS_BEFORE_PRUNING, FIRST_PRUNING_EVALUATION)
    # Made by SQLAlchemy: a path may hold what means something in a URL.
    url = sqlalchemy.engine.URL.create("sqlite", database=path).render_as_string()
    try:
        study = optuna.create_study(
            storage=optuna.storages.RDBStorage(url), pruner=pruner, study_name="search", direction="maximize", load_if_exists=True
        )
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # broken off by a kill; it will be asked for again
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"the study {path} cannot be used ({reason}): remove it to start anew (--results_dir)") from error
    return study


class _Sampler(optuna.samplers.TPESampler):
    """TPE for trial `number` alone, because the state of its random numbers would not survive a kill.

    Among the first RANDOM_TRIALS each value of a setting comes up equally often, in a random order (a Latin hypercube): independent
    draws from a few values repeat themselves and leave others out.
    """

    def __init__(self, seed: int, number: int):
        super().__init__(n_startup_trials=RANDOM_TRIALS, seed=_derive(seed, number))
        self._search_seed, self._trial_number = seed, number

    def sample_independent(self, study: optuna.Study, trial: Any, param_name: str, param_distribution: Any) -> Any:
        if self._trial_number >= RANDOM_TRIALS:
            return super().sample_independent(study, trial, param_name, param_distribution)
        choices = param_distribution.choices
        times, position = divmod(self._trial_number, len(choices))
        order = np.random.default_rng(_derive(self._search_seed, param_name, times)).permutation(len(choices))
        return choices[order[position]]


def _derive(*parts: Any) -> int:
    """A seed of 32 bits for each `parts`."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
