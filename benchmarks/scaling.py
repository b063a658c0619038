"""How pre-training scales over workers: one process on one core against several processes with a core each, over loopback.

    PYTHONPATH=. python benchmarks/scaling.py --data_dir=DIR --hparams=configs/electra_small.json --batch_size=16 --output_dir=work/scaling

Runs run_pretraining.py itself: alone; on --workers cores with the same total batch; and with the same batch per worker. The three take
turns, --rounds times. Counted is the median step after --warm_up steps, from the first worker's train_metrics.jsonl; the table shows the
median round. Writes scaling.json. Nothing else should use these cores meanwhile.
"""

import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

from absl import flags, logging

from model import command
from model.command import DataError, UserError, read_json, write_json
from model.hooks import HISTORY, read_history

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Setting(NamedTuple):
    """One way to run."""

    name: str
    workers: int
    batch_size: int  # of all workers together


def settings(workers: int, batch_size: int) -> list[Setting]:
    """Alone, and on `workers` cores with the total batch or the batch per worker fixed."""
    return [
        Setting("1 worker", 1, batch_size),
        Setting(f"{workers} workers, same total batch", workers, batch_size),
        Setting(f"{workers} workers, same batch each", workers, batch_size * workers),
    ]


def free_addresses(count: int) -> list[str]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    return addresses


def arguments(data_dir: str, hparams: str, steps: int) -> list[str]:
    """The flags that all runs of run_pretraining.py have in common: every step is timed, and only the last one saved."""
    files = [f"--data_dir={data_dir}", "--model_name=scaling", f"--hparams={hparams}"]
    return [*files, f"--num_train_steps={steps}", "--log_steps=1", f"--save_checkpoints_steps={steps}", "--keep_checkpoint_max=1"]


def run(setting: Setting, given: list[str], folder: pathlib.Path, warm_up: int) -> float:
    """Median seconds of a step. Worker i is bound to the i-th of the cores that this process may use."""
    addresses, cores = free_addresses(setting.workers), sorted(os.sched_getaffinity(0))
    processes, errors = [], []
    for index, core in zip(range(setting.workers), cores, strict=False):
        environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
        if setting.workers > 1:
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        program = ["taskset", "--cpu-list", str(core), sys.executable, str(ROOT / "run_pretraining.py"), *given]
        program += [f"--train_batch_size={setting.batch_size}", f"--model_dir={folder}"]
        errors.append(tempfile.TemporaryFile("w+"))  # no pipe: whoever fills one up would keep the others waiting
        processes.append(subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL, stderr=errors[-1]))
    for process in processes:
        process.wait()
    for process, error in zip(processes, errors, strict=True):
        if process.returncode:
            error.seek(0)
            reason = (error.read().strip().splitlines() or ["it said nothing"])[-1]
            raise DataError(f"{setting.name}: run_pretraining.py ended with {process.returncode}: {reason}")
    seconds = [1.0 / row["steps_per_second"] for row in read_history(str(folder / HISTORY))[warm_up:]]
    shutil.rmtree(folder)
    return statistics.median(seconds)


def summarize(rounds: dict[str, list[float]], ways: list[Setting]) -> list[dict[str, Any]]:
    """A row per way: examples per second of the median round, and what share of `workers` times one worker's rate that is."""
    rows: list[dict[str, Any]] = []
    for way in ways:
        seconds = statistics.median(rounds[way.name])
        rate = way.batch_size / seconds
        alone = rows[0]["examples_per_second"] if rows else rate
        row = {"setting": way.name, "workers": way.workers, "batch_size": way.batch_size, "seconds_per_step": seconds}
        rows.append({**row, "examples_per_second": rate, "speed_up": rate / alone, "efficiency": rate / alone / way.workers})
    return rows


def main() -> None:
    values = flags.FLAGS
    data_dir, folder = command.required("data_dir"), pathlib.Path(command.required("output_dir"))
    cores = len(os.sched_getaffinity(0))
    if not 2 <= values.workers <= cores:
        raise UserError(f"workers must be from 2 to {cores}, as many as there are cores, got {values.workers} (--workers)")
    if values.batch_size % values.workers:
        raise UserError(f"batch_size {values.batch_size} is not a multiple of {values.workers} workers (--batch_size, --workers)")
    steps = values.warm_up + values.steps
    given = arguments(data_dir, values.hparams, steps)
    ways = settings(values.workers, values.batch_size)
    rounds: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(values.rounds):
        for way in ways:
            rounds[way.name].append(run(way, given, folder / f"run-{number}", values.warm_up))
            logging.info("round %d, %s: %.3f s a step", number + 1, way.name, rounds[way.name][-1])
    rows = summarize(rounds, ways)
    hparams = read_json(values.hparams, "hparams") if os.path.isfile(values.hparams) else json.loads(values.hparams)
    write_json(str(folder / "scaling.json"), {"hparams": hparams, "steps": values.steps, "seconds_of_rounds": rounds, "settings": rows})
    print(f"{'':<34}{'batch':>7}{'s/step':>9}{'examples/s':>12}{'speed-up':>10}{'efficiency':>12}")
    for row in rows:
        numbers = f"{row['batch_size']:>7}{row['seconds_per_step']:>9.3f}{row['examples_per_second']:>12.1f}"
        print(f"{row['setting']:<34}{numbers}{row['speed_up']:>10.2f}{row['efficiency']:>12.0%}")


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "folder with vocab.txt and pretrain_tfrecords/")
    flags.DEFINE_string("hparams", str(ROOT / "configs" / "electra_small.json"), "as for run_pretraining.py")
    flags.DEFINE_integer("workers", 2, "processes, each on a core of its own", lower_bound=2)
    flags.DEFINE_integer("batch_size", 16, "examples of a step of one worker", lower_bound=1)
    flags.DEFINE_integer("warm_up", 5, "steps that are not counted", lower_bound=1)
    flags.DEFINE_integer("steps", 20, "steps that are counted", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "times that each setting runs", lower_bound=1)
    flags.DEFINE_string("output_dir", None, "folder for scaling.json")
    command.run(main)
