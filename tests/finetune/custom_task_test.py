"""Tasks from YAML files: learned from files of every kind, and one sentence for every mistake."""

import csv
import io
import json
import random

import pytest
import yaml

from configure_finetuning import FinetuningConfig, result_values
from finetune.classification.classification_tasks import ScoredExample
from finetune.custom_task import TaskDescription, read_description, read_task_config
from finetune.finetuning_run import FinetuningRun
from finetune.tagging.tagging_tasks import TaggedExample
from finetune.task_builder import get_tasks
from model.command import DataError, UserError

from .conftest import BAD, GOOD, OTHER

LABELS = {
    "name": "mood",
    "type": "classification",
    "files": {"train": "train.tsv", "test": "test.tsv"},
    "text": "text",
    "label": "mood",
    "labels": ["좋음", "나쁨"],
}
SCORES = {
    "name": "alike",
    "type": "regression",
    "files": {"train": "train.csv", "dev": "dev.csv", "test": "test.csv"},
    "text": ["first", "second"],
    "label": "score",
    "range": [0, 5],
}
TAGS = {
    "name": "names",
    "type": "tagging",
    "files": {"train": "train.txt", "test": "test.txt"},
    "format": "tsv",
    "header": False,
    "columns": ["words", "tags"],
    "text": "words",
    "label": "tags",
    "entities": ["PER"],
}


