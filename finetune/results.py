"""Scores of finished trials: kept as JSON, one file per configuration, and shown as a table."""

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from model.command import DataError, read_json, write_atomically, write_json


class Results:
    """The finished trials of one configuration, in FOLDER/results.json and, to be read, results.txt.

    A trial is a dict: seed, selected_step, num_train_steps, seconds, rows: task -> split -> number of examples, and scores:
    task -> split -> metric -> value.
    """

    def __init__(self, folder: str, description: Mapping[str, Any]):
        """`description`: what all trials have in common; the same as that of the trials found in `folder`."""
        self._json, self._text = os.path.join(folder, "results.json"), os.path.join(folder, "results.txt")
        self._description = dict(description)
        self.trials: list[dict[str, Any]] = []
        if tf.io.gfile.exists(self._json):
            stored = read_json(self._json, "results_dir")
            if stored.get("config_hash") != self._description["config_hash"]:
                raise DataError(f"{self._json} holds results of another configuration ({stored.get('config_hash')}) (--results_dir)")
            self.trials = stored["trials"]

    def find(self, seed: int) -> dict[str, Any] | None:
        """The finished trial with `seed`, or None."""
        return next((trial for trial in self.trials if trial["seed"] == seed), None)

    def add(self, trial: Mapping[str, Any]) -> None:
        """Keeps a finished trial, in place of an earlier one of the same seed, and writes both files."""
        others = [other for other in self.trials if other["seed"] != trial["seed"]]
        self.trials = sorted([*others, dict(trial)], key=lambda trial: trial["seed"])
        tf.io.gfile.makedirs(os.path.dirname(self._json))
        write_json(self._json, {**self._description, "trials": self.trials, "summary": summarize(self.trials)})
        write_atomically(self._text, self.table() + "\n")

    def table(self) -> str:
        """Mean and spread of every metric, and the conditions under which they hold."""
        lines = [f"{name}: {self._description[name]}" for name in ("model", "recipe", "start", "config_hash")]
        lines += [f"seeds: {', '.join(str(trial['seed']) for trial in self.trials)}", ""]
        rows = [("task", "split", "metric", "mean", "std", "trials", "rows", "time/trial")]
        seconds = statistics.fmean(trial["seconds"] for trial in self.trials)
        for task, splits in summarize(self.trials).items():
            for split, metrics in splits.items():
                for metric, summary in metrics.items():
                    count = f"{next(trial['rows'][task][split] for trial in self.trials if split in trial['rows'][task]):,}"
                    numbers = (f"{summary['mean']:.2f}", _number(summary["std"]), str(summary["trials"]), count)
                    rows.append((task, split, metric, *numbers, _duration(seconds)))
        return "\n".join([*lines, *_align(rows)])


def summarize(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """task -> split -> metric -> trials (how many), mean, std (of a sample; null for one trial), min and max over `trials`."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for trial in trials:
        for task, splits in trial["scores"].items():
            for split, metrics in splits.items():
                for metric, value in metrics.items():
                    values.setdefault((task, split, metric), []).append(value)
    summary: dict[str, Any] = {}
    for (task, split, metric), found in values.items():
        std = statistics.stdev(found) if len(found) > 1 else None
        line = {"trials": len(found), "mean": statistics.fmean(found), "std": std, "min": min(found), "max": max(found)}
        summary.setdefault(task, {}).setdefault(split, {})[metric] = line
    return summary


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width: names to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    pad = [str.ljust] * 3 + [str.rjust] * (len(widths) - 3)
    return ["  ".join(fill(cell, width) for fill, cell, width in zip(pad, row, widths, strict=True)).rstrip() for row in rows]
