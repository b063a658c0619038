"""Fine-tunes a pre-trained model on tasks and prints their scores; those of several tasks as the benchmark's table.

    python run_finetuning.py --data_dir=DIR --model_name=NAME --task_names=nsmc --recipe=google --num_trials=3

Settings come from --hparams (JSON or a file) and from one flag per field of FinetuningConfig, which wins.
"""

from absl import flags

from configure_finetuning import FinetuningConfig
from finetune.benchmark import Benchmark
from finetune.custom_task import read_task_config
from finetune.finetuning_run import FinetuningRun
from finetune.task_builder import TASKS
from model import command, hparams

_SCRIPT_FLAGS = ("model_name", "data_dir", "task_names", "task_config")


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "folder of models, vocabulary and fine-tuning data")
    flags.DEFINE_string("model_name", None, "name of the pre-trained model: DATA_DIR/models/MODEL_NAME")
    flags.DEFINE_string("hparams", None, "JSON object or JSON file with settings")
    tasks = f"tasks to learn, separated by commas, from {', '.join(TASKS)} (default: nsmc)"
    flags.DEFINE_list("task_names", None, tasks)
    flags.DEFINE_list("task_config", None, "YAML files that describe tasks of your own: docs/adding_a_task.md; they join --task_names")
    hparams.define_flags(FinetuningConfig, skip=_SCRIPT_FLAGS)


def main() -> None:
    values = hparams.collect(FinetuningConfig, flags.FLAGS.hparams, skip=_SCRIPT_FLAGS)
    if flags.FLAGS.task_names:
        values["task_names"] = flags.FLAGS.task_names
    if flags.FLAGS.task_config:
        values["task_config"] = flags.FLAGS.task_config
    configs = FinetuningConfig.create_each(command.required("model_name"), command.required("data_dir"), read_task_config(values))
    tasks = sum(len(config.task_names) for config in configs)
    if tasks > 1 and configs[0].do_eval:
        print(Benchmark(configs).run())
    else:
        print("\n\n".join(FinetuningRun(config).run().table() for config in configs))


if __name__ == "__main__":
    define_flags()
    command.run(main)
