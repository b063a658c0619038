"""The benchmark's sentence tasks: which columns of which files they read, and what they say about bad ones."""

import json

import pytest

from configure_finetuning import FinetuningConfig
from finetune.classification.classification_tasks import (
    HateSpeech,
    KlueNLI,
    KlueSTS,
    KorNLI,
    KorSTS,
    LabeledExample,
    PawsX,
    QuestionPair,
    ScoredExample,
)
from model.command import UserError


def make_task(folder, task_class, files=(), **user):
    (folder / task_class.name).mkdir(exist_ok=True)
    for name, text in dict(files).items():
        (folder / task_class.name / name).write_text(text, encoding="utf-8")
    return task_class(FinetuningConfig.create("mini", str(folder), {"raw_data_dir": str(folder), **user}))


def test_question_pairs_keep_their_inverted_label(tmp_path):
    text = "question1\tquestion2\tis_duplicate\n내일 뭐해?\t내일 뭐 하니?\t0\n 배고파\t졸려 \t1\n"
    task = make_task(tmp_path, QuestionPair, {"dev.tsv": text})
    assert task.get_examples("dev") == [
        LabeledExample(2, "내일 뭐해?", "내일 뭐 하니?", label="0"),
        LabeledExample(3, " 배고파", "졸려 ", label="1"),
    ]
    assert task.is_symmetric and task.get_scorer().main_metric == "accuracy"


HATE = "title\tcomment\tbias\thate\n"


def test_hate_speech_is_judged_by_the_comment_alone(tmp_path):
    rows = ['"제목"\t"열린 따옴표\tnone\thate\n', "제목\t좋은 기사\tgender\tnone\n", "제목\t글쎄\tothers\toffensive\n"]
    task = make_task(tmp_path, HateSpeech, {"val.tsv": HATE + "".join(rows)})
    assert [(example.text_a, example.text_b, example.label) for example in task.get_examples("test")] == [
        ('"열린 따옴표', None, "hate"),
        ("좋은 기사", None, "none"),
        ("글쎄", None, "offensive"),
    ]
    assert task.get_scorer().main_metric == "f1"


def test_kornli_reads_a_standin_only_where_the_official_train_is_absent(tmp_path):
    row = "sentence1\tsentence2\tgold_label\n비가 온다.\t{}\tentailment\n"
    files = {name: row.format(name) for name in ("standin.klue-nli-dev.train.ko.tsv", "xnli.dev.ko.tsv", "xnli.test.ko.tsv")}
    task = make_task(tmp_path, KorNLI, files)
    assert task.get_examples("train") == [LabeledExample(2, "비가 온다.", "standin.klue-nli-dev.train.ko.tsv", label="entailment")]
    assert task.describe_files() == {
        "train": {"file": "standin.klue-nli-dev.train.ko.tsv", "standin_for": "multinli.train.ko.tsv"},
        "dev": {"file": "xnli.dev.ko.tsv", "standin_for": None},
        "test": {"file": "xnli.test.ko.tsv", "standin_for": None},
    }
    official = make_task(tmp_path, KorNLI, {"multinli.train.ko.tsv": row.format("공식")})
    assert official.get_examples("train")[0].text_b == "공식" and official.standin_for("train") is None


def test_a_dev_cut_out_of_train_is_described_as_such(tmp_path):
    task = make_task(tmp_path, HateSpeech, {"train.tsv": HATE, "val.tsv": HATE}, dev_fraction=0.1)
    assert task.describe_files()["dev"] == {"file": "train.tsv", "standin_for": None, "share_of_train": 0.1}


STS = "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\n"


def sts(score, *texts):
    return f"main-captions\tMSRvid\t2012test\t0002\t{score}\t" + "\t".join(texts)


