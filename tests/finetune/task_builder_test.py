import pytest

from finetune.classification.classification_tasks import NSMC
from finetune.task_builder import get_task, get_tasks
from model.command import UserError


def test_tasks_come_in_the_order_of_their_names(make_config, twin):
    assert [task.name for task in get_tasks(make_config(task_names=["twin", "nsmc"]))] == ["twin", "nsmc"]
    assert isinstance(get_task(make_config(), "nsmc"), NSMC)


def test_an_unknown_task_is_named(make_config):
    with pytest.raises(UserError, match="unknown task 'nscm'.*did you mean 'nsmc'"):
        get_tasks(make_config(task_names=["nscm"]))
    with pytest.raises(UserError, match="known: nsmc.*|known:.*nsmc"):
        get_tasks(make_config(task_names=["something"]))
