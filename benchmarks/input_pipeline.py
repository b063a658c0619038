"""Times reading TFRecords into batches against what a pre-training step consumes on the same device.

    python benchmarks/input_pipeline.py --data_dir=work/data --output_dir=work/input_pipeline

Flags as for run_pretraining.py. Batches are read as in training, from a start in the middle of an epoch, and thrown away. Writes
input_pipeline.json and prints a table.
"""

import os
import statistics
import time

from absl import flags

from benchmarks import contest
from benchmarks.pretraining_step import DEFAULTS, make_config, our_steps
from configure_pretraining import PretrainingConfig
from model import command, hparams
from model.command import write_json
from model.estimator import InputContext
from pretrain.pretrain_data import find_records, train_input_fn

_SCRIPT_FLAGS = ("model_name", "data_dir")
_BATCHES = 200  # in each round
_STEPS = 3


def reading_rates(config: PretrainingConfig, rounds: int) -> list[float]:
    """Records per second in each round, after one that does not count."""
    records = find_records(config.pretrain_tfrecords, "pretrain_tfrecords", config.max_seq_length)
    start = records.total // config.train_batch_size // 2
    batches = iter(train_input_fn(records, config.max_seq_length, config.seed)(InputContext(config.train_batch_size, start)))
    rates = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        for _ in range(_BATCHES):
            next(batches)
        rates.append(_BATCHES * config.train_batch_size / (time.perf_counter() - begin))
    return rates[1:]


def training_rates(config: PretrainingConfig, rounds: int) -> list[float]:
    """Examples per second of the step alone, on a batch that lies ready."""
    repeat, rates = our_steps(config), []
    repeat(_STEPS)
    for _ in range(rounds):
        begin = time.perf_counter()
        repeat(_STEPS)
        rates.append(_STEPS * config.train_batch_size / (time.perf_counter() - begin))
    return rates


def main() -> None:
    output_dir, data_dir = command.required("output_dir"), command.required("data_dir")
    settings = {**DEFAULTS, "precision": "bfloat16", **hparams.collect(PretrainingConfig, flags.FLAGS.hparams, skip=_SCRIPT_FLAGS)}
    config = PretrainingConfig.create("benchmark", data_dir, settings)
    reading = reading_rates(config, flags.FLAGS.rounds)
    training = training_rates(make_config(settings), flags.FLAGS.rounds)
    times = statistics.median(reading) / statistics.median(training)
    row = (f"{config.precision}", f"{statistics.median(reading):,.0f}", f"{statistics.median(training):,.1f}", f"{times:,.0f}")
    print(contest.table([("step in", "records read per second", "examples the step consumes per second", "times"), row]))
    os.makedirs(output_dir, exist_ok=True)
    write_json(
        os.path.join(output_dir, "input_pipeline.json"), {"settings": settings, "reading": reading, "training": training, "times": times}
    )


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "folder with pretrain_tfrecords/")
    flags.DEFINE_integer("rounds", 5, "rounds of which the median counts", lower_bound=1)
    contest.define_settings(PretrainingConfig, _SCRIPT_FLAGS)


if __name__ == "__main__":
    define_flags()
    command.run(main)
