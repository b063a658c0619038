import pytest

from finetune.classification.classification_tasks import NSMC
from finetune.task_builder import BENCHMARK, TASKS, get_task, get_tasks
from model.command import UserError


def test_tasks_come_in_the_order_of_their_names(make_config, twin):
    assert [task.name for task in get_tasks(make_config(task_names=["twin", "nsmc"]))] == ["twin", "nsmc"]
    assert isinstance(get_task(make_config(), "nsmc"), NSMC)


def test_an_unknown_task_is_named(make_config):
    with pytest.raises(UserError, match="unknown task 'nscm'.*did you mean 'nsmc'"):
        get_tasks(make_config(task_names=["nscm"]))
    with pytest.raises(UserError, match="known: nsmc.*|known:.*nsmc"):
        get_tasks(make_config(task_names=["something"]))


def test_the_benchmark_has_the_published_tables_tasks_in_its_order():
    assert [task.name for task in BENCHMARK] == ["nsmc", "question-pair", "hate-speech", "naver-ner", "kornli", "korsts"]
    assert [name for name in TASKS if TASKS[name] not in BENCHMARK] == ["paws-x", "klue-nli", "klue-sts", "klue-ner"]


def test_each_benchmark_task_is_selected_by_the_published_metric(make_config):
    metrics = [get_task(make_config(), task.name).get_scorer().main_metric for task in BENCHMARK]
    assert metrics == ["accuracy", "accuracy", "f1", "f1", "accuracy", "spearman"]
