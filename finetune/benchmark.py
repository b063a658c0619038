"""The benchmark: fine-tuning runs one after the other, and the published table with our row beside the published ones.

The table is written after every task, as JSON, Markdown and a page with plots (benchmark_page.py), to a folder named after all that
the scores depend on, so that tables of different settings never mix. What was finished by an earlier call is not done again.
"""

import dataclasses
import hashlib
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from configure_finetuning import FinetuningConfig
from finetune.finetuning_run import FinetuningRun
from finetune.results import NUMBERS, duration, numbers, sum_reports, summarize
from finetune.task import Task
from model.command import UserError, make_folder, write_atomically, write_json

# Scores of SK Planet's table for Dialog-KoELECTRA (github.com/skplanet/Dialog-KoELECTRA). The texts are those of the official files.
TITLES = {
    "nsmc": "NSMC",
    "question-pair": "Question Pair",
    "hate-speech": "Korean Hate Speech",
    "naver-ner": "Naver NER",
    "kornli": "KorNLI",
    "korsts": "KorSTS",
}
METRICS = dict(zip(TITLES, ("accuracy", "accuracy", "macro F1", "F1", "accuracy", "Spearman"), strict=True))
PUBLISHED = {
    "DistilKoBERT": dict(zip(TITLES, (88.60, 92.48, 60.72, 84.65, 72.00, 72.59), strict=True)),
    "KoELECTRA-Small-v3": dict(zip(TITLES, (89.36, 94.85, 63.07, 85.40, 78.60, 80.79), strict=True)),
    "Dialog-KoELECTRA-Small": dict(zip(TITLES, (90.01, 94.99, 68.26, 85.51, 78.54, 78.96), strict=True)),
    "KoELECTRA-Base-v3": dict(zip(TITLES, (90.63, 95.25, 67.61, 88.11, 82.24, 85.53), strict=True)),
}


@dataclasses.dataclass(frozen=True)
class TaskScore:
    """What one task scored on its test split, over the trials (seeds).

    summary: mean, std, median, interval, ... (finetune.results.summarize) of `metric`; scores: seed -> score.
    standins: split -> the file that was read in place of the official one.
    seconds: mean of a trial; of a model for several tasks that of all of them.
    report: scores label by label and, for classification, the confusion matrix; None for regression.
    """

    task: str
    metric: str
    summary: Mapping[str, Any]
    scores: Mapping[int, float]
    test_rows: int
    train_rows: int
    standins: Mapping[str, str]
    recipe: str
    seconds: float
    config_hash: str
    report: Mapping[str, Any] | None

    @property
    def title(self) -> str:
        return TITLES.get(self.task, self.task)

    def cell(self) -> str:
        """The score as the table shows it: "85.14 ± 0.07 (stand-in)"."""
        mean, std, *_ = numbers(self.summary)
        return mean + (f" ± {std}" if self.summary["trials"] > 1 else "") + (" (stand-in)" if self.standins else "")


class Benchmark:
    """All runs of a benchmark: one for each task, or one for all of them."""

    def __init__(self, configs: Sequence[FinetuningConfig]):
        """Raises UserError for settings, checkpoint or vocabulary that do not fit."""
        if not configs[0].do_eval:
            raise UserError("the benchmark table needs scores on the test splits (--do_eval)")
        self._runs = [FinetuningRun(config) for config in configs]
        decisive = [run.description["config_hash"] for run in self._runs] + [f"{seed}" for seed in self._runs[0].seeds]
        self.config_hash = hashlib.sha256("/".join(decisive).encode()).hexdigest()[:12]
        self.folder = os.path.join(configs[0].results_dir, f"benchmark-{self.config_hash}")

    def run(self) -> str:
        """Does what is not done yet and returns the table as Markdown.

        Raises:
          UserError: a file of any task is missing or malformed; then nothing was trained.
        """
        for run in self._runs:
            if not run.is_finished:
                run.check_data()
        for number, run in enumerate(self._runs, 1):
            logging.info("%s: run %d of %d", ", ".join(run.config.task_names), number, len(self._runs))
            run.run()
            table = self.write()
        return table

    def write(self) -> str:
        """Writes benchmark.json, .md and .html with the tasks that are finished; returns the Markdown."""
        from finetune import benchmark_page  # late: it imports matplotlib

        value = self.describe()
        markdown = to_markdown(value)
        make_folder(self.folder, "results_dir")
        write_json(os.path.join(self.folder, "benchmark.json"), {**value, "tasks": [dataclasses.asdict(score) for score in value["tasks"]]})
        write_atomically(os.path.join(self.folder, "benchmark.md"), markdown)
        write_atomically(os.path.join(self.folder, "benchmark.html"), benchmark_page.render(value))
        return markdown

    def describe(self) -> dict[str, Any]:
        """What the table says; "tasks" are TaskScores."""
        first = self._runs[0]
        several = len(first.tasks) > 1
        scores = [score_of(run, task) for run in self._runs if run.is_finished for task in run.tasks]
        return {
            "config_hash": self.config_hash,
            "model": first.config.model_name,
            "start": first.description["start"],
            "models": "one for all tasks" if several else "one for each task",
            "seeds": sorted({seed for score in scores for seed in score.scores}),
            "seconds": sum(trial["seconds"] for run in self._runs for trial in run.trials),
            "tasks": scores,
            "published": PUBLISHED,
        }


