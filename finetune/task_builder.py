"""From task names to tasks."""

import difflib

from configure_finetuning import FinetuningConfig
from finetune.classification.classification_tasks import NSMC, HateSpeech, KlueNLI, KlueSTS, KorNLI, KorSTS, PawsX, QuestionPair
from finetune.tagging.tagging_tasks import KlueNER, NaverNER
from finetune.task import Task
from model.command import UserError

# The six of the published table, in its order, and others.
BENCHMARK = (NSMC, QuestionPair, HateSpeech, NaverNER, KorNLI, KorSTS)
OTHERS = (PawsX, KlueNLI, KlueSTS, KlueNER)
TASKS: dict[str, type[Task]] = {task.name: task for task in (*BENCHMARK, *OTHERS)}


def get_tasks(config: FinetuningConfig) -> list[Task]:
    """The tasks that `config.task_names` names, in that order."""
    return [get_task(config, name) for name in config.task_names]


def get_task(config: FinetuningConfig, task_name: str) -> Task:
    """The task called `task_name`; UserError if there is none."""
    if task_name not in TASKS:
        close = difflib.get_close_matches(task_name, TASKS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(TASKS)}"
        raise UserError(f"unknown task {task_name!r} (--task_names): {hint}")
    return TASKS[task_name](config)
