"""Fine-tunes a pre-trained model on tasks and prints their scores; those of several tasks as the benchmark's table.

    python run_finetuning.py --data_dir=DIR --model_name=NAME --task_names=nsmc --recipe=google --num_trials=3

With --search it looks for the best settings instead, and prints the command that trains with them.
Settings come from --hparams (JSON or a file) and from one flag per field of FinetuningConfig, which wins.
"""

from typing import Any

from absl import flags

from configure_finetuning import FinetuningConfig
from finetune.benchmark import Benchmark
from finetune.custom_task import read_task_config
from finetune.finetuning_run import FinetuningRun
from finetune.task_builder import TASKS, check_task_hparams
from model import command, hparams
from model.command import UserError

_SCRIPT_FLAGS = ("model_name", "data_dir", "task_names", "task_config")


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "folder of models, vocabulary and fine-tuning data")
    flags.DEFINE_string("model_name", None, "name of the pre-trained model: DATA_DIR/models/MODEL_NAME")
    flags.DEFINE_string("hparams", None, "JSON object or JSON file with settings")
    tasks = f"tasks to learn, separated by commas, from {', '.join(TASKS)} (default: nsmc)"
    flags.DEFINE_list("task_names", None, tasks)
    flags.DEFINE_list("task_config", None, "YAML files that describe tasks of your own: docs/adding_a_task.md; they join --task_names")
    flags.DEFINE_boolean("search", False, "search for the settings that score best on dev, and print the command that trains with them")
    flags.DEFINE_integer("search_trials", None, "trials of the search, those of earlier calls included (default: 20)")
    space = 'JSON object or JSON file with the values to try, such as {"learning_rate": [3e-5, 5e-5]} (default: Dialog-KoELECTRA\'s)'
    flags.DEFINE_string("search_space", None, space)
    hparams.define_flags(FinetuningConfig, skip=_SCRIPT_FLAGS)


def main() -> None:
    values = hparams.collect(FinetuningConfig, flags.FLAGS.hparams, skip=_SCRIPT_FLAGS)
    if flags.FLAGS.task_names:
        values["task_names"] = flags.FLAGS.task_names
    if flags.FLAGS.task_config:
        values["task_config"] = flags.FLAGS.task_config
    model_name, data_dir, values = command.required("model_name"), command.required("data_dir"), read_task_config(values)
    configs = FinetuningConfig.create_each(model_name, data_dir, values)
    check_task_hparams(configs)
    if flags.FLAGS.search:
        _search(configs, values)
        return
    for name in ("search_trials", "search_space"):
        if flags.FLAGS[name].value is not None:
            raise UserError(f"--{name} has no meaning without --search")
    if sum(len(config.task_names) for config in configs) > 1 and configs[0].do_eval:
        print(Benchmark(configs).run())
    else:
        print("\n\n".join(FinetuningRun(config).run().table() for config in configs))


def _search(configs: list[FinetuningConfig], values: dict[str, Any]) -> None:
    from finetune import search  # here: it needs Optuna, which is an extra

    if len(configs) > 1:
        raise UserError(f"--search takes one task, or one model for all, got {len(configs)} models (--task_names, --multi_task)")
    # Settings for the task alone are among those that the search replaces.
    own = values.pop("task_hparams", {}).get(configs[0].task_names[0], {})
    space, trials = flags.FLAGS.search_space, flags.FLAGS.search_trials
    choices = search.PUBLISHED_SPACE if space is None else hparams.read_hparams(space, "search_space")
    num_trials = search.NUM_TRIALS if trials is None else trials
    print(search.Search(configs[0].model_name, configs[0].data_dir, {**values, **own}, choices, num_trials).run())


if __name__ == "__main__":
    define_flags()
    command.run(main)