def score_of(run: FinetuningRun, task: Task) -> TaskScore:
    """The test score of `task` in a finished run."""
    trials, split, metric = run.trials, task.get_test_splits()[0], task.get_scorer().main_metric
    files = run.description["files"][task.name]
    rows = trials[0]["rows"][task.name]
    return TaskScore(
        task=task.name,
        metric=METRICS.get(task.name, metric),
        summary=summarize(trials)[task.name][split][metric],
        scores={trial["seed"]: trial["scores"][task.name][split][metric] for trial in trials},
        test_rows=rows[split],
        train_rows=rows["train"],
        standins={split: found["file"] for split, found in files.items() if found["standin_for"] and "share_of_train" not in found},
        recipe=describe_recipe(run.config),
        seconds=statistics.fmean(trial["seconds"] for trial in trials),
        config_hash=run.description["config_hash"],
        report=sum_reports(trials).get(f"{task.name} {split}"),
    )


def describe_recipe(config: FinetuningConfig) -> str:
    """google: lr 0.0001, 3 epochs, batch 32, length 128"""
    batch, length = config.train_batch_size, config.max_seq_length
    settings = f"lr {config.learning_rate:g}, {config.num_train_epochs:g} epochs, batch {batch}, length {length}"
    return f"{config.recipe}: {settings}"


# ---- Markdown


def table_rows(value: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table's cells: a header, the published rows, and ours last; a column for each task of the benchmark and each other one."""
    ours = {score.task: score for score in value["tasks"]}
    names = [*TITLES, *(name for name in ours if name not in TITLES)]
    header = [f"{TITLES.get(name, name)} {METRICS[name] if name in METRICS else ours[name].metric}" for name in names]
    published = [
        (model, *(f"{scores[name]:.2f}" if name in scores else "-" for name in names)) for model, scores in value["published"].items()
    ]
    row = (f"**{value['model']}** (ours)", *(ours[name].cell() if name in ours else "-" for name in names))
    return [("", *header), *published, row]


DETAILS = ("task", "metric", "recipe", *NUMBERS, "seeds", "test rows", "train rows", "time/seed")


def detail_rows(value: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row for each of our scores, under DETAILS."""
    return [
        (
            score.title,
            score.metric,
            score.recipe,
            *numbers(score.summary),
            str(score.summary["trials"]),
            f"{score.test_rows:,}",
            f"{score.train_rows:,}",
            duration(score.seconds),
        )
        for score in value["tasks"]
    ]


def notes(value: Mapping[str, Any]) -> list[str]:
    """What has to be known to read the numbers."""
    lines = [
        f"Start: {value['start']}; {value['models']}; weights selected on dev; seeds {', '.join(map(str, value['seeds']))}; "
        f"{duration(value['seconds'])} in all. Mean ± standard deviation over the seeds.",
        "The other rows are published scores of full-size models, quoted, not measured here; they were selected on the test files.",
    ]
    for score in value["tasks"]:
        if score.standins:
            files = ", ".join(f"{split} is {file}" for split, file in score.standins.items())
            lines.append(
                f"{score.title} (stand-in): {files}, not the official file, so its score does not compare with the published ones."
            )
    return lines


def to_markdown(value: Mapping[str, Any]) -> str:
    """The table, the details of our row, and what has to be known to read them."""
    parts = [_markdown_table(table_rows(value)), _markdown_table([DETAILS, *detail_rows(value)])]
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes(value))]) + "\n"


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the header. Columns are aligned, so that the text can be read as it is, too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    header, *body = ("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells)
    return "\n".join([header, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *body])
