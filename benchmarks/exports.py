"""What a fine-tuned classifier loses and gains in the formats that it can be exported to: accuracy on its test split, size, latency.

    python benchmarks/exports.py --model=DIR --raw_data_dir=DATA --output_dir=work/exports

Exports the model as SavedModel, ONNX and TFLite (the last two also with int8 weights), runs all on the same ids, and writes exports.json.
Accuracy needs every row; --rows=N takes the first N of the test file. Latency is that of one text of 32 pieces, in turns, medians.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags

from export import onnx_export, saved_model, tflite_export
from export.exported_model import ExportedModel, load_model
from export.exporter import ExportConfig, export
from export.graph_check import Run
from export.served_model import IDS, ServedModel
from model import command
from model.command import UserError, write_json

BATCH, PIECES, ROUNDS = 64, 32, 200


def runners(model: ExportedModel, folder: str, source: str) -> dict[str, tuple[Run, str]]:
    """Name -> (function of a batch, file or folder whose size counts); exports all to `folder`."""
    for name in ("saved_model", "onnx", "tflite"):
        fields = {"checkpoint": source, "part": "finetuned", "format": name, "output_dir": os.path.join(folder, name)}
        export(ExportConfig.create(fields))
    network = tf.function(ServedModel(model).classify, list(IDS.values()), autograph=False)
    signature = tf.saved_model.load(os.path.join(folder, "saved_model")).signatures["classify"]
    found = {
        "our network": (saved_model.runner(lambda **batch: network(*(batch[name] for name in IDS))), ""),
        "SavedModel": (saved_model.runner(signature), os.path.join(folder, "saved_model", "variables")),
    }
    for suffix in ("", ".int8"):
        path = os.path.join(folder, "onnx", f"model{suffix}.onnx")
        found[f"ONNX{suffix}"] = (onnx_export.runner(path), path)
    for suffix in ("", ".int8"):
        path = os.path.join(folder, "tflite", f"model{suffix}.tflite")
        found[f"TFLite{suffix}"] = (tflite_export.runner(path, os.cpu_count()), path)
    return found


def batches(model: ExportedModel, rows: int) -> tuple[list[dict[str, np.ndarray]], list[np.ndarray]]:
    """(ids, labels) of the test split, by length, so that little is padding."""
    task, tokenizer = model.task, model.tokenizer
    assert task is not None
    examples = list(task.get_examples(task.get_test_splits()[0]))[: rows or None]
    features = [task.featurize(example, tokenizer, False)[0] for example in examples]
    features.sort(key=lambda row: len(row["input_ids"]))
    stretches = [features[start : start + BATCH] for start in range(0, len(features), BATCH)]
    labels = [np.array([row[f"{task.name}_label_ids"] for row in stretch]) for stretch in stretches]
    return [_pad(stretch, tokenizer.pad_id) for stretch in stretches], labels


def _pad(rows: Sequence[Mapping[str, Any]], pad: int) -> dict[str, np.ndarray]:
    length = max(len(row["input_ids"]) for row in rows)
    batch = {name: np.zeros((len(rows), length), np.int32) for name in IDS}
    batch["input_ids"] += pad
    for index, row in enumerate(rows):
        size = len(row["input_ids"])
        batch["input_ids"][index, :size], batch["input_mask"][index, :size] = row["input_ids"], 1
        batch["segment_ids"][index, :size] = row["segment_ids"]
    return batch


def accuracy(run: Run, given: Sequence[dict[str, np.ndarray]], labels: Sequence[np.ndarray]) -> float:
    """Share of the rows whose likeliest label is the right one, in %."""
    right = sum(np.count_nonzero(np.argmax(run(batch)["logits"], -1) == label) for batch, label in zip(given, labels, strict=True))
    return 100.0 * right / sum(map(len, labels))


def latencies(runs: Mapping[str, Run], vocab_size: int) -> dict[str, float]:
    """Median milliseconds for one text of PIECES pieces; the rivals take turns."""
    ids = np.random.default_rng(0).integers(0, vocab_size, (1, PIECES)).astype(np.int32)
    batch = {"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(ROUNDS + 20):
        for name, run in runs.items():
            begin = time.perf_counter()
            np.asarray(run(batch)["logits"])
            if number >= 20:  # the first ones are warm-up
                times[name].append(1000.0 * (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in times.items()}


def size_of(path: str) -> int:
    """Bytes of a file, or of all in a folder."""
    if os.path.isdir(path):
        return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)
    return os.path.getsize(path) if path else 0


def main() -> None:
    source, folder = command.required("model"), command.required("output_dir")
    model = load_model(source, "finetuned", {})
    if flags.FLAGS.raw_data_dir and model.task is not None:
        model.task.config = dataclasses.replace(model.task.config, raw_data_dir=flags.FLAGS.raw_data_dir)
    if ServedModel(model).main != "classify" or not model.labels:
        raise UserError(f"task {model.task and model.task.name} has no labels to be counted: give a classifier (--model)")
    found = runners(model, folder, source)
    given, labels = batches(model, flags.FLAGS.rows)
    milliseconds = latencies({name: run for name, (run, _) in found.items()}, model.config.vocab_size)
    rows = []
    for name, (run, path) in found.items():
        scores = {"accuracy": accuracy(run, given, labels), "bytes": size_of(path), "ms": milliseconds[name]}
        rows.append({"format": name, **scores})
        size = f"{scores['bytes'] / 1e6:7.2f} MB" if path else " " * 10
        print(f"{name:12s} {scores['accuracy']:6.2f} %  {size}  {scores['ms']:7.2f} ms", flush=True)
    write_json(os.path.join(folder, "exports.json"), {"rows": sum(map(len, labels)), "pieces": PIECES, "formats": rows})


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "folder of a fine-tuned classifier")
    flags.DEFINE_string("raw_data_dir", None, "folder that holds one folder per task; default: where it was in training")
    flags.DEFINE_string("output_dir", None, "folder for the exported models and exports.json")
    flags.DEFINE_integer("rows", 0, "so many of the test rows; 0: all")
    command.run(main)
