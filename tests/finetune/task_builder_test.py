import pytest

from finetune import task_builder
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


OWN = """
from finetune.classification.classification_tasks import NSMC
from finetune.task_builder import register

@register
class Own(NSMC):
    name = "NAME"
"""


@pytest.fixture
def fresh_tasks(monkeypatch):
    monkeypatch.setattr(task_builder, "TASKS", dict(TASKS))


def test_a_module_brings_in_a_task_and_results_depend_on_its_code(make_config, home, fresh_tasks):
    signatures = []
    for comment in ("", "# a scorer might have changed"):
        module = home / f"own{len(signatures)}.py"
        module.write_text(OWN.replace("NAME", f"own{len(signatures)}") + comment)
        name = module.stem
        (home / "finetuning_data" / "nsmc").replace(home / "finetuning_data" / name)
        config = make_config(task_names=[name], task_module=str(module))
        (task,) = get_tasks(config)
        assert task.name == name and isinstance(task, NSMC) and get_tasks(config)
        assert len(task.get_examples("test")) == 60
        signatures.append(task.signature("test") | {"task": ""})
        (home / "finetuning_data" / name).replace(home / "finetuning_data" / "nsmc")
    assert signatures[0] != signatures[1] and "code" not in get_task(make_config(), "nsmc").signature("test")


@pytest.mark.parametrize(
    "code, words",
    [
        (OWN.replace("NAME", "korsts"), "there is a task 'korsts' already"),
        (OWN.replace("NAME", "a,b"), "the name of a task must be .*, got 'a,b'"),
        (OWN.replace("(NSMC)", "").replace('name = "NAME"', "pass"), "task Own has no 'name'"),
        (OWN.replace("NSMC", "ClassificationTask"), "task Own has no 'files'"),
        (OWN.replace("classification.classification_tasks", "task").replace("NSMC", "Task") + "    files = {}\n", "has no method"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
    ],
)
def test_a_module_that_cannot_be_used_is_a_user_error(make_config, home, fresh_tasks, code, words):
    (home / "bad.py").write_text(code)
    with pytest.raises(UserError, match=rf"cannot import '.*bad.py': .*{words}.*--task_module"):
        get_tasks(make_config(task_module=str(home / "bad.py")))
