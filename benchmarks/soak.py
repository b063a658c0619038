"""Pre-trains for a long time, with evaluation and checkpoints on the way, and shows whether memory stays flat and steps stay fast.

    python benchmarks/soak.py --data_dir=work/data --output_dir=work/soak --minutes=30

Flags as for run_pretraining.py; the model goes to OUTPUT_DIR/model. Every --save_checkpoints_steps a checkpoint is written and the held-out
examples are evaluated. Writes soak.json and soak.png, and prints what became of memory and time from the first third to the last.
"""

import io
import os
import resource
import statistics
import time
from collections.abc import Mapping
from typing import Any

from absl import flags, logging

from benchmarks import contest
from configure_pretraining import PretrainingConfig
from model import command, hparams
from model.command import write_atomically, write_json
from model.estimator import Hook
from pretrain import pretraining_run
from pretrain.pretrain_data import eval_input_fn, find_records, train_input_fn

_SCRIPT_FLAGS = ("model_name", "data_dir", "model_dir", "log_steps", "num_train_steps")
_DEFAULTS = {"train_batch_size": 32, "save_checkpoints_steps": 50, "num_eval_steps": 8, "mixed_precision": True, "keep_checkpoint_max": 2}
_STEPS = 10  # a row of measurements


def resident_memory() -> int:
    """Bytes of this process that lie in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class SoakHook(Hook):
    """A row every few steps: time, memory, and what a step took."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.start = time.monotonic()

    def begin(self, step: int, max_steps: int) -> None:
        self._step, self._wall, self._cpu = step, time.monotonic(), time.process_time()

    def after_steps(self, step: int, metrics: Mapping[str, float]) -> None:
        wall, cpu, steps = time.monotonic(), time.process_time(), step - self._step
        row = {"step": step, "minutes": (wall - self.start) / 60, "memory": resident_memory(), "loss": metrics["loss"]}
        self.rows.append({**row, "seconds": (wall - self._wall) / steps, "cpu_seconds": (cpu - self._cpu) / steps})
        self._step, self._wall, self._cpu = step, wall, cpu


def soak(config: PretrainingConfig, minutes: float) -> list[dict[str, float]]:
    """The rows of a run of `minutes`."""
    records = find_records(config.pretrain_tfrecords, "pretrain_tfrecords", config.max_seq_length)
    held_out = find_records(config.eval_tfrecords, "eval_tfrecords", config.max_seq_length)
    estimator = pretraining_run.make_estimator(config, pretraining_run.read_vocabulary(config, [records, held_out]))
    hook, step = SoakHook(), estimator.restore_or_initialize()
    while time.monotonic() - hook.start < 60 * minutes:
        step = estimator.train(train_input_fn(records, config.max_seq_length, config.seed), step + config.save_checkpoints_steps, [hook])
        metrics = estimator.evaluate(eval_input_fn(held_out, config.max_seq_length), config.num_eval_steps or None)
        logging.info("step %d: %.0f MB, held-out loss %.2f", step, hook.rows[-1]["memory"] / 1e6, metrics["loss"])
    return hook.rows


def summarize(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Medians of the first and the last third; the first rows, in which functions are traced, are left out."""
    rows = [row for row in rows if row["step"] > rows[0]["step"] + 2 * _STEPS] or rows
    third = max(1, len(rows) // 3)
    return {
        name: [statistics.median(row[name] for row in part) for part in (rows[:third], rows[-third:])]
        for name in ("memory", "seconds", "cpu_seconds")
    }


def draw(rows: list[dict[str, float]], path: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    minutes = [row["minutes"] for row in rows]
    memory, speed = figure.subplots(1, 2)
    memory.plot(minutes, [row["memory"] / 2**30 for row in rows], linewidth=1.2)
    highest = max(row["memory"] for row in rows) / 2**30
    memory.set(title="resident memory", xlabel="minutes", ylabel="GiB", ylim=(0, 1.2 * highest))
    speed.plot(minutes, [row["seconds"] for row in rows], linewidth=1.2, label="wall")
    speed.plot(minutes, [row["cpu_seconds"] for row in rows], linewidth=1.2, label="CPU, all threads")
    speed.set(title="seconds a step", xlabel="minutes", ylim=(0, 2 * statistics.median(row["cpu_seconds"] for row in rows)))
    speed.legend(fontsize="small")
    for axes in (memory, speed):
        axes.grid(alpha=0.3)
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    write_atomically(path, image.getvalue())


def main() -> None:
    output_dir, data_dir = command.required("output_dir"), command.required("data_dir")
    settings = {**_DEFAULTS, **hparams.collect(PretrainingConfig, flags.FLAGS.hparams, skip=_SCRIPT_FLAGS)}
    own = {"model_dir": os.path.join(output_dir, "model"), "log_steps": _STEPS}
    rows = soak(PretrainingConfig.create("soak", data_dir, {**settings, **own}), flags.FLAGS.minutes)
    summary = summarize(rows)
    lines = [
        ("memory", *(f"{value / 2**20:,.0f} MiB" for value in summary["memory"])),
        ("a step, wall", *(f"{value:.3f} s" for value in summary["seconds"])),
        ("a step, CPU", *(f"{value:.3f} s" for value in summary["cpu_seconds"])),
    ]
    print(contest.table([("median of", "the first third", "the last third"), *lines]))
    draw(rows, os.path.join(output_dir, "soak.png"))
    write_json(os.path.join(output_dir, "soak.json"), {"settings": settings, "summary": summary, "rows": rows})


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "folder with vocab.txt and pretrain_tfrecords/")
    flags.DEFINE_float("minutes", 30.0, "how long to train", lower_bound=0.0)
    contest.define_settings(PretrainingConfig, _SCRIPT_FLAGS)


if __name__ == "__main__":
    define_flags()
    command.run(main)
