import functools
import json
import pathlib
import shutil
import threading
import unicodedata

import numpy as np
import pytest

from finetune import prediction
from finetune.custom_task import TaskDescription, make_task, read_task_config
from finetune.finetuning_run import FinetuningRun
from finetune.prediction import Predictor, find_model
from model.command import UserError

_TRAINED: list[pathlib.Path] = []


@pytest.fixture
def trained(make_config, several, home) -> pathlib.Path:
    """The folder of data and a model of three tasks, which is trained once for all tests here."""
    if not _TRAINED:
        user = {"task_names": ["nsmc", *several], "num_train_epochs": 4.0, "class_weights": True}
        FinetuningRun(make_config(write_test_outputs=True, **user)).run()
        _TRAINED.append(home)
    return _TRAINED[0]


@pytest.fixture
def best(trained) -> pathlib.Path:
    (folder,) = trained.glob("models/tiny/finetuning_models/*/*/seed_42/best")
    return folder


@functools.cache
def _predictor(best, task):
    return Predictor(str(best), task)


def written(trained, task):
    """The rows of the predictions that fine-tuning wrote of the test split, without their header."""
    (path,) = trained.glob(f"models/tiny/results/*/{task}_test_seed_42.tsv")
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def rows_of(trained, path, *columns, header=True):
    lines = (trained / "finetuning_data" / path).read_text(encoding="utf-8").splitlines()[header:]
    return [tuple(line.split("\t")[column] for column in columns) for line in lines]


def test_labels_and_probabilities_are_those_that_fine_tuning_wrote(trained, best):
    found = _predictor(best, "nsmc").predict([text for (text,) in rows_of(trained, "nsmc/ratings_test.txt", 1)])
    expected = written(trained, "nsmc")
    assert [result["label"] for result in found] == [row[2] for row in expected] and len({row[2] for row in expected}) == 2
    for result, row in zip(found, expected, strict=True):
        assert result["probabilities"] == pytest.approx({"0": float(row[3]), "1": float(row[4])}, abs=1e-5)
        assert result["probability"] == max(result["probabilities"].values()) and "pieces_cut" not in result


def test_scores_are_those_that_fine_tuning_wrote(trained, best):
    found = _predictor(best, "korsts").predict(rows_of(trained, "korsts/sts-test.tsv", 5, 6))
    assert [result["score"] for result in found] == pytest.approx([float(row[2]) for row in written(trained, "korsts")], abs=1e-5)


def test_entities_are_those_that_fine_tuning_wrote(trained, best):
    sentences = [text for (text,) in rows_of(trained, "naver-ner/standin.klue-ner-dev.test.tsv", 0, header=False)]
    found = _predictor(best, "naver-ner").predict(sentences)
    tags = {}
    for line, _, _, predicted in written(trained, "naver-ner"):
        tags.setdefault(int(line), []).append(predicted)
    entities = 0
    for number, (sentence, result) in enumerate(zip(sentences, found, strict=True), 1):
        begins = [word for word, tag in zip(sentence.split(), tags[number], strict=True) if tag == "PER-B"]
        assert [entity["text"] for entity in result["entities"]] == begins
        entities += len(begins)
    assert entities > 20


@pytest.mark.parametrize(
    "text",
    ["감동 영화", "  감동  영화", "😀 영화\t감동", unicodedata.normalize("NFD", "영화 감동 최고"), "\u3000감동\xa0배우 👍🏽 좋다 "],
)
def test_entities_stand_at_their_characters_in_the_text_as_given(best, text):
    (result,) = _predictor(best, "naver-ner").predict([text])
    names = [word for word in text.split() if unicodedata.normalize("NFC", word) in ("좋다", "최고", "감동")]
    known = [entity for entity in result["entities"] if entity["text"].isalpha()]  # what a tiny model makes of emoji is its own affair
    assert [entity["text"] for entity in known] == names and names
    for entity in result["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"] and entity["type"] == "PER" and 0.1 < entity["probability"] <= 1


