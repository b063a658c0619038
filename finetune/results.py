"""Scores of finished trials: kept as JSON, one file per configuration, and shown as a table."""

import itertools
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from model.command import DataError, locked, make_folder, read_json, write_atomically, write_json


class Results:
    """The finished trials of one configuration, in FOLDER/results.json and, to be read, results.txt.

    A trial is a dict: seed, selected_step, num_train_steps, seconds, and by task and split: rows (number of examples), cut (how many
    examples were cut and how many pieces that cost), scores (metric -> value) and reports (see Task.get_report).
    """

    def __init__(self, folder: str, description: Mapping[str, Any]):
        """`description`: what all trials have in common; the same as that of the trials found in `folder`."""
        self._folder, self._description = folder, dict(description)
        self._json, self._text = os.path.join(folder, "results.json"), os.path.join(folder, "results.txt")
        self.trials = self._read()

    def _read(self) -> list[dict[str, Any]]:
        if not tf.io.gfile.exists(self._json):
            return []
        stored = read_json(self._json, "results_dir")
        if not isinstance(stored, dict) or not _are_trials(stored.get("trials")):
            raise DataError(f"{self._json} is damaged: remove it to score its trials anew (--results_dir)")
        if stored.get("config_hash") != self._description["config_hash"]:
            raise DataError(f"{self._json} holds results of another configuration ({stored.get('config_hash')}) (--results_dir)")
        return stored["trials"]

    def find(self, seed: int) -> dict[str, Any] | None:
        """The finished trial with `seed`, or None."""
        return next((trial for trial in self.trials if trial["seed"] == seed), None)

    def add(self, trial: Mapping[str, Any]) -> None:
        """Keeps a finished trial, in place of an earlier one of the same seed and beside those of other processes; writes both files."""
        make_folder(self._folder, "results_dir")
        with locked(os.path.join(self._folder, ".lock")):
            others = [other for other in self._read() if other["seed"] != trial["seed"]]
            self.trials = sorted([*others, dict(trial)], key=lambda trial: trial["seed"])
            write_json(self._json, {**self._description, "trials": self.trials, "summary": summarize(self.trials)})
            write_atomically(self._text, self.table() + "\n")

    def table(self) -> str:
        """Mean and spread of every metric, the conditions under which they hold, and the scores label by label."""
        lines = [f"{name}: {self._description[name]}" for name in ("model", "recipe", "start", "config_hash")]
        files = self._description["files"]
        lines += [f"files of {task}: {', '.join(itertools.starmap(_file, splits.items()))}" for task, splits in files.items()]
        lines += [f"seeds: {', '.join(str(trial['seed']) for trial in self.trials)}", *self._cut_lines(), ""]
        rows: list[tuple[str, ...]] = [("task", "split", "metric", *NUMBERS, "trials", "rows", "time/trial", "stand-in for")]
        seconds = statistics.fmean(trial["seconds"] for trial in self.trials)
        for task, splits in summarize(self.trials).items():
            standin_for = ", ".join(dict.fromkeys(found["standin_for"] for found in files[task].values() if found["standin_for"]))
            for split, metrics in splits.items():
                for metric, summary in metrics.items():
                    count = f"{next(trial['rows'][task][split] for trial in self.trials if split in trial['rows'][task]):,}"
                    rows.append((task, split, metric, *numbers(summary), str(summary["trials"]), count, duration(seconds), standin_for))
        if not any(row[-1] for row in rows[1:]):
            rows = [row[:-1] for row in rows]
        return "\n".join([*lines, *_align(rows, (0, 1, 2, 10)), *self._report_lines()])

    def _cut_lines(self) -> list[str]:
        """What did not fit max_seq_length; the same in all trials, and 0 is not worth a line."""
        length = self._description["config"]["max_seq_length"]
        return [
            f"cut to {length} pieces: {cut['examples']:,} examples of {task} {split}, {cut['pieces']:,} pieces lost"
            for task, splits in self.trials[0]["cut"].items()
            for split, cut in splits.items()
            if cut["examples"]
        ]

    def _report_lines(self) -> list[str]:
        """Scores label by label, and what each label was taken for."""
        lines = []
        for name, report in sum_reports(self.trials).items():
            rows: list[tuple[str, ...]] = [(name, "precision", "recall", "f1", "rows")]
            for label, found in report["labels"].items():
                rows.append((label, *(f"{found[metric]:.2f}" for metric in rows[0][1:4]), f"{found['rows']:,}"))
            lines += ["", *_align(rows, (0,))]
            if "confusion" in report:
                trials = f", {report['trials']} trials" if report["trials"] > 1 else ""
                header = (f"is \\ taken for{trials}", *report["labels"])
                cells = ((label, *map(str, row)) for label, row in zip(header[1:], report["confusion"], strict=True))
                lines += ["", *_align([header, *cells], (0,))]
        return lines