@pytest.fixture
def write(tmp_path):
    """write(values or text, files) -> path of task.yaml in a folder with `files`."""

    def write(values, files=()):
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        for name, text in dict(files).items():
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        text = values if isinstance(values, str | bytes) else yaml.safe_dump(values, allow_unicode=True)
        (folder / "task.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(folder / "task.yaml")

    return write


@pytest.fixture
def make(write):
    """make(values, files) -> the task."""

    def make(values, files=(), **user):
        (task,) = get_tasks(FinetuningConfig.create("mini", "unused", read_task_config({"task_config": write(values, files), **user})))
        return task

    return make


# ---- learned to a score


def moods(count, seed):
    generator = random.Random(seed)
    for _ in range(count):
        mood = generator.randrange(2)
        words = [*generator.choices(OTHER, k=generator.randrange(1, 5)), generator.choice([GOOD, BAD][mood])]
        generator.shuffle(words)
        yield " ".join(words), ["좋음", "나쁨"][mood]


def test_labels_are_learned_from_json_lines(make_config, write, home):
    lines = {
        f"{split}.jsonl": "\n".join(json.dumps({"text": text, "is": {"mood": mood}}) for text, mood in moods(count, count))
        for split, count in (("train", 300), ("test", 60))
    }
    values = LABELS | {"files": {"train": "train.jsonl", "test": "test.jsonl"}, "label": "is/mood", "metric": "macro_f1"}
    config = make_config(**read_task_config({"task_config": [write(values, lines)]}), num_train_epochs=3.0, write_test_outputs=True)
    results = FinetuningRun(config).run()
    (trial,) = results.trials
    assert trial["scores"]["mood"]["test"]["f1"] > 95 and trial["rows"]["mood"]["test"] == 60
    assert set(trial["reports"]["mood"]["test"]["labels"]) == {"좋음", "나쁨"} and "mood  test   f1" in results.table()
    (folder,) = (home / "models" / "tiny" / "results").iterdir()
    assert folder.name.startswith("mood-") and (folder / "mood_test_seed_42.tsv").read_text().startswith("line\tlabel\tprediction\tp(좋음)")

    # The configuration beside the weights makes the same task without the YAML file.
    (stored,) = (home / "models" / "tiny" / "finetuning_models" / "mood_model").glob("*/seed_42/best/config.json")
    (home / "own" / "task.yaml").unlink()
    recorded = json.loads(stored.read_text())["finetuning"]
    again = FinetuningConfig.create(recorded["model_name"], recorded["data_dir"], recorded)
    assert again == config
    (task,) = get_tasks(again)
    assert task.labels == ("좋음", "나쁨") and task.get_examples("test") == get_tasks(config)[0].get_examples("test")


@pytest.mark.slow
def test_scores_and_names_are_learned_by_one_model_with_a_task_of_the_benchmark(make_config, write, home):
    generator = random.Random(5)
    files = {}
    for split, count in (("train", 200), ("dev", 40), ("test", 40)):
        buffer = io.StringIO()
        rows = [
            [generator.choice(OTHER) + ", ", score := generator.choice([1, 3]), generator.choice({1: BAD, 3: GOOD}[score])]
            for _ in range(count)
        ]
        csv.writer(buffer).writerows([["first", "score", "second"], *rows])
        files[f"{split}.csv"] = buffer.getvalue()
        words = [generator.choices(GOOD + OTHER, k=generator.randrange(2, 6)) for _ in range(count)]
        files[f"{split}.txt"] = "\r\n".join(
            " ".join(line) + "\t" + " ".join("PER-B" if word in GOOD else "O" for word in line) for line in words
        )
    paths = [write(SCORES | {"range": [1, 3], "metric": "pearson", "symmetric": True}, files)]
    (home / "own" / "names.yaml").write_text(yaml.safe_dump(TAGS))
    values = read_task_config({"task_config": [*paths, str(home / "own" / "names.yaml")], "task_names": ["nsmc"]})
    config = make_config(**values, num_train_epochs=6.0)
    assert config.task_names == ["nsmc", "alike", "names"]
    scores = FinetuningRun(config).run().trials[0]["scores"]
    assert scores["nsmc"]["test"]["accuracy"] > 90 and scores["alike"]["test"]["pearson"] > 90 and scores["names"]["test"]["f1"] > 90


# ---- files


@pytest.mark.parametrize(
    "name, text, changes",
    [
        ("a.tsv", 'id\tmood\ttext\n7\t좋음\t"참" 좋다, 나\n8\t나쁨\t두 줄\n', {}),
        ("a.tsv", '\ufeffid\tmood\ttext\r\n7\t좋음\t"참" 좋다, 나\r\n8\t나쁨\t두 줄\r\n', {"columns": ["id", "mood", "text"]}),
        ("a.txt", '좋음\t"참" 좋다, 나\n나쁨\t두 줄', {"columns": ["mood", "text"], "header": False, "format": "tsv"}),
        ("a.csv", '\ufeffmood,text\r\n좋음,"""참"" 좋다, 나"\r\n나쁨,두 줄\r\n', {}),
        ("a.CSV", '좋음,"""참"" 좋다, 나"\n나쁨,두 줄\n', {"columns": ["mood", "text"], "header": False}),
        ("a.jsonl", '{"mood": "좋음", "text": "\\"참\\" 좋다, 나"}\r\n{"mood": "나쁨", "text": "두 줄", "id": 8}\r\n', {}),
        ("a.json", '[{"mood": "좋음", "text": "\\"참\\" 좋다, 나"}, {"mood": "나쁨", "text": "두 줄"}]', {}),
    ],
)
def test_the_same_rows_in_every_format(make, name, text, changes):
    task = make(LABELS | {"files": {"train": f"other{name}", "test": name}} | changes, {name: text})
    examples = task.get_examples("test")
    assert [(example.text_a, example.text_b, example.label) for example in examples] == [
        ('"참" 좋다, 나', None, "좋음"),
        ("두 줄", None, "나쁨"),
    ]
    begin = 1 if changes.get("header") is False or "json" in name else 2
    assert [example.eid for example in examples] == [begin, begin + 1]


def test_pairs_and_scores(make):
    task = make(SCORES | {"symmetric": True, "allow_empty_text": True}, {"test.csv": 'score,first,second\n"4.5","비가,\n온다",\n2,가,나\n'})
    assert task.get_examples("test") == [ScoredExample(2, "비가,\n온다", "", score=4.5), ScoredExample(4, "가", "나", score=2.0)]
    assert task.is_symmetric and (task.min_value, task.max_value) == (0.0, 5.0)


def test_words_and_tags(make):
    task = make(TAGS, {"test.txt": "영희 씨가 왔다\tPER-B PER-I O\n"})
    assert task.get_examples("test") == [TaggedExample(1, "영희 씨가 왔다", tags=("PER-B", "PER-I", "O"))] and task.tags == [
        "O",
        "PER-B",
        "PER-I",
    ]


def test_files_lie_where_the_yaml_file_says(make, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "test.tsv").write_text("text\tmood\n가\t좋음\n")
    task = make(LABELS | {"files": {"train": str(tmp_path / "texts" / "test.tsv"), "test": "../texts/./test.tsv"}})
    assert len(task.get_examples("test")) == 1
    assert (
        task.describe_files()["test"] == {"file": "test.tsv", "standin_for": None}
        and task.describe_files()["dev"]["share_of_train"] == 0.05
    )


HEADER = "text\tmood\n"


@pytest.mark.parametrize(
    "values, name, text, words",
    [
        (LABELS, "test.tsv", HEADER + "가\t좋음\n나\n", ["test.tsv, line 3: 1 tab-separated fields instead of 2 (text, mood)"]),
        (LABELS, "test.tsv", HEADER + "가\t좋아\n", ["test.tsv, line 2: label '좋아' of task mood; allowed: 좋음, 나쁨"]),
        (LABELS, "test.tsv", HEADER + " \t좋음\n", ["test.tsv, line 2: the text is empty, but task mood needs a text"]),
        (LABELS, "test.tsv", "text\tscore\n가\t3\n", ["test.tsv, line 1: no column 'mood' but text, score", "another task"]),
        (LABELS | {"columns": ["mood", "text"]}, "test.tsv", HEADER, ["line 1: the header is ['text', 'mood'] instead of", "another task"]),
        (LABELS, "test.tsv", HEADER, ["test.tsv holds no examples"]),
        (LABELS, "test.tsv", "", ["test.tsv holds no examples"]),
        (SCORES, "test.csv", "first,second,score\n가,나,5.5\n", ["test.csv, line 2: score '5.5' of task alike", "from 0 to 5"]),
        (SCORES, "test.csv", 'first,second,score\n"가,나,5.5\n', ["test.csv, line 2: no row of CSV"]),
        (TAGS, "test.txt", "영희 왔다\tPER-B\n", ["test.txt, line 1: 2 words but 1 tags"]),
        (TAGS, "test.txt", "영희 왔다\tB-PER O\n", ["test.txt, line 1: tag 'B-PER' of task names; allowed: O, PER-B, PER-I"]),
        (TAGS, "test.txt", "\tO\n", ["test.txt, line 1: the sentence is empty"]),
        (LABELS | {"format": "jsonl"}, "test.tsv", '{"text": "가"}\n', ["test.tsv, line 1: no 'mood'", "another task"]),
        (LABELS | {"format": "json"}, "test.tsv", '[{"text": "", "mood": "좋음"}]', ["test.tsv, row 1: the text is empty"]),
        (LABELS | {"format": "json"}, "test.tsv", "{}", ["test.tsv holds dict instead of a list"]),
        (LABELS, "other.tsv", HEADER, ["no file '", "own/test.tsv'", "task.yaml names", "folder of the YAML file"]),
    ],
)
def test_bad_rows_and_files_are_named(make, values, name, text, words):
    with pytest.raises(UserError) as error:
        make(values, {name: text}).get_examples("test")
    assert all(word in str(error.value) for word in [*words, "(--task_config)"]), error.value
    assert "raw_data_dir" not in str(error.value) and "\n" not in str(error.value)


def test_another_encoding_is_named(make):
    with pytest.raises(DataError, match="test.csv, line 2, byte 19: not UTF-8"):
        make(SCORES, {"test.csv": b"first,second,score\n" + "가,나,1".encode("cp949")}).get_examples("test")


# ---- what is said about the YAML file


def without(values, *keys):
    return {key: value for key, value in values.items() if key not in keys}


@pytest.mark.parametrize(
    "values, words",
    [
        ("", ["holds null instead of keys and values"]),
        ("name", ["holds 'name' instead of keys and values"]),
        ("- name", ["holds list ['name'] instead of keys and values"]),
        ("name: mood\ntype: [classification\nfiles: 1\n", ["task.yaml, line 3: not YAML"]),
        ("name: mood\n\ttype: x\n", ["task.yaml, line 2: not YAML"]),
        ("name: mood\ntype: regression\nname: moods\n", ["task.yaml, line 3: not YAML: the key 'name' is there twice"]),
        ("name: !!python/object:os.system x\n", ["task.yaml, line 1: not YAML: could not determine a constructor"]),
        ("name: 2020-13-45\n", ["task.yaml is not YAML in UTF-8", "month"]),
        (b"name: \xb0\xa1\n", ["task.yaml is not YAML in UTF-8"]),
        ("[" * 2000, ["task.yaml is not YAML in UTF-8", "recursion"]),
        ("name: a\x00b\n", ["task.yaml is not YAML in UTF-8", "unacceptable character"]),
        (LABELS | {"lables": 1}, ["unknown key 'lables': did you mean 'labels'?"]),
        (LABELS | {"zzz": 1}, ["unknown key 'zzz': known: name, type, files"]),
        (LABELS | {True: 1}, ["unknown key True"]),
        (LABELS | {"path": "x"}, ["unknown key 'path'"]),
        *((without(LABELS, key), [f"the key '{key}' is missing: "]) for key in ("name", "type", "files", "text", "label", "labels")),
        (without(SCORES, "range"), ["the key 'range' is missing", "such as [0, 5]"]),
        (without(TAGS, "entities"), ["the key 'entities' is missing"]),
        (without(TAGS, "columns"), ["the key 'columns' is missing"]),
        (without(TAGS, "format"), ["the key 'format' is missing: one of tsv, csv, jsonl, json"]),
        (
            LABELS | {"type": "clasification"},
            ["type must be one of classification, regression, tagging", "'clasification'", "did you mean"],
        ),
        (LABELS | {"type": ["x"]}, ["type must be one of", "list ['x']"]),
        (LABELS | {"name": "기분"}, ["name must be a letter", "got '기분'"]),
        (LABELS | {"name": "a/b"}, ["got 'a/b'"]),
        (LABELS | {"name": "a,b"}, ["got 'a,b'"]),
        (LABELS | {"name": 7}, ["name must be", "got int 7"]),
        (LABELS | {"name": "nsmc"}, ["name is 'nsmc', must not be that of a task"]),
        (LABELS | {"files": "train.tsv"}, ["files must be the names of the files", "got 'train.tsv'"]),
        (LABELS | {"files": {"train": "a.tsv"}}, ["files must be"]),
        (LABELS | {"files": {"train": "a.tsv", "test": "b.tsv", "tset": "c"}}, ["files must be"]),
        (LABELS | {"files": {"train": "a.tsv", "test": None}}, ["files holds null"]),
        (LABELS | {"files": {"train": "a.tsv", "test": "./a.tsv"}}, ["files has './a.tsv' for both test and train"]),
        (LABELS | {"format": "xlsx"}, ["format must be one of tsv, csv, jsonl, json, got 'xlsx'"]),
        (LABELS | {"format": "json", "header": True}, ["the key 'header'", "has no meaning with format json"]),
        (LABELS | {"format": "jsonl", "columns": ["a"]}, ["the key 'columns'", "has no meaning with format jsonl"]),
        (LABELS | {"header": "no"}, ["header must be true or false", "got 'no'"]),
        (LABELS | {"columns": ["text", "text"]}, ["columns holds 'text' twice"]),
        (LABELS | {"columns": "text, mood"}, ["columns must be a list"]),
        (LABELS | {"columns": ["text", "id"]}, ["label names the column 'mood', must be one of columns: text, id"]),
        (LABELS | {"columns": ["id", "mood"]}, ["text names the column 'text'"]),
        (LABELS | {"text": "mood"}, ["text and label name the same column 'mood'"]),
        (LABELS | {"text": ["a", "b", "c"]}, ["text must be the column of the text, or a list of two"]),
        (LABELS | {"text": []}, ["text must be"]),
        (LABELS | {"text": {"a": "b"}}, ["text must be"]),
        (LABELS | {"label": ["a"]}, ["label must be the column of the right answer, got list"]),
        (LABELS | {"label": ""}, ["label holds ''"]),
        (LABELS | {"labels": ["좋음", "좋음"]}, ["labels holds '좋음' twice"]),
        (LABELS | {"labels": ["좋음"]}, ["labels must be a list of two or more labels"]),
        (LABELS | {"labels": "좋음"}, ["labels must be a list of two or more labels, got '좋음'"]),
        (LABELS | {"labels": [1, "1"]}, ["labels holds '1' twice"]),
        (LABELS | {"labels": ["a\tb", "c"]}, ["labels holds 'a\\tb', must be a text without tabs"]),
        (yaml.safe_dump(without(LABELS, "labels")) + "labels: [no, yes]\n", ["labels holds bool False", "yes, no, on, off", "in quotes"]),
        (yaml.safe_dump(without(LABELS, "labels")) + "labels: [null, a]\n", ["labels holds null", "in quotes"]),
        (yaml.safe_dump(without(LABELS, "labels")) + "labels: [2020-01-01, a]\n", ["labels holds date 2020-01-01", "in quotes"]),
        (LABELS | {"range": [0, 5]}, ["the key 'range'", "has no meaning with type classification"]),
        (SCORES | {"labels": ["a", "b"]}, ["the key 'labels'", "has no meaning with type regression"]),
        (TAGS | {"symmetric": True}, ["the key 'symmetric'", "has no meaning with type tagging"]),
        (TAGS | {"text": ["words", "tags"]}, ["text must be"]),
        (
            LABELS | {"metric": "acuracy"},
            ["metric must be one of accuracy, macro_f1, f1, matthews, got 'acuracy'; did you mean 'accuracy'?"],
        ),
        (LABELS | {"metric": "spearman"}, ["metric must be one of accuracy"]),
        (SCORES | {"metric": "accuracy"}, ["metric must be one of spearman, pearson"]),
        (LABELS | {"metric": "f1"}, ["the key 'positive_label' is missing"]),
        (LABELS | {"metric": "f1", "positive_label": "좋아"}, ["positive_label is '좋아', must be one of labels: 좋음, 나쁨"]),
        (LABELS | {"positive_label": "좋음"}, ["positive_label", "has no meaning with metric accuracy"]),
        (LABELS | {"symmetric": True}, ["symmetric is true, which needs two columns in text"]),
        (LABELS | {"allow_empty_text": 1}, ["allow_empty_text must be true or false", "got int 1"]),
        (SCORES | {"range": [5, 0]}, ["range must be the lowest and the highest score", "got list [5, 0]"]),
        (SCORES | {"range": [0, 1, 2]}, ["range must be"]),
        (SCORES | {"range": [0, "5"]}, ["range must be"]),
        (SCORES | {"range": [0, float("inf")]}, ["range must be"]),
        (SCORES | {"range": 5}, ["range must be", "got int 5"]),
        (TAGS | {"entities": "PER"}, ["entities must be a list"]),
        (TAGS | {"entities": []}, ["entities must be a list"]),
        (TAGS | {"entities": ["P R"]}, ["entities holds 'P R', must be words without spaces"]),
    ],
)
def test_mistakes_in_the_yaml_file_are_named(make, values, words):
    with pytest.raises(UserError) as error:
        make(values)
    assert all(word in str(error.value) for word in ["task.yaml", *words, "(--task_config)"]), error.value
    assert "\n" not in str(error.value)


def test_a_yaml_file_that_cannot_be_read_is_named(tmp_path):
    for path, reason in ((tmp_path / "missing.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=f"cannot read '{path}': {reason}.*--task_config"):
            read_description(str(path))


def test_numbers_are_labels_as_they_are_written(write):
    text = yaml.safe_dump(without(LABELS, "labels", "label")) + "label: 3\nlabels: [0, 1, 2.5]\n"
    description = read_description(write(text))
    assert description.labels == ("0", "1", "2.5") and description.label == "3"


@pytest.mark.parametrize("metric, main", [("accuracy", "accuracy"), ("macro_f1", "f1"), ("matthews", "matthews"), ("f1", "f1")])
def test_metrics_of_labels(make, metric, main):
    scorer = make(LABELS | {"metric": metric} | ({"positive_label": "나쁨"} if metric == "f1" else {})).get_scorer()
    for label, prediction in ((0, 0), (0, 1), (1, 1), (1, 1)):
        scorer.update({"label_ids": label, "predictions": prediction, "loss": 1.0})
    # F1 of 좋음: 2/3, of 나쁨: 4/5; Matthews: (1 * 2 - 0 * 1) / sqrt(1 * 2 * 2 * 3).
    expected = {"accuracy": 75.0, "macro_f1": 100 * (2 / 3 + 4 / 5) / 2, "f1": 80.0, "matthews": 100 * 2 / 12**0.5}
    assert scorer.main_metric == main and dict(scorer.get_results())[main] == pytest.approx(expected[metric])


def test_metrics_of_scores_and_tags(make):
    assert (
        make(SCORES).get_scorer().main_metric == "spearman" and make(SCORES | {"metric": "pearson"}).get_scorer().main_metric == "pearson"
    )
    assert make(TAGS | {"metric": "entity_f1"}).get_scorer().main_metric == "f1"


# ---- in a configuration


@pytest.mark.parametrize("values", [LABELS, SCORES, TAGS, LABELS | {"metric": "f1", "positive_label": "좋음", "allow_empty_text": True}])
def test_a_description_survives_json(write, values):
    description = read_description(write(values))
    assert TaskDescription.from_dict(json.loads(json.dumps(description.to_dict()))) == description
    assert description.path.endswith("own/task.yaml")


def test_it_joins_the_tasks_named(write):
    path = write(LABELS)

    def names(**values):
        return FinetuningConfig.create("mini", "/data", read_task_config(values)).task_names

    assert names(task_config=path) == ["mood"] and names(task_config=[path], task_names=["nsmc"]) == ["nsmc", "mood"]
    assert names(task_config=path, task_names=["mood", "nsmc"]) == ["mood", "nsmc"] and names() == ["nsmc"]
    with pytest.raises(UserError, match="names a task twice: mood, mood"):
        names(task_config=[path, path])
    with pytest.raises(UserError, match="task_config must hold what.*'my.yaml'.*--task_config"):
        FinetuningConfig.create("mini", "/data", {"task_config": ["my.yaml"]})
    config = FinetuningConfig.create("mini", "/data", read_task_config({"task_config": path}))
    assert config.model_dir == "/data/models/mini/finetuning_models/mood_model"


def test_results_depend_on_the_definition_but_not_on_where_it_lies(make_config, tmp_path):
    files = {
        "train.tsv": "".join(f"{text}\t{mood}\n" for text, mood in [("text", "mood"), *moods(50, 1)]),
        "test.tsv": HEADER + "가\t좋음\n",
    }

    def config_hash(place, **changes):
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / f"{place}.yaml").write_text(yaml.safe_dump(LABELS | changes), encoding="utf-8")
        config = make_config(**read_task_config({"task_config": str(folder / f"{place}.yaml")}))
        return (
            FinetuningRun(config).results._description["config_hash"],
            json.dumps(result_values(config)),
            get_tasks(config)[0].signature("test"),
        )

    first = config_hash("here")
    assert config_hash("there") == first and config_hash("here", header=True, metric="accuracy", symmetric=False) == first
    changes = [
        {"metric": "macro_f1"},
        {"labels": ["나쁨", "좋음"]},
        {"allow_empty_text": True},
        {"name": "moods"},
        {"columns": ["text", "mood"]},
    ]
    others = [config_hash("here", **change) for change in changes]
    for part, found in enumerate(first):
        assert found not in [other[part] for other in others]
    assert len({other[0] for other in others}) == len(changes)
    files["test.tsv"] += "나\t좋음\n"
    assert config_hash("here")[0] != first[0]