def test_several_words_make_one_entity_and_words_cut_off_make_none(best):
    task = _predictor(best, "naver-ner").task
    tags = [task.tags.index(tag) for tag in ("O", "PER-B", "O", "PER-I", "ORG-I")]
    output = {"predictions": np.array(tags), "tag_ids": np.array([-1, 0, -1, 0, 0]), "probabilities": np.array([1, 0.5, 1, 0.8, 0.25])}
    entities = task.describe([" 가  나\n다 라 마"], output)["entities"]
    assert entities == [
        {"type": "PER", "text": "가  나", "start": 1, "end": 5, "probability": 0.4},
        {"type": "ORG", "text": "다", "start": 6, "end": 7, "probability": 0.25},
    ]


def test_neighbours_in_a_batch_and_their_order_change_nothing(best):
    predictor = Predictor(str(best), "nsmc", batch_size=8)
    texts = ["영화 " * (7 * number % 23 % 13) + ("좋다" if number % 2 else "실망") for number in range(50)]
    together = predictor.predict(texts)
    backwards = predictor.predict(texts[::-1])[::-1]
    alone = [predictor.predict([text])[0] for text in texts[:10]]
    for results in (backwards, alone):
        for first, second in zip(together, results, strict=False):
            assert first["probabilities"] == pytest.approx(second["probabilities"], abs=1e-5)
    assert len({tuple(result["probabilities"].values()) for result in together}) > 10
    assert predictor.predict([]) == []


def test_stretches_are_put_together_in_order(best, monkeypatch):
    predictor = _predictor(best, "nsmc")
    texts = [f"영화 {word}" for word in ("좋다", "실망", "최고", "지루", "감동", "최악", "재미")]
    whole = predictor.predict(texts)
    monkeypatch.setattr(prediction, "STRETCH", 3)
    assert [result["label"] for result in predictor.predict(texts)] == [result["label"] for result in whole]


