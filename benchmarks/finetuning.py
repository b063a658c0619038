"""Times fine-tuning steps on a real task: ours against transformers on PyTorch, on the same batches of similar length, in turns.

    python benchmarks/finetuning.py --data_dir=work/vocab40k --raw_data_dir=DATA --output_dir=work/finetuning

Both sides train on the same --batches batches, in which examples of similar length lie together; PyTorch gets each one cut to its longest
row, ours padded as in training. Settings come from one flag per field of FinetuningConfig, as for run_finetuning.py:
by default Small with random weights and NSMC. Writes finetuning.json and a table.
"""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags

from benchmarks import contest
from benchmarks.pretraining_step import RIVALS
from configure_finetuning import FinetuningConfig
from finetune.classification.classification_tasks import ClassificationTask
from finetune.model_runner import ModelRunner
from finetune.preprocessing import Preprocessor
from finetune.starting_point import StartingPoint, find_starting_point
from finetune.task_builder import get_tasks
from model import command, hparams
from model.command import UserError, write_json
from model.estimator import InputContext

_SCRIPT_FLAGS = ("model_name", "data_dir", "task_names", "task_config", "precision")
Batch = dict[str, np.ndarray]


class Setting:
    """The task, the model and the batches that all rivals work on, made from a spec of this script."""

    def __init__(self, spec: Mapping[str, Any]):
        values = {"init_checkpoint": "none", "task_names": [spec["task"]], **spec["settings"], "precision": spec["precision"]}
        self.config = FinetuningConfig.create("benchmark", spec["data_dir"], values)
        (task,) = get_tasks(self.config)
        if not isinstance(task, ClassificationTask):
            raise UserError(f"task {task.name!r} has no labels for whole texts (--task)")
        self.task, self.start = task, find_starting_point(self.config)
        self.preprocessor = Preprocessor(self.config, [task], self.start.tokenizer)
        self._count = spec["batches"]

    def dataset(self) -> tf.data.Dataset:
        """The first batches of training."""
        input_fn, _ = self.preprocessor.prepare_train(self.config.seed)
        return input_fn(InputContext(self.config.train_batch_size)).take(self._count)

    def batches(self) -> list[Batch]:
        """The same as numpy arrays."""
        return [{name: value.numpy() for name, value in batch.items()} for batch in self.dataset()]

    def runner(self) -> ModelRunner:
        return ModelRunner(self.config, [self.task], self.preprocessor, self.start, "", self.config.seed)


def our_steps(setting: Setting) -> Callable[[int], Any]:
    dataset = setting.dataset().cache()
    estimator, source, count = setting.runner().estimator, iter(dataset.repeat()), len(list(dataset))

    def repeat(times: int) -> None:
        for _ in range(times * count):
            sums = estimator.train_steps(source, 1)
        sums["steps"].numpy()

    return repeat


def to_torch(batch: Batch, names: tuple[str, ...], pads: bool) -> list[Any]:
    """The tensors `names` of a batch, int64, cut to the longest row; `pads` leaves them as they are: few shapes to compile for."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    length = batch["input_mask"].shape[1] if pads else int(batch["input_mask"].sum(1).max())
    cut = (batch[name][:, :length] if batch[name].ndim > 1 else batch[name] for name in names)
    return [torch.tensor(value.astype(np.int64), device=device) for value in cut]


def torch_classifier(start: StartingPoint, labels: int) -> Any:
    import torch

    from benchmarks.torch_rivals import Classifier, to_electra_config

    torch.manual_seed(0)
    config = to_electra_config(start.bert_config, start.embedding_size or start.bert_config.hidden_size, num_labels=labels)
    return Classifier(config).to("cuda" if torch.cuda.is_available() else "cpu")


def torch_steps(setting: Setting, is_compiled: bool) -> Callable[[int], Any]:
    from benchmarks.torch_rivals import training_step

    task = setting.task
    model = torch_classifier(setting.start, len(task.labels))
    step = training_step(model, list(model.parameters()), setting.config.precision or "float32", is_compiled)
    names = ("input_ids", "input_mask", "segment_ids", f"{task.name}_label_ids")
    batches = [to_torch(batch, names, pads=is_compiled) for batch in setting.batches()]

    def repeat(times: int) -> None:
        for _ in range(times):
            for batch in batches:
                loss = step(*batch)
        loss.item()

    return repeat


def make_rival(spec: dict[str, Any]) -> Callable[[int], Any]:
    setting = Setting(spec)
    return our_steps(setting) if spec["kind"] == "ours" else torch_steps(setting, spec["is_compiled"])


def make_table(rows: list[dict[str, Any]], examples: int, what: str) -> str:
    fastest = min((row["seconds"] for row in rows if RIVALS[row["name"]]["kind"] == "torch"), default=None)
    head = (what, "examples/s", "CPU s per 1,000", "peak memory", "times the fastest torch")
    lines = []
    for row in rows:
        row["examples_per_second"] = examples / row["seconds"]
        row["times_fastest_torch"] = fastest / row["seconds"] if fastest else None
        cpu, memory = 1000 * row["cpu_seconds"] / examples, f"{row['memory'] / 2**30:.2f} GiB"
        ratio = f"{row['times_fastest_torch']:.2f}" if fastest else ""
        lines.append((row["name"], f"{row['examples_per_second']:,.0f}", f"{cpu:.2f}", memory, ratio))
    return contest.table([head, *lines])


def describe_lengths(batches: list[Batch]) -> str:
    longest = [int(batch["input_mask"].sum(1).max()) for batch in batches]
    padded = [batch["input_mask"].shape[1] for batch in batches]
    return f"batches of {np.mean(longest):.1f} pieces in the mean, ours padded to {np.mean(padded):.1f}"


def read_flags() -> tuple[dict[str, dict[str, Any]], str]:
    """(spec of every rival that was asked for, output_dir)."""
    settings = hparams.collect(FinetuningConfig, flags.FLAGS.hparams, skip=_SCRIPT_FLAGS)
    common = {"settings": settings, "data_dir": command.required("data_dir"), "task": flags.FLAGS.task, "batches": flags.FLAGS.batches}
    return {name: {**RIVALS[name], **common} for name in contest.chosen("rivals", RIVALS)}, command.required("output_dir")


def write(output_dir: str, name: str, specs: Mapping[str, Any], **results: Any) -> None:
    os.makedirs(output_dir, exist_ok=True)
    write_json(os.path.join(output_dir, f"{name}.json"), {"cores": os.cpu_count(), "rivals": specs, **results})


def main() -> None:
    if flags.FLAGS.rival:
        contest.answer(make_rival(json.loads(flags.FLAGS.rival)))
        return
    specs, output_dir = read_flags()
    rows = contest.race(__file__, specs, flags.FLAGS.rounds, times=1, warm_up=1)
    setting = Setting(next(iter(specs.values())))
    print(make_table(rows, flags.FLAGS.batches * setting.config.train_batch_size, "fine-tuning"))
    print(describe_lengths(setting.batches()))
    write(output_dir, "finetuning", specs, training=rows)


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "folder with vocab.txt")
    flags.DEFINE_string("task", "nsmc", "the task: one with labels for whole texts")
    flags.DEFINE_list("rivals", list(RIVALS), "whom to time")
    flags.DEFINE_integer("batches", 32, "different batches, each once a round", lower_bound=1)
    contest.define_flags(FinetuningConfig, _SCRIPT_FLAGS, rounds=5)


if __name__ == "__main__":
    define_flags()
    command.run(main)