def _are_trials(trials: Any) -> bool:
    return isinstance(trials, list) and all(isinstance(trial, dict) and type(trial.get("seed")) is int for trial in trials)


def sum_reports(trials: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """ "TASK SPLIT" -> what Task.get_report gave: means of each label's scores, sums of the confusion matrices, number of trials."""
    found_by_split: dict[str, list[dict[str, Any]]] = {}
    for trial in trials:
        for task, splits in trial["reports"].items():
            for split, report in splits.items():
                found_by_split.setdefault(f"{task} {split}", []).append(report)
    return {name: _sum_reports(reports) for name, reports in found_by_split.items()}


def _sum_reports(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    labels = {
        label: {metric: statistics.fmean(report["labels"][label][metric] for report in reports) for metric in ("precision", "recall", "f1")}
        | {"rows": found["rows"]}
        for label, found in reports[0]["labels"].items()
    }
    total: dict[str, Any] = {"labels": labels, "trials": len(reports)}
    if "confusion" in reports[0]:
        total["confusion"] = np.sum([report["confusion"] for report in reports], axis=0).tolist()
    return total


def _file(split: str, found: Mapping[str, Any]) -> str:
    share = f"{100 * found['share_of_train']:g} % of " if "share_of_train" in found else ""
    standin = f" (stand-in for {found['standin_for']})" if found["standin_for"] else ""
    return f"{split} {share}{found['file']}{standin}"


def summarize(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """task -> split -> metric -> trials (how many), mean, median, std (of a sample), interval, min and max over `trials`.

    interval: 95 % bootstrap interval of the mean (percentiles of the means of 10,000 resamples of the trials). It tells how far chance
    in training moves the mean, not how far other test rows would; of three trials it is rough. Null for one trial, as is std.
    """
    values: dict[tuple[str, str, str], list[float]] = {}
    for trial in trials:
        for task, splits in trial["scores"].items():
            for split, metrics in splits.items():
                for metric, value in metrics.items():
                    values.setdefault((task, split, metric), []).append(value)
    summary: dict[str, Any] = {}
    for (task, split, metric), found in values.items():
        summary.setdefault(task, {}).setdefault(split, {})[metric] = _describe(found)
    return summary


def _describe(found: Sequence[float]) -> dict[str, Any]:
    several = len(found) > 1
    return {
        "trials": len(found),
        "mean": statistics.fmean(found),
        "median": statistics.median(found),
        "std": statistics.stdev(found) if several else None,
        "interval": _bootstrap_interval(found) if several else None,
        "min": min(found),
        "max": max(found),
    }


def _bootstrap_interval(found: Sequence[float]) -> list[float]:
    """Always the same for the same numbers."""
    means = np.random.default_rng(0).choice(found, (10_000, len(found))).mean(axis=1)
    return [float(bound) for bound in np.percentile(means, (2.5, 97.5))]


NUMBERS = ("mean", "std", "median", "95 % of means")


def numbers(summary: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """mean, std, median and interval as text."""
    std = "-" if summary["std"] is None else f"{summary['std']:.2f}"
    interval = "-" if summary["interval"] is None else "{:.2f} to {:.2f}".format(*summary["interval"])
    return f"{summary['mean']:.2f}", std, f"{summary['median']:.2f}", interval


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _align(rows: Sequence[Sequence[str]], names: Sequence[int]) -> list[str]:
    """Columns of equal width: those whose numbers are in `names` to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    pad = [str.ljust if column in names else str.rjust for column in range(len(widths))]
    return ["  ".join(fill(cell, width) for fill, cell, width in zip(pad, row, widths, strict=True)).rstrip() for row in rows]
