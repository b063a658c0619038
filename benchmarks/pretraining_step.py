"""Times one pre-training step: ours against transformers on PyTorch, on identical shapes, in turns.

    python benchmarks/pretraining_step.py --output_dir=work/pretraining_step
    python benchmarks/pretraining_step.py --output_dir=work/base --model_size=base --max_seq_length=512 --train_batch_size=32   # a GPU

A step is what training does: masks, generator, samples, discriminator, both losses, backward pass, clipping, Adam. Settings come from one
flag per field of PretrainingConfig, as for run_pretraining.py. Both sides gather the masked positions before the vocabulary. Writes
pretraining_step.json and a table; --profile adds where our time goes.
"""

import collections
import glob
import json
import os
import platform
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags, logging

from benchmarks import contest
from configure_pretraining import PretrainingConfig
from flops_computation import ACTUAL, training_cost
from model import command, hparams
from model.command import write_json
from model.devices import device_kind
from model.estimator import InputContext
from pretrain import pretraining_run
from pretrain.pretrain_data import SpecialTokens
from pretrain.pretraining_model import get_generator_config, get_model_config
from pretrain.pretraining_run import Vocabulary

RIVALS: dict[str, dict[str, Any]] = {
    "ours-bfloat16": {"kind": "ours", "precision": "bfloat16"},
    "ours-float32": {"kind": "ours", "precision": "float32"},
    "torch-bfloat16": {"kind": "torch", "precision": "bfloat16", "is_compiled": False},
    "torch-float32": {"kind": "torch", "precision": "float32", "is_compiled": False},
    "compiled-bfloat16": {"kind": "torch", "precision": "bfloat16", "is_compiled": True},
    "compiled-float32": {"kind": "torch", "precision": "float32", "is_compiled": True},
}
SPECIAL = SpecialTokens(cls=2, sep=3, mask=4)
DEFAULTS = {"vocab_size": 40_000, "train_batch_size": 32}
_SCRIPT_FLAGS = ("model_name", "data_dir", "precision")
_PEAK = {"CPU": (4096, 2), "GPU": (8192, 100)}  # size of the products that show a device's peak, and how many at a time


def make_config(settings: dict[str, Any]) -> PretrainingConfig:
    return PretrainingConfig.create("benchmark", "", {**DEFAULTS, **settings})