def test_several_threads_may_ask(best):
    predictor, answers = _predictor(best, "nsmc"), {}
    questions = [["영화 " * number + "좋다", "영화 " * number + "실망"] for number in range(8)]

    def ask(number):
        answers[number] = predictor.predict(questions[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: predictor.predict(texts) for number, texts in enumerate(questions)}


def test_what_was_cut_is_told(best):
    short, long = _predictor(best, "naver-ner").predict(["감동", "영화 " * 20 + "감동"])
    assert "pieces_cut" not in short and long["pieces_cut"] == 7 and long["entities"] == []


def test_an_empty_text_is_an_error_unless_the_task_has_such(best):
    with pytest.raises(UserError, match="text 2: the sentence1 is empty, but task korsts"):
        _predictor(best, "korsts").predict([("가", "나"), (" ", "나")])
    assert set(_predictor(best, "nsmc").predict([""])[0]) == {"label", "probability", "probabilities"}


@pytest.mark.parametrize(
    "task, texts, words",
    [
        ("nsmc", [("가", "나")], r"text 1: task nsmc needs 1 \(document\), got \('가', '나'\)"),
        ("korsts", [("가", "나"), "가 나"], r"text 2: task korsts needs 2 \(sentence1, sentence2\), got '가 나'"),
        ("nsmc", "한 문장", "takes a list of texts, got the text '한 문장'"),
        ("nsmc", ["가", 3], "text 2: task nsmc needs 1"),
    ],
)
def test_what_is_no_text_for_the_task(best, task, texts, words):
    with pytest.raises(UserError, match=words):
        _predictor(best, task).predict(texts)


def test_a_model_of_several_tasks_wants_one_named(best):
    with pytest.raises(UserError, match=r"the model does nsmc, korsts, naver-ner: which one is meant \(--task_name\)"):
        Predictor(str(best))
    with pytest.raises(UserError, match="not 'kornli'"):
        Predictor(str(best), "kornli")


def test_the_folder_needs_nothing_else(best, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(best, moved)
    (moved / "config.json").write_text((best / "config.json").read_text().replace(str(_TRAINED[0]), "/gone"))
    assert "/gone/vocab.txt" in (moved / "config.json").read_text()
    assert Predictor(str(moved), "nsmc").predict(["좋다 영화"]) == _predictor(best, "nsmc").predict(["좋다 영화"])
    before = sorted(moved.iterdir())
    (moved / "vocab.txt").rename(tmp_path / "vocab.txt")
    with pytest.raises(UserError, match=r"no vocabulary at /gone/vocab.txt \(--vocab_file\)"):
        Predictor(str(moved), "nsmc")
    assert Predictor(str(moved), "nsmc", vocab_file=str(tmp_path / "vocab.txt")).predict(["좋다"])
    assert sorted(moved.iterdir()) == [path for path in before if path.name != "vocab.txt"], "nothing is written"


def test_another_vocabulary_is_refused(best, tmp_path):
    other = tmp_path / "vocab.txt"
    other.write_text((best / "vocab.txt").read_text().replace("영화", "화영"))
    with pytest.raises(UserError, match="made with vocab_sha256 .*--vocab_file"):
        Predictor(str(best), "nsmc", vocab_file=str(other))


def test_the_model_is_found_below_a_folder_that_holds_no_other(best, tmp_path):
    assert find_model(str(best)) == str(best) == find_model(str(best.parents[3]))
    for name in ("one", "two"):
        shutil.copytree(best, tmp_path / "models" / name / "best")
    with pytest.raises(UserError, match=r"2 fine-tuned models in .*name one of .*models/one/best, .*models/two/best \(--model\)"):
        find_model(str(tmp_path / "models"))
    assert find_model(str(tmp_path / "*" / "two")) == str(tmp_path / "models" / "two" / "best")
    for path in (tmp_path / "models" / "one" / "best").glob("model.ckpt*"):
        path.unlink()
    assert find_model(str(tmp_path / "models")) == str(tmp_path / "models" / "two" / "best"), "the other has no weights yet"


@pytest.mark.parametrize("content", [None, {"pretraining": {}}, []])
def test_a_folder_without_a_fine_tuned_model(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"no fine-tuned model in .*run_finetuning.py.*\(--model\)"):
        Predictor(str(tmp_path))


def test_a_configuration_of_another_version_is_named(best, tmp_path):
    shutil.copytree(best, tmp_path / "best")
    recorded = json.loads((best / "config.json").read_text())
    recorded["finetuning"]["from_the_future"] = 1
    (tmp_path / "best" / "config.json").write_text(json.dumps(recorded))
    with pytest.raises(UserError, match="config.json is of another version of this program: unknown hparam 'from_the_future'"):
        Predictor(str(tmp_path))


@pytest.mark.parametrize("kind, rules", [("classification", "labels: ['0', '1']"), ("regression", "range: [0, 1]")])
def test_a_task_of_a_yaml_file_is_made_again_from_the_folder(make_config, home, kind, rules):
    lines = ["name: mood", f"type: {kind}", "files: {train: ratings_train.txt, test: ratings_test.txt}", "format: tsv", "text: document"]
    path = home / "finetuning_data" / "nsmc" / "mood.yaml"
    path.write_text("\n".join([*lines, "label: label", rules]))
    user = read_task_config({"task_config": [str(path)]})
    FinetuningRun(make_config(**user, write_test_outputs=True, num_train_epochs=0.5)).run()
    lines = (home / "finetuning_data" / "nsmc" / "ratings_test.txt").read_text(encoding="utf-8").splitlines()[1:]
    shutil.rmtree(home / "finetuning_data")
    (rows,) = [path.read_text(encoding="utf-8").splitlines()[1:] for path in home.glob("models/tiny/results/*/mood_test_seed_42.tsv")]
    texts = [line.split("\t")[1] for line in lines]
    for result, row in zip(Predictor(str(home / "models")).predict(texts), rows, strict=True):
        found = result["score"] if kind == "regression" else result["probabilities"]["1"]
        assert found == pytest.approx(float(row.split("\t")[-1]), abs=1e-5)


def test_the_text_of_a_yaml_files_tagging_task_has_its_name(make_config):
    description = {"name": "names", "type": "tagging", "files": {"train": "a.tsv", "test": "b.tsv"}, "text": "words", "label": "tags"}
    task = make_task(make_config(), TaskDescription.from_dict({**description, "entities": ["PER"]}))
    assert task.text_columns == ("words",) and task.make_example(1, [" 가  나"]).words == ["가", "나"]


def test_half_precision_gives_nearly_the_same(best):
    texts = ["좋다 영화", "실망 영화"]
    whole, half = _predictor(best, "nsmc").predict(texts), Predictor(str(best), "nsmc", precision="bfloat16").predict(texts)
    for first, second in zip(whole, half, strict=True):
        assert first["probability"] == pytest.approx(second["probability"], abs=0.05) and first["probability"] != second["probability"]
