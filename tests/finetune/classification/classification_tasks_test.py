import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from configure_finetuning import FinetuningConfig
from finetune.classification.classification_modules import ClassificationModule
from finetune.classification.classification_tasks import NSMC, ClassificationTask, LabeledExample, encode_pair
from model.command import DataError, UserError
from model.modeling import BertConfig, BertOutput

HEADER = "id\tdocument\tlabel\n"


class WordTokenizer:
    """Every word is its own number."""

    cls_id, sep_id = 2, 3

    def encode(self, text):
        return [int(word) for word in text.split()]


class Pairs(ClassificationTask):
    name = "pairs"
    files = {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}
    columns = ("a", "b", "same")
    text_columns = ("a", "b")
    label_column = "same"
    labels = ("no", "yes")
    is_symmetric = True


def make_task(folder, task_class=NSMC, files=(), **user):
    (folder / task_class.name).mkdir(exist_ok=True)
    for name, text in dict(files).items():
        (folder / task_class.name / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return task_class(FinetuningConfig.create("mini", str(folder), {"raw_data_dir": str(folder), **user}))


def test_rows_are_read_as_they_are(tmp_path):
    text = HEADER + '1\t"""""재미있다""""" 정말\t1\n2\t\t0\n3\t"따옴표 하나\t0\n4\t참\u2028좋다\t1\n'
    task = make_task(tmp_path, files={"ratings_test.txt": text})
    assert task.get_examples("test") == [
        LabeledExample(2, '"""""재미있다""""" 정말', label="1"),
        LabeledExample(3, "", label="0"),
        LabeledExample(4, '"따옴표 하나', label="0"),
        LabeledExample(5, "참\u2028좋다", label="1"),
    ]


def test_quotes_do_not_merge_lines(tmp_path):
    # With a quote-aware reader the field that opens in line 2 ends in line 4, and two rows vanish.
    task = make_task(tmp_path, files={"ratings_test.txt": HEADER + '1\t"열고\t1\n2\t가운데\t0\n3\t닫고"\t1\n'})
    assert [example.text_a for example in task.get_examples("test")] == ['"열고', "가운데", '닫고"']


@pytest.mark.parametrize(
    "text, words",
    [
        (HEADER + "1\t좋다\t1\n2\t나쁘다\n", ["ratings_test.txt, line 3", "2 tab-separated fields instead of 3", "id, document, label"]),
        (HEADER + "1\t좋다\t2\n", ["ratings_test.txt, line 2", "label '2'", "allowed: 0, 1"]),
        ("id\ttext\tlabel\n1\t좋다\t1\n", ["ratings_test.txt, line 1", "header", "another task"]),
        ("question1\tquestion2\tis_duplicate\tid\n", ["line 1", "4 tab-separated fields"]),
        (HEADER, ["holds no examples", "--raw_data_dir"]),
        (HEADER + "1\t좋다\t1\n\n", ["line 3", "1 tab-separated fields"]),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path, text, words):
    with pytest.raises(UserError) as error:
        make_task(tmp_path, files={"ratings_test.txt": text}).get_examples("test")
    assert all(word in str(error.value) for word in words), error.value


def test_a_missing_file_and_a_wrong_encoding_are_named(tmp_path):
    with pytest.raises(UserError, match="ratings_train.txt.*--raw_data_dir"):
        make_task(tmp_path).get_examples("train")
    with pytest.raises(DataError, match="ratings_test.txt, line 2, byte 20"):
        make_task(tmp_path, files={"ratings_test.txt": HEADER.encode() + b"1\t" + "좋다".encode("cp949") + b"\t1\n"}).get_examples("test")


def rows(texts):
    return HEADER + "".join(f"{index}\t{text}\t{index % 2}\n" for index, text in enumerate(texts))


def test_dev_is_a_stable_share_of_train_chosen_by_text(tmp_path):
    texts = [f"문장 {index % 1500}" for index in range(2000)]  # 500 of them twice
    task = make_task(tmp_path, files={"ratings_train.txt": rows(texts)}, dev_fraction=0.1)
    train, dev = task.get_examples("train"), task.get_examples("dev")
    assert len(train) + len(dev) == 2000 and 140 < len(dev) < 260
    assert not {example.text_a for example in train} & {example.text_a for example in dev}
    assert {example.eid for example in train} | {example.eid for example in dev} == set(range(2, 2002))

    reordered = make_task(tmp_path, files={"ratings_train.txt": rows(texts[::-1])}, dev_fraction=0.1)
    assert {example.text_a for example in reordered.get_examples("dev")} == {example.text_a for example in dev}
    other = make_task(tmp_path, files={"ratings_train.txt": rows(texts)}, dev_fraction=0.1, dev_seed=1)
    assert {example.text_a for example in other.get_examples("dev")} != {example.text_a for example in dev}
    same = make_task(tmp_path, files={"ratings_train.txt": rows(texts)}, dev_fraction=0.1, seed=7)
    assert same.get_examples("dev") == dev, "the trial's seed must not move the dev split"


def test_a_dev_share_without_rows_is_refused(tmp_path):
    task = make_task(tmp_path, files={"ratings_train.txt": rows(["하나"])}, dev_fraction=0.001)
    with pytest.raises(UserError, match="no dev examples.*--dev_fraction"):
        task.get_examples("dev")


def test_a_dev_file_is_used_where_there_is_one(tmp_path):
    task = make_task(tmp_path, Pairs, {"train.tsv": "a\tb\tsame\n1\t2\tyes\n", "dev.tsv": "a\tb\tsame\n3\t4\tno\n"})
    assert task.get_examples("train") == [LabeledExample(2, "1", "2", label="yes")]
    assert task.get_examples("dev") == [LabeledExample(2, "3", "4", label="no")]


def test_features_of_one_text(tmp_path):
    task = make_task(tmp_path, max_seq_length=6)
    assert task.featurize(LabeledExample(9, "11 12", label="1"), WordTokenizer(), True) == [
        {"input_ids": [2, 11, 12, 3], "segment_ids": [0, 0, 0, 0], "num_cut": 0, "nsmc_eid": 9, "nsmc_label_ids": 1}
    ]
    (empty,) = task.featurize(LabeledExample(9, "", label="0"), WordTokenizer(), False)
    assert empty["input_ids"] == [2, 3] and empty["num_cut"] == 0
    (long,) = task.featurize(LabeledExample(9, "5 6 7 8 9", label="0"), WordTokenizer(), False)
    assert long["input_ids"] == [2, 5, 6, 7, 8, 3] and long["num_cut"] == 1


def test_symmetric_pairs_are_trained_on_in_both_orders(tmp_path):
    task, example = make_task(tmp_path, Pairs), LabeledExample(2, "11", "12 13", label="yes")
    found = [features["input_ids"] for features in task.featurize(example, WordTokenizer(), True)]
    assert found == [[2, 11, 3, 12, 13, 3], [2, 12, 13, 3, 11, 3]]
    assert len(task.featurize(example, WordTokenizer(), False)) == 1
    assert len(make_task(tmp_path, Pairs, double_unordered=False).featurize(example, WordTokenizer(), True)) == 1


def truncate_one_by_one(a, b, room):
    a, b = list(a), list(b)
    while len(a) + len(b) > room:
        (a if len(a) > len(b) else b).pop()
    return a, b


def test_pairs_are_cut_as_by_dropping_the_longer_ones_last_piece():
    for length_a in range(8):
        for length_b in range(8):
            for length in range(5, 14):
                a, b = list(range(10, 10 + length_a)), list(range(20, 20 + length_b))
                features = encode_pair(a, b, WordTokenizer(), length)
                kept_a, kept_b = truncate_one_by_one(a, b, length - 3)
                assert features["input_ids"] == [2, *kept_a, 3, *kept_b, 3]
                assert features["num_cut"] == length_a + length_b - len(kept_a) - len(kept_b)
                assert features["segment_ids"] == [0] * (len(kept_a) + 2) + [1] * (len(kept_b) + 1)


SHAPE = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)


def encoder_output(batch=3):
    values = tf.constant(np.random.default_rng(1).normal(size=(batch, 5, 8)), tf.float32)
    return BertOutput(values, [values], values)


def named(module):
    return {variable.name.partition(":")[0]: variable for variable in module.trainable_variables}


def test_google_head_is_one_dense_layer_under_the_published_names():
    module = ClassificationModule("nsmc", "linear", 2, SHAPE, seed=1)
    variables = named(module)
    assert {name: variable.shape.as_list() for name, variable in variables.items()} == {
        "task_specific/nsmc/classifier/kernel": [8, 2],
        "task_specific/nsmc/classifier/bias": [2],
    }
    kernel = variables["task_specific/nsmc/classifier/kernel"].numpy()
    assert np.abs(kernel).max() <= np.sqrt(6 / 10) and np.abs(kernel).max() > 0.4, "Glorot-uniform"
    output = encoder_output()
    losses, outputs = module(output, {"nsmc_label_ids": tf.constant([0, 1, 1]), "nsmc_eid": tf.constant([5, 6, 7])}, None)
    logits = output.sequence_output.numpy()[:, 0] @ kernel
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(outputs["probabilities"], probabilities, rtol=1e-5)
    np.testing.assert_allclose(losses, -np.log(probabilities[[0, 1, 2], [0, 1, 1]]), rtol=1e-5)
    np.testing.assert_array_equal(outputs["predictions"], probabilities.argmax(-1))
    np.testing.assert_array_equal(outputs["eid"], [5, 6, 7])


def test_dialog_head_has_two_layers_with_gelu():
    from scipy.special import erf

    module = ClassificationModule("nsmc", "two_layer", 2, SHAPE, seed=1)
    variables = named(module)
    assert {name: variable.shape.as_list() for name, variable in variables.items()} == {
        "task_specific/nsmc/classifier/dense/kernel": [8, 8],
        "task_specific/nsmc/classifier/dense/bias": [8],
        "task_specific/nsmc/classifier/out_proj/kernel": [8, 2],
        "task_specific/nsmc/classifier/out_proj/bias": [2],
    }
    variables["task_specific/nsmc/classifier/dense/bias"].assign(np.linspace(-1, 1, 8))
    output = encoder_output()
    _, outputs = module(output, {"nsmc_label_ids": tf.constant([0, 1, 1]), "nsmc_eid": tf.constant([5, 6, 7])}, None)
    hidden = output.sequence_output.numpy()[:, 0] @ variables["task_specific/nsmc/classifier/dense/kernel"].numpy() + np.linspace(-1, 1, 8)
    hidden = 0.5 * hidden * (1 + erf(hidden / np.sqrt(2)))
    np.testing.assert_allclose(outputs["logits"], hidden @ variables["task_specific/nsmc/classifier/out_proj/kernel"].numpy(), atol=1e-6)


def test_heads_of_other_seeds_start_elsewhere():
    first, second = (ClassificationModule("nsmc", "linear", 2, SHAPE, seed).classifier.kernel.numpy() for seed in (1, 2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, ClassificationModule("nsmc", "linear", 2, SHAPE, 1).classifier.kernel.numpy())


def test_predictions_are_written_as_tsv_in_the_files_order(tmp_path):
    results = [
        {"eid": np.int32(3), "label_ids": 1, "predictions": 0, "probabilities": np.float32([0.75, 0.25])},
        {"eid": np.int32(2), "label_ids": 0, "predictions": 0, "probabilities": np.float32([0.5, 0.5])},
    ]
    make_task(tmp_path).write_predictions(str(tmp_path / "test.tsv"), results)
    assert (tmp_path / "test.tsv").read_text().splitlines() == [
        "line\tlabel\tprediction\tp(0)\tp(1)",
        "2\t0\t0\t0.5\t0.5",
        "3\t1\t0\t0.75\t0.25",
    ]


@pytest.mark.slow
def test_the_official_files_are_read_whole(shared_data):
    task = NSMC(FinetuningConfig.create("mini", "unused", {"raw_data_dir": str(shared_data)}))
    train, dev, test = (task.get_examples(split) for split in ("train", "dev", "test"))
    assert len(train) + len(dev) == 150_000 and len(test) == 50_000
    assert 7_000 < len(dev) < 8_000
    assert sum(example.text_a == "" for example in (*train, *dev)) == 5 and sum(example.text_a == "" for example in test) == 3
    assert sum(example.label == "1" for example in (*train, *dev)) == 74_827
    assert not {example.text_a for example in train} & {example.text_a for example in dev}
    assert all(dataclasses.is_dataclass(example) for example in dev[:3])