def test_korsts_has_the_score_in_column_five_and_the_texts_after_it(tmp_path):
    task = make_task(tmp_path, KorSTS, {"sts-test.tsv": STS + sts("4.750", "아이가 말을 탄다.", "어린아이가 말을 타고 있다.")})
    (example,) = task.get_examples("test")
    assert example == ScoredExample(2, "아이가 말을 탄다.", "어린아이가 말을 타고 있다.", score=4.75)
    assert task._answer(example) == {"korsts_targets": 4.75}


@pytest.mark.parametrize(
    "task_class, text, words",
    [
        (KorSTS, STS + sts("5.1", "하나", "둘"), ["sts-test.tsv, line 2", "score '5.1'", "a number from 0 to 5"]),
        (KorSTS, STS + sts("nan", "하나", "둘"), ["line 2", "score 'nan'"]),
        (KorSTS, STS + sts("네", "하나", "둘"), ["line 2", "score '네'"]),
        (KorSTS, STS + sts("3", "하나") + "\n", ["line 2: 6 tab-separated fields instead of 7", "sentence2"]),
        (KorSTS, STS + sts("3", "하나", " ") + "\n", ["line 2: the sentence2 is empty", "korsts"]),
        (KorNLI, "sentence1\tsentence2\tgold_label\n하나\t둘\t-\n", ["line 2: label '-'", "entailment, neutral, contradiction"]),
        (KorNLI, "question1\tquestion2\tis_duplicate\n하나\t둘\t0\n", ["line 1", "question1", "another task"]),
        (HateSpeech, HATE + "제목\t\tnone\tnone\n", ["line 2: the comment is empty"]),
        (HateSpeech, HATE + "\t댓글\tnone\tgender\n", ["label 'gender'", "none, offensive, hate"]),
        (QuestionPair, "question1\tquestion2\tis_duplicate\n하나\t둘\tyes\n", ["label 'yes'", "allowed: 0, 1"]),
    ],
)
def test_bad_rows_are_named(tmp_path, task_class, text, words):
    with pytest.raises(UserError) as error:
        make_task(tmp_path, task_class, {task_class.files["test"]: text}).get_examples("test")
    assert all(word in str(error.value) for word in words), error.value


def test_a_missing_official_file_is_the_one_that_is_asked_for(tmp_path):
    with pytest.raises(UserError, match="kornli/multinli.train.ko.tsv.*--raw_data_dir"):
        make_task(tmp_path, KorNLI).path("train")


def test_label_weights_by_hand(tmp_path):
    # 4 none, 1 offensive, 1 hate: 6 / (3 * 4), 6 / (3 * 1), 6 / (3 * 1).
    labels = ["none"] * 4 + ["offensive", "hate"]
    rows = "".join(f"제목\t{index}\tnone\t{label}\n" for index, label in enumerate(labels))
    task = make_task(tmp_path, HateSpeech, {"train.tsv": HATE + rows}, dev_fraction=1e-9)
    assert task.label_weights() == [0.5, 2.0, 2.0]


def test_scores_are_written_as_tsv(tmp_path):
    results = [{"eid": 3, "targets": 3.2, "predictions": 2.75}, {"eid": 2, "targets": 5.0, "predictions": 4.0}]
    make_task(tmp_path, KorSTS).write_predictions(str(tmp_path / "test.tsv"), results)
    assert (tmp_path / "test.tsv").read_text() == "line\tscore\tprediction\n2\t5.0\t4.0\n3\t3.2\t2.75\n"


PAWS = "id\tsentence1\tsentence2\tlabel\n"


def test_paws_x_leaves_out_and_counts_rows_without_a_translation(tmp_path, caplog):
    rows = ["1\t가 나\t나 가\t1\n", "2\t\t\t0\n", "3\t가\tNS\t\n", "4\t가\t나\t0\n"]
    task = make_task(tmp_path, PawsX, {"test_2k.tsv": PAWS + "".join(rows)})
    with caplog.at_level("WARNING"):
        assert [(example.eid, example.label) for example in task.get_examples("test")] == [(2, "1"), (5, "0")]
    assert "2 of 4 rows" in caplog.text