def make_examples(config: PretrainingConfig) -> dict[str, np.ndarray]:
    """One batch of full rows of random pieces, int32 [B, L]."""
    assert config.vocab_size, "set by make_config"
    shape = (config.train_batch_size, config.max_seq_length)
    ids = np.random.default_rng(0).integers(5, config.vocab_size, shape, dtype=np.int32)
    ids[:, 0], ids[:, -1] = SPECIAL.cls, SPECIAL.sep
    return {"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}


def our_steps(config: PretrainingConfig) -> Callable[[int], Any]:
    """repeat(times) of the estimator's own loop."""
    assert config.vocab_size, "set by make_config"
    estimator = pretraining_run.make_estimator(config, Vocabulary(SPECIAL, config.vocab_size, {}))

    def input_fn(context: InputContext) -> tf.data.Dataset:
        examples = {**make_examples(config), "position": np.arange(config.train_batch_size)}
        return tf.data.Dataset.from_tensors(examples).repeat()

    batches = estimator.iterate(input_fn, InputContext(config.train_batch_size))

    def repeat(times: int) -> float:
        for _ in range(times):
            sums = estimator.train_steps(batches, 1)
        return float(sums["gradient_norm"])  # waits for the device

    return repeat


def torch_steps(config: PretrainingConfig, is_compiled: bool) -> Callable[[int], Any]:
    import torch  # only the rivals' processes pay for it

    from benchmarks.torch_rivals import ReplacedTokenDetection, to_electra_config, training_step

    assert config.vocab_size and config.precision, "set by make_config and the rival"
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = get_model_config(config, config.vocab_size)
    width = config.embedding_size or shape.hidden_size
    discriminator, generator = (to_electra_config(each, width) for each in (shape, get_generator_config(config, shape)))
    model = ReplacedTokenDetection(discriminator, generator, SPECIAL.mask, config.gen_weight, config.disc_weight).to(device)
    step = training_step(model, list(model.parameters()), config.precision, is_compiled)
    examples = make_examples(config)
    draws = np.random.default_rng(1)
    rows = [draws.permutation(config.max_seq_length - 2)[: config.max_predictions_per_seq] + 1 for _ in examples["input_ids"]]
    inputs = [torch.tensor(np.asarray(value, np.int64), device=device) for value in (*examples.values(), np.stack(rows))]

    def repeat(times: int) -> float:
        for _ in range(times):
            loss = step(*inputs)
        return loss.item()  # waits for the device

    return repeat


def peak_products(precision: str, size: int) -> Callable[[int], Any]:
    """repeat(times) of one large matrix product of TensorFlow: the peak that a step is held against."""
    left, right = (tf.cast(tf.random.stateless_normal([size, size], [0, seed]), precision) for seed in (1, 2))

    def repeat(times: int) -> None:
        for _ in range(times):
            product = tf.matmul(left, right)
        product[0, 0].numpy()

    return repeat


def make_rival(spec: dict[str, Any]) -> Callable[[int], Any]:
    if spec["kind"] == "peak":
        return peak_products(spec["precision"], spec["size"])
    config = make_config({**spec["settings"], "precision": spec["precision"]})
    return our_steps(config) if spec["kind"] == "ours" else torch_steps(config, spec["is_compiled"])


def describe(rows: list[dict[str, Any]], config: PretrainingConfig, peaks: dict[str, float]) -> None:
    """Adds to every row what its seconds mean."""
    assert config.vocab_size, "set by make_config"
    operations = training_cost(config, config.vocab_size, ACTUAL).step
    fastest = min((row["seconds"] for row in rows if RIVALS[row["name"]]["kind"] == "torch"), default=None)
    for row in rows:
        rate = operations / row["seconds"]
        row |= {"tokens_per_second": config.train_batch_size * config.max_seq_length / row["seconds"], "flops_per_second": rate}
        row["share_of_peak"] = rate / peaks[RIVALS[row["name"]]["precision"]]
        row["times_fastest_torch"] = fastest / row["seconds"] if fastest else None


def make_table(rows: list[dict[str, Any]]) -> str:
    head = ("step", "seconds", "fastest", "tokens/s", "CPU s", "peak memory", "share of matmul peak", "times the fastest torch")
    lines = [
        (
            row["name"],
            f"{row['seconds']:.3f}",
            f"{row['fastest']:.3f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['cpu_seconds']:.2f}",
            f"{row['memory'] / 2**30:.2f} GiB",
            f"{row['share_of_peak']:.0%}",
            f"{row['times_fastest_torch']:.2f}" if row["times_fastest_torch"] else "",
        )
        for row in rows
    ]
    return contest.table([head, *lines])


def profile(repeat: Callable[[int], Any], times: int) -> dict[str, float]:
    """Seconds of thread time a step by kind of operation, the longest first, from TensorFlow's own trace."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    repeat(2)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            repeat(times)
        space = xplane_pb2.XSpace()
        (path,) = glob.glob(os.path.join(folder, "**", "*.xplane.pb"), recursive=True)
        with open(path, "rb") as file:
            space.ParseFromString(file.read())
    seconds: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name, _, kind = plane.event_metadata[event.metadata_id].name.partition(":")
                kind = "functions compiled by XLA" if name == "CpuExecutable" else kind
                if kind and name and not kind.startswith((":", " ")):
                    seconds[kind.partition("#")[0]] += event.duration_ps / 1e12 / times  # type: ignore[assignment]
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def main() -> None:
    if flags.FLAGS.rival:
        contest.answer(make_rival(json.loads(flags.FLAGS.rival)))
        return
    output_dir = command.required("output_dir")
    settings = hparams.collect(PretrainingConfig, flags.FLAGS.hparams, skip=_SCRIPT_FLAGS)
    config = make_config(settings)
    specs = {name: {**RIVALS[name], "settings": settings} for name in contest.chosen("rivals", RIVALS)}
    peaks, (size, count) = {}, _PEAK[device_kind(False)]
    for precision in sorted({spec["precision"] for spec in specs.values()}):
        peak = {"kind": "peak", "precision": precision, "size": size}
        (row,) = contest.race(__file__, {"peak": peak}, rounds=5, times=count, warm_up=count)
        peaks[precision] = 2 * size**3 / row["fastest"]
        logging.info("matrix products in %s: %.2f TFLOP/s", precision, peaks[precision] / 1e12)
    rows = contest.race(__file__, specs, flags.FLAGS.rounds, flags.FLAGS.steps, warm_up=3)
    describe(rows, config, peaks)
    result: dict[str, Any] = {
        "settings": settings,
        "processor": platform.processor(),
        "cores": os.cpu_count(),
        "device": device_kind(False),
    }
    result |= {"peaks": peaks, "rivals": rows}
    print(make_table(rows))
    if flags.FLAGS.profile:
        result["profile"] = profile(our_steps(make_config({**settings, "precision": flags.FLAGS.profile})), flags.FLAGS.steps)
        lines = [(name, f"{seconds:.3f}") for name, seconds in list(result["profile"].items())[:20]]
        print("\n" + contest.table([("operation", "thread seconds a step"), *lines]))
    os.makedirs(output_dir, exist_ok=True)
    write_json(os.path.join(output_dir, "pretraining_step.json"), result)


def define_flags() -> None:
    flags.DEFINE_list("rivals", list(RIVALS), "whom to time")
    flags.DEFINE_integer("steps", 3, "steps in each round", lower_bound=1)
    flags.DEFINE_enum("profile", None, ["float32", "bfloat16", "float16"], "show where our time goes in this precision")
    contest.define_flags(PretrainingConfig, _SCRIPT_FLAGS, rounds=7)


if __name__ == "__main__":
    define_flags()
    command.run(main)
