"""From task names to tasks.

A task of your own is a YAML file (finetune.custom_task), or a class in a module that --task_module names:

    @register
    class Politeness(ClassificationTask):
        name = "politeness"
        ...
"""

import difflib
import hashlib
import inspect
import pathlib
from collections.abc import Sequence
from typing import TypeVar

from configure_finetuning import FinetuningConfig
from finetune import custom_task
from finetune.classification.classification_tasks import NSMC, HateSpeech, KlueNLI, KlueSTS, KorNLI, KorSTS, PawsX, QuestionPair
from finetune.tagging.tagging_tasks import KlueNER, NaverNER
from finetune.task import Task
from model import user_modules
from model.command import UserError

# The six of the published table, in its order, and others.
BENCHMARK = (NSMC, QuestionPair, HateSpeech, NaverNER, KorNLI, KorSTS)
OTHERS = (PawsX, KlueNLI, KlueSTS, KlueNER)
TASKS: dict[str, type[Task]] = {task.name: task for task in (*BENCHMARK, *OTHERS)}

TaskClass = TypeVar("TaskClass", bound=type[Task])


def register(task: TaskClass) -> TaskClass:
    """Class decorator: makes `task` known under its name. Results depend on the whole file that it stands in.

    Raises:
      ValueError: a class that lacks something, a name that is taken, or one that cannot be used in variable and folder names.
    """
    if missing := [attribute for attribute in ("name", "files") if not hasattr(task, attribute)]:
        raise ValueError(f"task {task.__name__} has no {missing[0]!r}")
    if inspect.isabstract(task):
        raise ValueError(f"task {task.name!r} has no method {min(task.__abstractmethods__)!r}")
    if not custom_task.NAME.fullmatch(task.name):
        raise ValueError(f"the name of a task must be {custom_task.NAME_RULE}, got {task.name!r}")
    if task.name in TASKS:
        raise ValueError(f"there is a task {task.name!r} already: {TASKS[task.name].__module__}")
    task.code = hashlib.sha256(pathlib.Path(inspect.getfile(task)).read_bytes()).hexdigest()
    TASKS[task.name] = task
    return task


def get_tasks(config: FinetuningConfig) -> list[Task]:
    """The tasks that `config.task_names` names, in that order."""
    return [get_task(config, name) for name in config.task_names]


def check_task_hparams(configs: Sequence[FinetuningConfig]) -> None:
    """Raises UserError where task_hparams has settings for a task that does not exist."""
    for name in set(configs[0].task_hparams) - {name for config in configs for name in config.task_names}:
        get_task(configs[0], name)


def get_task(config: FinetuningConfig, task_name: str) -> Task:
    """The task called `task_name`, the user's own ones among them; UserError if there is none."""
    if config.task_module:
        user_modules.load(config.task_module, "task_module")
    own = {found.name: found for found in map(custom_task.TaskDescription.from_dict, config.task_config)}
    for name, description in own.items():
        if name in TASKS:
            raise UserError(f"{description.path}: name is {name!r}, must not be that of a task that is there already (--task_config)")
    if task_name in own:
        return custom_task.make_task(config, own[task_name])
    if task_name not in TASKS:
        known = [*TASKS, *own]
        close = difflib.get_close_matches(task_name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        raise UserError(f"unknown task {task_name!r} (--task_names): {hint}; --task_config and --task_module bring in others")
    return TASKS[task_name](config)
