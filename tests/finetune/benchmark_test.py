import json
import re

import pytest

from configure_finetuning import FinetuningConfig
from finetune import benchmark
from finetune.benchmark import PUBLISHED, TITLES, Benchmark, TaskScore, to_markdown
from finetune.custom_task import read_task_config
from finetune.finetuning_run import FinetuningRun
from finetune.results import summarize
from finetune.task_builder import check_task_hparams
from model.command import UserError


def score(task="nsmc", scores=(85.0, 86.0, 87.0), standins=None, report=None, metric="accuracy") -> TaskScore:
    trials = [{"scores": {task: {"test": {metric: value}}}} for value in scores]
    return TaskScore(
        task=task,
        metric=metric,
        summary=summarize(trials)[task]["test"][metric],
        scores=dict(enumerate(scores, 42)),
        test_rows=50000,
        train_rows=142540,
        standins=standins or {},
        recipe="google: lr 0.0001, 3 epochs, batch 32, length 128",
        seconds=61.0,
        config_hash="abc",
        report=report,
    )


def description(*scores):
    value = {"config_hash": "abc", "model": "tiny", "start": "random weights", "models": "one for each task", "seeds": [42, 43, 44]}
    return value | {"seconds": 183.0, "tasks": list(scores), "published": PUBLISHED}


def test_the_published_rows_are_those_of_the_paper_s_table():
    assert list(PUBLISHED) == ["DistilKoBERT", "KoELECTRA-Small-v3", "Dialog-KoELECTRA-Small", "KoELECTRA-Base-v3"]
    assert list(PUBLISHED["Dialog-KoELECTRA-Small"].values()) == [90.01, 94.99, 68.26, 85.51, 78.54, 78.96]
    assert all(list(scores) == list(TITLES) for scores in PUBLISHED.values())


def test_our_row_has_mean_spread_rows_recipe_and_time():
    table, details, notes = to_markdown(description(score())).split("\n\n")
    header, rule, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert header[1:3] == ["NSMC accuracy", "Question Pair accuracy"] and len(rows) == 5
    assert set("".join(rule)) == {"-"}
    assert rows[2] == ["Dialog-KoELECTRA-Small", "90.01", "94.99", "68.26", "85.51", "78.54", "78.96"]
    assert rows[4] == ["**tiny** (ours)", "86.00 ± 1.00", "-", "-", "-", "-", "-"]
    row = [cell.strip() for cell in details.splitlines()[2].strip("|").split("|")]
    assert row[:3] == ["NSMC", "accuracy", "google: lr 0.0001, 3 epochs, batch 32, length 128"]
    assert row[3:] == ["86.00", "1.00", "86.00", "85.00 to 87.00", "3", "50,000", "142,540", "1 min 01 s"]
    assert "random weights" in notes and "seeds 42, 43, 44" in notes and "stand-in" not in notes


def test_a_standin_is_named_beside_the_number_and_one_seed_has_no_spread():
    text = to_markdown(description(score("kornli", [61.2], {"train": "standin.train.tsv"})))
    assert "61.20 (stand-in)" in text and "KorNLI (stand-in): train is standin.train.tsv, not the official file" in text
    assert "±" not in text.split("\n\n")[0]


def test_a_task_of_the_user_s_own_gets_a_column():
    header, *rows = benchmark.table_rows(description(score("의도", metric="macro_f1")))
    assert header[-1] == "의도 macro_f1" and [row[-1] for row in rows] == ["-"] * 4 + ["86.00 ± 1.00"]


def test_the_page_shows_every_table_and_never_lets_text_be_html():
    from finetune import benchmark_page

    labels = {name: {"precision": 50.0, "recall": 60.0, "f1": 54.5, "rows": 3} for name in ("<b>나쁨</b>", "좋음")}
    report = {"labels": labels, "confusion": [[2, 1], [0, 3]], "trials": 1}
    page = benchmark_page.render(description(score(report=report), score("<i>의도</i>", standins={"dev": "standin.x.tsv"})))
    assert "&lt;b&gt;나쁨&lt;/b&gt;" in page and "<b>나쁨" not in page and "<i>의도" not in page
    assert page.count("<img ") == 3 and "Dialog-KoELECTRA-Small" in page and "86.00 ± 1.00" in page
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page)


# ---- whole runs


@pytest.fixture
def values(several, tiny):
    """Settings for NSMC and two more tasks of a tiny model."""
    return tiny | {"task_names": ["nsmc", *several], "multi_task": False, "task_hparams": {"korsts": {"num_train_epochs": 4.0}}}


def make(home, values) -> Benchmark:
    configs = FinetuningConfig.create_each("tiny", str(home), values)
    check_task_hparams(configs)
    return Benchmark(configs)


def test_each_task_has_a_model_and_settings_of_its_own(home, values):
    configs = FinetuningConfig.create_each("tiny", str(home), values | {"recipe": "dialog"})
    assert [config.task_names for config in configs] == [["nsmc"], ["korsts"], ["naver-ner"]]
    assert [config.num_train_epochs for config in configs] == [2.0, 4.0, 2.0]
    hate = FinetuningConfig.create_each("tiny", str(home), {"task_names": ["hate-speech", "nsmc"], "multi_task": False, "recipe": "dialog"})
    assert [config.learning_rate for config in hate] == [7e-5, 5e-5]
    assert len(FinetuningConfig.create_each("tiny", str(home), {"task_names": ["nsmc", "korsts"]})) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"task_hparams": {"korst": {}}}, "unknown task 'korst'.*did you mean 'korsts'"),
        ({"task_hparams": {"korsts": 3}}, "must be an object of settings, got 3 .--task_hparams"),
        ({"task_hparams": {"korsts": {"num_trials": 2}}}, "'num_trials', which is the same for all tasks .--task_hparams"),
        ({"task_hparams": {"korsts": {"epochs": 2}}}, "unknown hparam 'epochs'"),
        ({"multi_task": True}, "needs a model for each task .--nomulti_task"),
    ],
)
def test_wrong_settings_of_a_task(home, values, change, message):
    with pytest.raises(UserError, match=message):
        make(home, values | change)


