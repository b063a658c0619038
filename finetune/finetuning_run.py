"""A fine-tuning run from its configuration: its trials one after the other, and the table of what they scored.

Everything lies under a hash of what a score depends on (settings, texts, vocabulary, start weights), so that results of
different configurations never mix, and a trial that is finished is not done again.
"""

import dataclasses
import hashlib
import json
import os
import time
from typing import Any

import tensorflow as tf
from absl import logging

from configure_finetuning import FinetuningConfig, result_values
from finetune.model_runner import BEST, ModelRunner
from finetune.preprocessing import Preprocessor
from finetune.results import Results
from finetune.starting_point import StartingPoint, find_starting_point
from finetune.task import Task
from finetune.task_builder import get_tasks
from model.command import locked, make_folder, write_atomically, write_json

LOCK = ".lock"


class FinetuningRun:
    """All trials of one configuration, seed after seed."""

    def __init__(self, config: FinetuningConfig):
        self.config, self.tasks, self._start = config, get_tasks(config), find_starting_point(config)
        self._preprocessor = Preprocessor(config, self.tasks, self._start.tokenizer)
        self.description = description = describe(config, self.tasks, self._start)
        self._model_dir = os.path.join(config.model_dir, description["config_hash"])
        self._results_dir = os.path.join(config.results_dir, f"{','.join(config.task_names)}-{description['config_hash']}")
        self.results = Results(self._results_dir, description)

    @property
    def seeds(self) -> range:
        """Those that were asked for; the results may hold more, of other calls."""
        return range(self.config.seed, self.config.seed + self.config.num_trials)

    @property
    def trials(self) -> list[dict[str, Any]]:
        """The trials of these seeds that are finished, as Results keeps them."""
        return [trial for seed in self.seeds if self._is_finished(seed) and (trial := self.results.find(seed))]

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return all(map(self._is_finished, self.seeds))

    def run(self) -> Results:
        """Does the trials that are not finished yet; returns the results of all."""
        for seed in self.seeds:
            if self._is_finished(seed):
                logging.info("The trial with seed %d is finished: %s", seed, self._results_dir)
            else:
                self.results.add(self._run_trial(seed))
            # Also what was the last of an earlier call, or was left there by a kill.
            if not self.config.keep_all_models and seed != self.seeds[-1] and tf.io.gfile.exists(self._trial_dir(seed)):
                tf.io.gfile.rmtree(self._trial_dir(seed))
        return self.results

    def _trial_dir(self, seed: int) -> str:
        return os.path.join(self._model_dir, f"seed_{seed}")

    def _is_finished(self, seed: int) -> bool:
        trial = self.results.find(seed)
        if trial is None:
            return False
        tests = [(task.name, split) for task in self.tasks for split in task.get_test_splits()] if self.config.do_eval else []
        scored = all(split in trial["scores"][name] for name, split in tests)
        return scored and all(map(tf.io.gfile.exists, self._outputs(seed).values()))

    def _outputs(self, seed: int) -> dict[tuple[str, str], str]:
        """(task, split) -> file for the predictions that the trial with `seed` shall write."""
        config = self.config
        if not (config.do_eval and config.write_test_outputs) or seed - config.seed >= config.n_writes_test:
            return {}
        names = [(task.name, split) for task in self.tasks for split in task.get_test_splits()]
        return {(task, split): os.path.join(self._results_dir, f"{task}_{split}_seed_{seed}.tsv") for task, split in names}

    def _run_trial(self, seed: int) -> dict[str, Any]:
        """One trial from start weights to scores, as Results keeps it."""
        logging.info("Seed %d of %s in %s", seed, ",".join(self.config.task_names), self._trial_dir(seed))
        self.check_data()
        folder = self._trial_dir(seed)
        make_folder(folder, "model_dir")
        busy = f"another process is at work in {folder!r}: wait for it or stop it, or choose another --seed or --model_dir"
        with locked(os.path.join(folder, LOCK), busy):
            return self._train_and_score(seed)

    def _train_and_score(self, seed: int) -> dict[str, Any]:
        self._write_config(seed)
        runner = ModelRunner(self.config, self.tasks, self._preprocessor, self._start, self._trial_dir(seed), seed)
        if self.config.do_train:
            runner.train()
        best, begin = runner.load_best(), time.monotonic()
        scores, rows, cut, reports = {}, {}, {}, {}
        for task in self.tasks:
            tests = self._score_tests(runner, task, seed)
            scores[task.name] = {"dev": best["dev"][task.name], **{split: found for split, (found, _) in tests.items()}}
            reports[task.name] = {split: report for split, (_, report) in tests.items() if report}
            rows[task.name] = {split: self._preprocessor.num_examples(task, split) for split in ("train", *scores[task.name])}
            cut[task.name] = {split: self._preprocessor.count_cut(task, split) for split in rows[task.name]}
        runner.remove_training_checkpoints()
        seconds = sum(entry["seconds"] for entry in runner.history) + time.monotonic() - begin
        steps = {"selected_step": best["step"], "num_train_steps": runner.train_steps}
        return {"seed": seed, **steps, "seconds": seconds, "rows": rows, "cut": cut, "scores": scores, "reports": reports}

    def check_data(self) -> None:
        """Reads every split that will be needed: a bad row shall not come to light after hours of training."""
        for task in self.tasks:
            for split in ("train", "dev", *(task.get_test_splits() if self.config.do_eval else ())):
                if task.standin_for(split):
                    logging.warning("%s %s: %s stands in for %s", task.name, split, task.path(split), task.standin_for(split))
                self._preprocessor.num_examples(task, split)

    def _score_tests(self, runner: ModelRunner, task: Task, seed: int) -> dict[str, tuple[dict[str, float], dict[str, Any] | None]]:
        """Test split -> (metric -> value, report by label) with the selected weights; writes the predictions that were asked for."""
        if not self.config.do_eval:
            return {}
        scores = {}
        for split in task.get_test_splits():
            outputs = list(runner.predict(task, split))
            scores[split] = runner.score(task, split, outputs), task.get_report(outputs)
            if (task.name, split) in self._outputs(seed):
                make_folder(self._results_dir, "results_dir")
                task.write_predictions(self._outputs(seed)[task.name, split], outputs)
        return scores

    def _write_config(self, seed: int) -> None:
        """config.json and the vocabulary beside the selected weights: all that is needed to use them, or to start from them."""
        config, start, folder = self.config, self._start, os.path.join(self._trial_dir(seed), BEST)
        value = {
            "finetuning": dataclasses.asdict(config) | {"seed": seed},
            "bert_config": start.bert_config.to_dict(),
            "embedding_size": start.embedding_size,
            "tokenizer": start.tokenizer.provenance(),
            "vocab_file": start.tokenizer.vocab_file,
            "init_checkpoint": start.prefix,
        }
        make_folder(folder, "model_dir")
        for path in start.tokenizer.files:
            with tf.io.gfile.GFile(path, "rb") as file:
                write_atomically(os.path.join(folder, os.path.basename(path)), file.read())
        write_json(os.path.join(folder, "config.json"), value)


def describe(config: FinetuningConfig, tasks: list[Task], start: StartingPoint) -> dict[str, Any]:
    """What all trials have in common, and the hash of it under which they are kept."""
    decisive = decisive_values(config, tasks, start)
    origin = {"model": config.model_name, "recipe": config.recipe, "start": start.prefix or "random weights"}
    return {"config_hash": hash_of(decisive), **origin, "files": {task.name: task.describe_files() for task in tasks}, **decisive}


def decisive_values(config: FinetuningConfig, tasks: list[Task], start: StartingPoint, with_tests: bool = True) -> dict[str, Any]:
    """All that the scores of a trial depend on but its seed; without tests, those on dev."""
    splits = [(task, split) for task in tasks for split in ("train", "dev", *(task.get_test_splits() if with_tests else ()))]
    return {
        "config": result_values(config),
        "data": [task.signature(split) for task, split in splits],
        "tokenizer": start.tokenizer.provenance(),
        "bert_config": start.bert_config.to_dict(),
        "embedding_size": start.embedding_size,
        "weights": start.weights_hash(),
    }


def hash_of(values: Any) -> str:
    """12 hexadecimal digits for JSON values, whatever the order of an object's keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
