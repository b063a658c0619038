"""Times a fine-tuned model at work: one text at a time, and many, ours against transformers on PyTorch, in turns.

    python benchmarks/inference.py --data_dir=work/vocab40k --raw_data_dir=DATA --output_dir=work/inference

Throughput: --batches batches of texts of the test split, sorted by length and padded as run_prediction.py does, PyTorch's cut to their
longest row. Latency: some of them one by one. Both from piece ids on the host to numpy logits on the host. Flags as for
benchmarks/finetuning.py. Writes inference.json and prints two tables.
"""

import json
from collections.abc import Callable
from typing import Any, cast

import tensorflow as tf
from absl import flags

from benchmarks import contest
from benchmarks.finetuning import Batch, Setting, define_flags, describe_lengths, make_table, read_flags, to_torch, torch_classifier, write
from finetune.finetuning_model import FinetuningModel
from finetune.preprocessing import padded_lengths
from model import command
from model.devices import give_batches_a_core_each
from model.estimator import InputContext


def test_batches(setting: Setting, count: int) -> list[Batch]:
    """The batches of run_prediction.py on the first texts of the test split."""
    task = setting.task
    examples = task.get_examples("test")[: count * setting.config.predict_batch_size]
    input_fn, _ = setting.preprocessor.prepare_examples(task, examples)
    return [{name: value.numpy() for name, value in batch.items()} for batch in input_fn(InputContext(0))]


def single_rows(batches: list[Batch], lengths: list[int]) -> list[Batch]:
    """One text of each batch, padded to the next of `lengths`."""
    rows = []
    for batch in batches:
        length = next(each for each in lengths if each >= batch["input_mask"][0].sum())
        rows.append({name: value[:1, :length] if value.ndim > 1 else value[:1] for name, value in batch.items()})
    return rows


def our_predictions(setting: Setting, batches: list[Batch], one_by_one: bool) -> Callable[[int], Any]:
    estimator = setting.runner().estimator
    estimator.restore_or_initialize()
    cast(FinetuningModel, estimator.model).encoder.freeze()  # as finetune.prediction does
    tensors = [{name: tf.constant(value) for name, value in batch.items()} for batch in batches]
    calls: list[Any] = [[each] for each in tensors] if one_by_one else [tensors]

    def repeat(times: int) -> int:
        return sum(1 for _ in range(times) for call in calls for _ in estimator.predict(lambda context, call=call: call))  # type: ignore[misc]

    return repeat


def torch_predictions(setting: Setting, batches: list[Batch], is_compiled: bool) -> Callable[[int], Any]:
    from benchmarks.torch_rivals import inference

    predict = inference(torch_classifier(setting.start, len(setting.task.labels)), setting.config.precision or "float32", is_compiled)
    inputs = [to_torch(batch, ("input_ids", "input_mask", "segment_ids"), pads=is_compiled) for batch in batches]

    def repeat(times: int) -> int:
        return sum(len(predict(*batch).cpu().numpy()) for _ in range(times) for batch in inputs)

    return repeat


def make_rival(spec: dict[str, Any]) -> Callable[[int], Any]:
    setting = Setting(spec)
    batches = test_batches(setting, spec["batches"])
    if spec["one_by_one"]:
        batches = single_rows(batches, padded_lengths(setting.config.max_seq_length))
    if spec["kind"] == "ours":
        return our_predictions(setting, batches, spec["one_by_one"])
    return torch_predictions(setting, batches, spec["is_compiled"])


def main() -> None:
    if flags.FLAGS.rival:
        spec = json.loads(flags.FLAGS.rival)
        if spec["kind"] == "ours":
            give_batches_a_core_each()  # as run_prediction.py does
        contest.answer(make_rival(spec))
        return
    specs, output_dir = read_flags()
    batches = test_batches(Setting(next(iter(specs.values()))), flags.FLAGS.batches)
    results = {}
    for what, one_by_one in (("throughput", False), ("latency", True)):
        rivals = {name: {**spec, "one_by_one": one_by_one} for name, spec in specs.items()}
        results[what] = contest.race(__file__, rivals, flags.FLAGS.rounds, times=1, warm_up=2)
        texts = len(batches) if one_by_one else int(sum(batch["is_real"].sum() for batch in batches))
        print(f"{make_table(results[what], texts, what)}\n")
        for row in results[what]:
            row["milliseconds"] = 1000 * row["seconds"] / texts
    print(describe_lengths(batches))
    write(output_dir, "inference", specs, **results)


if __name__ == "__main__":
    define_flags()
    command.run(main)