def test_a_bad_row_of_the_last_task_stops_the_benchmark_before_any_training(home, values):
    path = home / "finetuning_data" / "naver-ner" / "train.tsv"
    path.write_text(path.read_text(encoding="utf-8") + "\n영화\tPER", encoding="utf-8")
    with pytest.raises(UserError, match="train.tsv, line 301: tag 'PER'"):
        make(home, values).run()
    assert not (home / "models").exists() or not list((home / "models").rglob("model.ckpt*"))


@pytest.mark.slow
def test_a_benchmark_that_is_stopped_and_goes_on_gives_the_same_table(home, values, monkeypatch):
    whole = make(home, values)
    whole.run()
    assert {path.name for path in (home / "models/tiny/results").glob("benchmark-*/*")} == {
        f"benchmark.{kind}" for kind in ("json", "md", "html")
    }
    table = json.loads((home / f"models/tiny/results/benchmark-{whole.config_hash}/benchmark.json").read_text())
    assert [score["task"] for score in table["tasks"]] == values["task_names"]
    assert [bool(score["standins"]) for score in table["tasks"]] == [False, False, True]

    runner, finished = benchmark.FinetuningRun, []

    def stop_at(limit):
        def run(self):
            if len(finished) == limit:
                raise KeyboardInterrupt
            finished.append(self.config.task_names)
            return original(self)

        return run

    original = runner.run
    elsewhere = values | {"model_dir": str(home / "again"), "results_dir": str(home / "again_results")}
    for limit in (1, 2):
        monkeypatch.setattr(runner, "run", stop_at(limit))
        with pytest.raises(KeyboardInterrupt):
            make(home, elsewhere).run()
        finished.clear()
    monkeypatch.setattr(runner, "run", original)
    again = make(home, elsewhere)
    assert again.config_hash == whole.config_hash
    assert [run.is_finished for run in again._runs] == [True, True, False]
    again.run()
    second = json.loads((home / f"again_results/benchmark-{again.config_hash}/benchmark.json").read_text())
    assert [score["scores"] for score in table["tasks"]] == [score["scores"] for score in second["tasks"]]


@pytest.mark.slow
def test_the_table_shows_the_seeds_that_were_asked_for_whatever_else_was_finished(home, tiny, several):
    values = tiny | {"task_names": ["nsmc", "korsts"], "multi_task": False, "num_train_epochs": 0.2}
    for seed, do_eval in ((99, False), (7, True)):
        alone = values | {"task_names": ["nsmc"], "seed": seed, "do_eval": do_eval}
        FinetuningRun(*FinetuningConfig.create_each("tiny", str(home), alone)).run()
    asked = make(home, values)
    asked.run()
    assert [sorted(score.scores) for score in asked.describe()["tasks"]] == [[42], [42]]
    assert sorted(trial["seed"] for trial in asked._runs[0].results.trials) == [7, 42, 99]
    assert make(home, values | {"seed": 7}).config_hash != asked.config_hash


def test_a_table_without_test_scores_is_refused_before_any_training(home, values):
    with pytest.raises(UserError, match="needs scores on the test splits .--do_eval"):
        make(home, values | {"do_eval": False})


@pytest.mark.slow
def test_one_model_for_all_tasks_gets_a_table_too(home, values):
    together = make(home, values | {"multi_task": True, "task_hparams": {}})
    assert "one for all tasks" in together.run()
    assert [score.task for score in together.describe()["tasks"]] == values["task_names"]
    assert together.config_hash != make(home, values).config_hash


def test_a_task_of_the_user_s_own_joins_the_benchmark(home):
    (home / "intent.yaml").write_text(
        "name: intent\ntype: classification\nfiles: {train: a.tsv, test: b.tsv}\ntext: 문장\nlabel: 의도\nlabels: [질문, 부탁]\n",
        encoding="utf-8",
    )
    (home / "a.tsv").write_text(
        "문장\t의도\n" + "".join(f"영화 {row}\t{'질문부탁'[row % 2 * 2 :][:2]}\n" for row in range(100)), encoding="utf-8"
    )
    (home / "b.tsv").write_text("문장\t의도\n장면 화면\t질문\n", encoding="utf-8")
    values = {"task_names": ["nsmc"], "task_config": [str(home / "intent.yaml")], "multi_task": False, "init_checkpoint": "none"}
    values |= {"tokenizer_type": "wordpiece", "max_seq_length": 16, "task_hparams": {"intent": {"num_train_epochs": 5.0}}}
    configs = FinetuningConfig.create_each("tiny", str(home), read_task_config(values))
    assert [config.task_names for config in configs] == [["nsmc"], ["intent"]]
    assert [[found["name"] for found in config.task_config] for config in configs] == [[], ["intent"]]
    assert [config.num_train_epochs for config in configs] == [3.0, 5.0]
    for run in Benchmark(configs)._runs:
        run.check_data()
