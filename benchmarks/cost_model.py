"""What pre-training should take on 8 to 256 accelerators, on paper: compute, all-reduce and input of a step.

    PYTHONPATH=. python benchmarks/cost_model.py --input_rate=RECORDS --share=0.5 [--hparams=FILE] [--output=cost_model.json]

Peaks and bandwidths are the published ones. Two constants are measured ones, given by flags: --input_rate, records per second that the
input pipeline of a host prepares, and --share, the share of an accelerator's peak that a step reaches alone. docs/scaling.md explains
the model.

    step = max(compute + all-reduce, input); nothing of the all-reduce is hidden behind the backward pass, the input is, by prefetching
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags

from configure_pretraining import PretrainingConfig
from flops_computation import ACTUAL, DEFAULT_VOCAB_SIZE, count_parameters, training_cost
from model import command, hparams
from model.command import write_json

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIGS = [str(ROOT / "configs" / f"electra_{size}.json") for size in ("small", "base", "large")]
COUNTS = (8, 16, 32, 64, 128, 256)
BYTES_OF_A_GRADIENT = 4  # float32, the embedding tables as dense as the rest
BYTES_OF_A_RECORD_PER_TOKEN = 5  # varints of three lists: ids of two or three bytes, zeros and ones of one


class Accelerator(NamedTuple):
    """One replica: what computes it, and how fast gradients leave it."""

    name: str
    peak: float  # bfloat16 FLOP/s of a replica
    island: int  # replicas that the fast links connect; beyond, the network counts
    link: float  # bytes/s that a replica sends to its neighbour in a ring within the island
    network: float  # bytes/s per replica between islands
    hop: float  # seconds of one message; an assumption, not published
    per_host: int  # replicas that one host, with one input pipeline, feeds


# Jouppi et al. 2023, "TPU v4", Table 4: v3 123 TFLOP/s a chip of two cores, 4 links of 70 GB/s; v4 275 TFLOP/s, 6 links of 50 GB/s; A100
# 312 TFLOP/s, 12 links of 25 GB/s. TensorFlow sees two replicas on a v3 chip, which share it and its links, and one on a v4 chip. A ring
# through a torus sends over one link; XLA's all-reduce uses more, so this is the pessimistic reading.
# NVIDIA's data sheet of the H100 SXM: 989 TFLOP/s without sparsity, NVLink 900 GB/s both ways together. Networks: DGX A100 with eight
# adapters of 200 Gb/s and DGX H100 with eight of 400 Gb/s for eight GPUs (NVIDIA's user guides).
ACCELERATORS = [
    Accelerator("TPU v3 core", 123e12 / 2, 2048, 70e9 / 2, 0.0, 1e-6, 8),
    Accelerator("TPU v4 chip", 275e12, 4096, 50e9, 0.0, 1e-6, 4),
    Accelerator("A100", 312e12, 8, 300e9, 25e9, 5e-6, 8),
    Accelerator("H100", 989e12, 8, 450e9, 50e9, 5e-6, 8),
]


class Step(NamedTuple):
    """Seconds of one step and what follows from them."""

    compute: float
    all_reduce: float
    input: float
    examples_per_second: float
    efficiency: float  # of as many replicas that need no all-reduce and wait for no input

    @property
    def seconds(self) -> float:
        return max(self.compute + self.all_reduce, self.input)


def ring_seconds(size: float, members: int, bandwidth: float, hop: float) -> float:
    """A ring all-reduce of `size` bytes: 2 (n - 1) messages of size / n each (Patarasuk and Yuan 2009)."""
    if members < 2:
        return 0.0
    return 2 * (members - 1) * (size / members / bandwidth + hop)


def all_reduce_seconds(size: float, replicas: int, accelerator: Accelerator) -> float:
    """Within islands first, then between them: each replica of an island exchanges its share with those in its place elsewhere."""
    inner = min(replicas, accelerator.island)
    islands = replicas // inner
    return ring_seconds(size, inner, accelerator.link, accelerator.hop) + ring_seconds(
        size / inner, islands, accelerator.network, accelerator.hop
    )


def step(config: PretrainingConfig, replicas: int, accelerator: Accelerator, share: float, input_rate: float) -> Step:
    """One step of `config` with its batch split over `replicas`. `input_rate`: records per second that a host prepares."""
    compute = training_cost(config, DEFAULT_VOCAB_SIZE, ACTUAL).step / (replicas * accelerator.peak * share)
    gradients = BYTES_OF_A_GRADIENT * count_parameters(config, DEFAULT_VOCAB_SIZE).total
    all_reduce = all_reduce_seconds(gradients, replicas, accelerator)
    hosts = -(-replicas // accelerator.per_host)
    read = config.train_batch_size / hosts / input_rate
    seconds = max(compute + all_reduce, read)
    return Step(compute, all_reduce, read, config.train_batch_size / seconds, compute / seconds)


def table(config: PretrainingConfig, share: float, input_rate: float, batch_each: int | None = None) -> list[dict[str, Any]]:
    """A row per accelerator and count for which the batch divides; with `batch_each`, the batch grows with the count."""
    rows = []
    for accelerator in ACCELERATORS:
        for replicas in COUNTS:
            scaled = dataclasses.replace(config, train_batch_size=batch_each * replicas) if batch_each else config
            if scaled.train_batch_size % replicas:
                continue
            found = step(scaled, replicas, accelerator, share, input_rate)
            hosts = -(-replicas // accelerator.per_host)
            needed = found.examples_per_second / hosts
            place = {"accelerator": accelerator.name, "replicas": replicas, "batch_size": scaled.train_batch_size}
            host = {"records_per_host": needed, "bytes_per_host": needed * config.max_seq_length * BYTES_OF_A_RECORD_PER_TOKEN}
            rows.append({**place, **found._asdict(), "seconds": found.seconds, **host})
    return rows


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    heading = "| replicas | batch | compute ms | all-reduce ms | input ms | examples/s | efficiency | records/s a host | MB/s a host |"
    lines = [heading, "|---|" + "---|" * 8]
    for row in rows:
        times = " | ".join(f"{1000 * row[name]:.2f}" for name in ("compute", "all_reduce", "input"))
        host = f"{row['records_per_host']:,.0f} | {row['bytes_per_host'] / 1e6:.1f}"
        lines.append(
            f"| {row['replicas']} x {row['accelerator']} | {row['batch_size']:,} | {times} | {row['examples_per_second']:,.0f} | "
            f"{row['efficiency']:.0%} | {host} |"
        )
    return "\n".join(lines)


def main() -> None:
    values, tables = flags.FLAGS, {}
    for path in [values.hparams] if values.hparams else CONFIGS:
        config = PretrainingConfig.create("", "", hparams.collect(PretrainingConfig, path))
        rows = table(config, values.share, command.required("input_rate"), values.batch_each)
        gradients = BYTES_OF_A_GRADIENT * count_parameters(config, DEFAULT_VOCAB_SIZE).total
        flops = training_cost(config, DEFAULT_VOCAB_SIZE, ACTUAL).step / config.train_batch_size
        name = pathlib.Path(path).stem
        tables[name] = rows
        print(f"{name}: {flops:.2e} FLOP an example, {gradients / 1e6:.0f} MB of gradients\n\n{format_table(rows)}\n")
    if values.output:
        write_json(values.output, {"share": values.share, "input_rate": values.input_rate, "tables": tables})


if __name__ == "__main__":
    flags.DEFINE_float("input_rate", None, "measured: records per second that the input pipeline of a host prepares", lower_bound=1e-3)
    flags.DEFINE_float("share", 0.5, "measured or wished for: share of the peak that a step reaches without all-reduce", lower_bound=1e-3)
    flags.DEFINE_integer("batch_each", None, "examples per replica (default: the batch of the configuration, split)", lower_bound=1)
    flags.DEFINE_string("hparams", None, "one configuration (default: Small, Base and Large of configs/)")
    flags.DEFINE_string("output", None, "JSON file for the numbers")
    command.run(main)
