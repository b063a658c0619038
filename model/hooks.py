"""What a run shows of itself: a progress line, TensorBoard curves, and a history file from which the loss curve is drawn."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from model.command import DataError, reason_of, write_atomically
from model.estimator import Hook

HISTORY = "train_metrics.jsonl"


class ProgressHook(Hook):
    """One line per interval: step, loss, the metrics asked for, speed and time left."""

    def __init__(self, names: Sequence[str]):
        self._names = names

    def begin(self, step: int, max_steps: int) -> None:
        self._max_steps, self._step, self._time = max_steps, step, time.monotonic()
        self._first_step, self._first_time, self._compiled = step, self._time, False

    def after_steps(self, step: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        elapsed, steps = max(now - self._time, 1e-9), step - self._step
        # The first interval holds compilation; from the second on, time left is reckoned without it.
        left = (self._max_steps - step) * (now - self._first_time) / max(step - self._first_step, 1)
        if not self._compiled:
            self._first_step, self._first_time, self._compiled = step, now, True
        values = " ".join(f"{name} {metrics[name]:.4g}" for name in self._names if name in metrics)
        speed = f"{steps / elapsed:.2f} steps/s"
        if "tokens" in metrics:
            speed += f", {metrics['tokens'] / elapsed:,.0f} tokens/s"
        logging.info(
            "step %d/%d (%.1f %%) %s | %s, %s left", step, self._max_steps, 100 * step / self._max_steps, values, speed, _clock(left)
        )
        self._step, self._time = step, now

    def after_save(self, step: int, path: str) -> None:
        logging.info("Saved %s", path)


class HistoryHook(Hook):
    """Appends each interval's metrics to MODEL_DIR/train_metrics.jsonl; a resumed run drops lines beyond its first step."""

    def __init__(self, folder: str):
        self._path = os.path.join(folder, HISTORY)

    def begin(self, step: int, max_steps: int) -> None:
        self._lines = [json.dumps(row) for row in read_history(self._path) if row["step"] <= step]
        self._time, self._step = time.monotonic(), step

    def after_steps(self, step: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        row = {"step": step, **metrics, "steps_per_second": (step - self._step) / max(now - self._time, 1e-9)}
        self._time, self._step = now, step
        self._lines.append(json.dumps(row))

    def before_save(self, step: int) -> None:
        # Killed between the two, a run leaves rows too many, which `begin` drops, rather than too few.
        self._write()

    def end(self, step: int) -> None:
        self._write()

    def _write(self) -> None:
        write_atomically(self._path, "".join(f"{line}\n" for line in self._lines))


def read_history(path: str) -> list[dict[str, Any]]:
    """The rows of a history file, [] where there is none; DataError for another file."""
    if not tf.io.gfile.exists(path):
        return []
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            rows = [json.loads(line) for line in file.read().splitlines()]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}): remove it to go on without (--model_dir)") from error
    if not all(isinstance(row, dict) and type(row.get("step")) is int for row in rows):
        raise DataError(f"{path} is damaged, a line of it has no step: remove it to go on without (--model_dir)")
    return rows


class SummaryHook(Hook):
    """TensorBoard scalars, one group per kind: generator/, discriminator/, training/."""

    def __init__(self, folder: str):
        self._folder = folder

    def begin(self, step: int, max_steps: int) -> None:
        try:
            self._writer = tf.summary.create_file_writer(self._folder)
        except tf.errors.OpError as error:
            raise DataError(f"cannot write {self._folder!r}: {reason_of(error)}") from error
        self._time, self._step = time.monotonic(), step

    def after_steps(self, step: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        elapsed = max(now - self._time, 1e-9)
        with self._writer.as_default(step):
            for name, value in metrics.items():
                if name not in ("examples", "tokens"):
                    tf.summary.scalar(f"{_group(name)}/{name}", value)
            tf.summary.scalar("training/steps_per_second", (step - self._step) / elapsed)
            if "tokens" in metrics:
                tf.summary.scalar("training/tokens_per_second", metrics["tokens"] / elapsed)
        self._time, self._step = now, step

    def end(self, step: int) -> None:
        self._writer.close()


def _group(name: str) -> str:
    if name.startswith(("masked_lm", "sampled_masked_lm", "cloze")):
        return "generator"
    return "discriminator" if name.startswith("disc") else "training"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def draw_curves(history: Sequence[Mapping[str, float]], panels: Mapping[str, Sequence[str]], path: str) -> None:
    """Draws metrics over steps as a PNG, one panel per entry of `panels` (title -> metric names); nothing if there are none."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported here: only the end of a run draws
    from matplotlib.figure import Figure

    if not panels:
        return
    figure = Figure(figsize=(4.5 * len(panels), 3.6), layout="constrained")
    for index, (title, names) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1)
        for name in names:
            rows = [row for row in history if name in row]
            axes.plot([row["step"] for row in rows], [row[name] for row in rows], label=name, linewidth=1.2)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    write_atomically(path, image.getvalue())