def klue(*objects):
    return json.dumps(objects, ensure_ascii=False)


NLI = {"guid": "klue-nli-v1_dev_00000", "genre": "airbnb", "premise": "비가 온다.", "hypothesis": "맑다.", "gold_label": "contradiction"}
SIMILAR = {
    "guid": "1",
    "sentence1": "하나",
    "sentence2": "둘",
    "labels": {"label": 3.7, "real-label": 3.714285714285714, "binary-label": 1},
}


def test_klue_files_are_json(tmp_path):
    task = make_task(tmp_path, KlueNLI, {"klue-nli-v1.1_dev.json": klue(NLI)})
    assert task.get_examples("test") == [LabeledExample(1, "비가 온다.", "맑다.", label="contradiction")]
    task = make_task(tmp_path, KlueSTS, {"klue-sts-v1.1_dev.json": klue(SIMILAR)})
    assert task.get_examples("test") == [ScoredExample(1, "하나", "둘", score=3.714285714285714)]
    assert task.get_scorer().main_metric == "pearson"


@pytest.mark.parametrize(
    "task_class, text, words",
    [
        (KlueNLI, klue(NLI, NLI | {"gold_label": "-"}), ["klue-nli-v1.1_dev.json, row 2: label '-'", "entailment"]),
        (KlueNLI, klue(SIMILAR), ["row 1: no 'premise'", "another task"]),
        (KlueNLI, klue(NLI | {"premise": ""}), ["row 1: the premise is empty"]),
        (KlueNLI, json.dumps({"data": []}), ["holds dict instead of a list"]),
        (KlueNLI, "premise", ["is not JSON", "--raw_data_dir"]),
        (KlueSTS, klue(SIMILAR | {"labels": 3}), ["row 1: no 'labels/real-label'"]),
        (KlueSTS, klue(SIMILAR | {"labels": {"real-label": 7}}), ["row 1: score '7'", "a number from 0 to 5"]),
        (KlueNLI, klue("text"), ["row 1: no 'premise'"]),
    ],
)
def test_bad_objects_are_named(tmp_path, task_class, text, words):
    with pytest.raises(UserError) as error:
        make_task(tmp_path, task_class, {task_class.files["test"]: text}).get_examples("test")
    assert all(word in str(error.value) for word in words), error.value


# (task, split) -> rows and rows with the last label, or the mean score, as the data's own README counts them.
REAL = {
    (QuestionPair, "train"): (6136, 1967),
    (QuestionPair, "dev"): (682, 250),
    (QuestionPair, "test"): (758, 250),
    (HateSpeech, "test"): (471, 122),
    (KorNLI, "train"): (3000, 1000),
    (KorNLI, "dev"): (2490, 830),
    (KorNLI, "test"): (5010, 1670),
    (KorSTS, "train"): (5749, 2.70),
    (KorSTS, "dev"): (1500, 2.36),
    (KorSTS, "test"): (1379, 2.61),
}


@pytest.mark.parametrize("task_class, split", REAL)
def test_the_real_files_are_read_whole(shared_data, task_class, split):
    task = task_class(FinetuningConfig.create("mini", "unused", {"raw_data_dir": str(shared_data)}))
    examples, (rows, count) = task.get_examples(split), REAL[task_class, split]
    assert len(examples) == rows
    if task_class is KorSTS:
        assert round(sum(example.score for example in examples) / rows, 2) == count
    else:
        assert sum(example.label == task.labels[-1] for example in examples) == count


def test_the_real_hate_speech_train_and_dev_make_up_the_file(shared_data):
    task = HateSpeech(FinetuningConfig.create("mini", "unused", {"raw_data_dir": str(shared_data)}))
    train, dev = task.get_examples("train"), task.get_examples("dev")
    assert len(train) + len(dev) == 7896 and 320 < len(dev) < 470
