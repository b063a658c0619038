"""The tokenizer in the graph: ids of the Python tokenizer without an analyser, and with morphemes that were cut before."""

import numpy as np
import pytest
import tensorflow as tf

from export.graph_tokenizer import GraphTokenizer
from finetune.classification.classification_tasks import encode_pair
from model.tokenization import FullTokenizer
from model.words import find_eojeols
from tests.export.conftest import LINES, learned_vocabulary, vocabulary

pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed (export extra)")
HARD = [*LINES, "", "   ", "가" * 150, "가" * 201, "e\u0301" * 3, "ﾊﾟ ㌔ 각", "##영화 # ##", "a\x00b\x85c\u2028d\u3000e", "\ufffd영화"]


def marked(tokenizer, text):
    """The morphemes of a text as from_morphemes takes them."""
    return " ".join(morph for eojeol in find_eojeols(text) for morph in tokenizer.splitter.marked_words(eojeol))


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": True}, {"do_lower_case": True, "strip_accents": True}])
def test_ids_of_texts(tmp_path, settings):
    ours = FullTokenizer(vocabulary(tmp_path, LINES), tokenizer_type="wordpiece", **settings)
    found = GraphTokenizer(ours, 64).ids_of_texts(tf.constant(HARD)).to_list()
    for text, ids in zip(HARD, found, strict=True):
        assert ids == ours.encode(text), text


def test_ids_of_marked_morphemes(tmp_path):
    ours = FullTokenizer(vocabulary(tmp_path, LINES))
    texts = [text for text in HARD if not text.startswith("##")]
    found = GraphTokenizer(ours, 64).ids_of_morphemes(tf.constant([marked(ours, text) for text in texts])).to_list()
    for text, ids in zip(texts, found, strict=True):
        assert ids == ours.encode(text), text
    assert GraphTokenizer(ours, 64).ids_of_morphemes(tf.constant(["그 ##는 심각 ##합니다 ."])).to_list() == [
        ours.encode("그는 심각합니다.")
    ]


@pytest.mark.parametrize("length", [5, 6, 7, 12, 30])
def test_texts_are_cut_and_packed_as_in_fine_tuning(tmp_path, length):
    ours = FullTokenizer(vocabulary(tmp_path, LINES), tokenizer_type="wordpiece")
    graph, firsts, seconds = GraphTokenizer(ours, length), [LINES[0], "영화", LINES[3], ""], ["한국어", LINES[1], LINES[4], "끝"]
    for second in (None, seconds):
        ids = [graph.ids_of_texts(tf.constant(texts)) for texts in (firsts, second) if texts]
        packed = {name: values.numpy() for name, values in graph.pack(*ids).items()}
        for row, text in enumerate(firsts):
            expected = encode_pair(ours.encode(text), ours.encode(second[row]) if second else None, ours, length)
            size = len(expected["input_ids"])
            assert packed["input_ids"][row, :size].tolist() == expected["input_ids"]
            assert packed["segment_ids"][row, :size].tolist() == expected["segment_ids"]
            np.testing.assert_array_equal(packed["input_mask"][row], np.arange(packed["input_mask"].shape[1]) < size)
            assert (packed["input_ids"][row, size:] == ours.pad_id).all()


@pytest.mark.slow
def test_ids_of_every_line_of_the_task_files(shared_data, tmp_path):
    paths = sorted(path for path in shared_data.rglob("*.t*") if path.suffix in (".tsv", ".txt") and "corpus" not in path.parts)
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").split("\n")]
    vocab_file = learned_vocabulary(tmp_path, lines)
    without, graph = FullTokenizer(vocab_file, tokenizer_type="wordpiece"), GraphTokenizer(FullTokenizer(vocab_file), 64)
    found = [row for start in range(0, len(lines), 1000) for row in graph.ids_of_texts(tf.constant(lines[start : start + 1000])).to_list()]
    assert sum(ids != without.encode(line) for line, ids in zip(lines, found, strict=True)) == 0
    with_morphemes = FullTokenizer(vocab_file)
    differing = sum(ids != with_morphemes.encode(line) for line, ids in zip(lines, found, strict=True))
    print(f"{differing} of {len(lines)} lines get other ids without an analyser")
    assert 0 < differing < len(lines)
    some = lines[::20]
    found = graph.ids_of_morphemes(tf.constant([marked(with_morphemes, line) for line in some])).to_list()
    assert [ids for ids in found] == [with_morphemes.encode(line) for line in some]
