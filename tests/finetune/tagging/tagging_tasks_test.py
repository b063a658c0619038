import unicodedata

import numpy as np
import pytest

from configure_finetuning import FinetuningConfig
from finetune.tagging.tagging_module import NO_TAG
from finetune.tagging.tagging_tasks import KlueNER, NaverNER, TaggedExample, keep_whole_words, word_pieces
from model.command import UserError
from model.tokenization import FullTokenizer

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROWS = ["그", "##는", "심각", "##합니다", ".", "토리", "##코", "한국", "##어", "e", "##f"]
ID = {piece: row for row, piece in enumerate(SPECIALS + ROWS)}


@pytest.fixture
def make_tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(SPECIALS + ROWS) + "\n", encoding="utf-8")
    return lambda tokenizer_type="wordpiece", **options: FullTokenizer(
        str(tmp_path / "vocab.txt"), tokenizer_type=tokenizer_type, **options
    )


def make_task(folder, files=(), **user):
    (folder / "naver-ner").mkdir(exist_ok=True)
    for name, text in dict(files).items():
        (folder / "naver-ner" / name).write_text(text, encoding="utf-8")
    return NaverNER(FinetuningConfig.create("mini", str(folder), {"raw_data_dir": str(folder), **user}))


def named(pieces_by_word):
    names = list(ID)
    return [[names[piece] for piece in pieces] for pieces in pieces_by_word]


@pytest.mark.parametrize("tokenizer_type", ["wordpiece", "mecab_wordpiece"])
def test_pieces_belong_to_the_word_they_stand_in(make_tokenizer, tokenizer_type):
    words = ["그는", "심각합니다.", "토리코", "한국어..."]
    assert named(word_pieces(words, make_tokenizer(tokenizer_type))) == [
        ["그", "##는"],
        ["심각", "##합니다", "."],
        ["토리", "##코"],
        ["한국", "##어", ".", ".", "."],
    ]


def test_a_word_without_pieces_keeps_its_place(make_tokenizer):
    words = ["그는", "\x07", "\u200b", "", "토리코", "\ufffd"]
    assert named(word_pieces(words, make_tokenizer())) == [["그", "##는"], ["[UNK]"], ["[UNK]"], ["[UNK]"], ["토리", "##코"], ["[UNK]"]]


def test_words_that_normalisation_shortens_or_cuts_keep_their_place(make_tokenizer):
    decomposed = unicodedata.normalize("NFD", "한국어")
    assert named(word_pieces(["그는", decomposed, "토리\u3000코", "."], make_tokenizer()))[:2] == [["그", "##는"], ["한국", "##어"]]
    found = named(word_pieces(["토리\u00a0그는", "."], make_tokenizer()))
    assert found == [["토리", "그", "##는"], ["."]], "a no-break space cuts pieces, not words"


def test_case_is_the_tokenizers_own(make_tokenizer):
    assert named(word_pieces(["ef", "EF"], make_tokenizer())) == [["e", "##f"], ["[UNK]"]]
    assert named(word_pieces(["ef", "EF"], make_tokenizer(do_lower_case=True))) == [["e", "##f"], ["e", "##f"]]


def test_cutting_keeps_whole_words():
    words = [[5, 6], [7], [8, 9, 10]]
    assert keep_whole_words(words, 6) == words
    assert keep_whole_words(words, 5) == [[5, 6], [7]] == keep_whole_words(words, 3)
    assert keep_whole_words(words, 2) == [[5, 6]] and keep_whole_words(words, 1) == [[5]]


def test_features_of_a_sentence(tmp_path, make_tokenizer):
    example = TaggedExample(4, "토리코 그는 심각합니다.", tags=("PER-B", "O", "TRM-I"))
    (features,) = make_task(tmp_path).featurize(example, make_tokenizer(), True)
    assert features["input_ids"] == [ID[piece] for piece in "[CLS] 토리 ##코 그 ##는 심각 ##합니다 . [SEP]".split()]
    assert features["naver-ner_tag_ids"] == [NO_TAG, 1, NO_TAG, 0, NO_TAG, 28, NO_TAG, NO_TAG, NO_TAG]
    assert features["segment_ids"] == [0] * 9 and features["num_cut"] == 0 and features["naver-ner_eid"] == 4


def test_a_long_sentence_is_filled_up_to_the_last_whole_word(tmp_path, make_tokenizer):
    example = TaggedExample(4, "토리코 그는 심각합니다.", tags=("PER-B", "O", "TRM-I"))
    (features,) = make_task(tmp_path, max_seq_length=8).featurize(example, make_tokenizer(), True)
    assert features["input_ids"] == [ID[piece] for piece in "[CLS] 토리 ##코 그 ##는 [SEP]".split()]
    assert features["naver-ner_tag_ids"] == [NO_TAG, 1, NO_TAG, 0, NO_TAG, NO_TAG] and features["num_cut"] == 3
    (exact,) = make_task(tmp_path, max_seq_length=9).featurize(example, make_tokenizer(), True)
    assert len(exact["input_ids"]) == 9 and exact["num_cut"] == 0, "unlike the original, nothing is cut that fits"


def test_there_are_29_tags(tmp_path):
    tags = make_task(tmp_path).tags
    assert len(tags) == 29 and tags[:3] == ["O", "PER-B", "PER-I"] and tags[-1] == "TRM-I"


FILE = "토리코 그는\tPER-B O\n그는 한국 한국\tO LOC-B LOC-I\n"


def test_words_that_were_cut_off_count_as_outside(tmp_path):
    task = make_task(tmp_path, {"test.tsv": FILE})
    output = {"eid": np.int32(2), "tag_ids": np.array([-1, 0, -1, 5, -1]), "predictions": np.array([7, 0, 7, 9, 7]), "loss": 1.5}
    whole = task.complete("test", output)
    assert whole["words"] == ["그는", "한국", "한국"] and whole["tags"] == ["O", "LOC-B", "LOC-I"]
    assert whole["predicted_tags"] == ["O", "LOC-B", "O"] and whole["num_seen"] == 2 and whole["loss"] == 1.5


def test_predictions_are_written_word_by_word(tmp_path):
    results = [
        {"eid": 2, "words": ["한국"], "tags": ["LOC-B"], "predicted_tags": ["O"]},
        {"eid": 1, "words": ["토리코", "그는"], "tags": ["PER-B", "O"], "predicted_tags": ["PER-B", "O"]},
    ]
    make_task(tmp_path).write_predictions(str(tmp_path / "out.tsv"), results)
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8").splitlines() == [
        "line\tword\ttag\tprediction",
        "1\t토리코\tPER-B\tPER-B",
        "1\t그는\tO\tO",
        "2\t한국\tLOC-B\tO",
    ]


@pytest.mark.parametrize(
    "text, words",
    [
        ("토리코 그는\tPER-B\n", ["train.tsv, line 1: 2 words but 1 tags"]),
        ("토리코  그는\tPER-B O\n", ["3 words but 2 tags", "single spaces"]),
        (FILE + "토리코\tB-PER\n", ["line 3: tag 'B-PER' of task naver-ner", "allowed: O, PER-B, PER-I"]),
        ("id\tdocument\tlabel\n", ["line 1: 3 tab-separated fields instead of 2 (words, tags)"]),
        (FILE + "\tO\n", ["line 3: the sentence is empty"]),
    ],
)
def test_bad_rows_are_named(tmp_path, text, words):
    with pytest.raises(UserError) as error:
        make_task(tmp_path, {"train.tsv": text}).get_examples("train")
    assert all(word in str(error.value) for word in words), error.value


def characters(text, *tags):
    return "".join(f"{character}\t{tag}\n" for character, tag in zip(text, tags, strict=True))


def make_klue(folder, text):
    (folder / "klue-ner").mkdir()
    (folder / "klue-ner" / "klue-ner-v1.1_dev.tsv").write_text(text, encoding="utf-8")
    return KlueNER(FinetuningConfig.create("mini", str(folder), {"raw_data_dir": str(folder)}))


def test_klue_characters_become_words(tmp_path, caplog):
    first = characters("두 사람은 #3번", "B-QT", "I-QT", "I-QT", "I-QT", "O", "O", "O", "B-QT", "I-QT")
    second = characters("박씨(32)", "B-PS", "O", "O", "B-QT", "I-QT", "O")
    comments = "## 컬럼명 : CHAR\tNE_TAG\n## klue-ner-v1_dev_00000-nsmc\t<두 사람:QT>은\n"
    task = make_klue(tmp_path, comments + first + "\n## klue-ner-v1_dev_00001\t...\n" + second + "\t\n")
    with caplog.at_level("INFO", logger="absl"):
        assert task.get_examples("test") == [
            TaggedExample(3, "두 사람은 #3번", tags=("QT-B", "QT-I", "QT-B")),
            TaggedExample(14, "박씨(32)", tags=("PS-B",)),
        ]
    assert "1 entities begin in a word that has another one before" in caplog.text


@pytest.mark.parametrize(
    "text, words",
    [
        (characters("가나", "O", "B-XX"), ["klue-ner-v1.1_dev.tsv, line 1: tag 'XX-B' of task klue-ner", "allowed: O, PS-B"]),
        ("가\tO\n나\n", ["line 2: 1 tab-separated fields instead of 2 (character, tag)"]),
    ],
)
def test_bad_characters_are_named(tmp_path, text, words):
    with pytest.raises(UserError) as error:
        make_klue(tmp_path, text).get_examples("test")
    assert all(word in str(error.value) for word in words), error.value


def test_the_real_standin_is_read_whole(shared_data):
    task = NaverNER(FinetuningConfig.create("mini", "unused", {"raw_data_dir": str(shared_data)}))
    train = [*task.get_examples("train"), *task.get_examples("dev")]
    test = task.get_examples("test")
    assert (len(train), len(test)) == (4000, 1000)
    assert sum(len(example.words) for example in train) == 52_522 and sum(len(example.words) for example in test) == 12_856
    assert sum(example.tags.count("PER-B") for example in train) == 3_439 and sum(example.tags.count("O") for example in test) == 9_466
    assert task.standin_for("dev") == "train.tsv" and task.standin_for("test") == "test.tsv"


def test_on_real_sentences_each_word_has_the_pieces_it_has_alone(shared_data, tmp_path):
    task = NaverNER(FinetuningConfig.create("mini", "unused", {"raw_data_dir": str(shared_data)}))
    examples = task.get_examples("test")[:300]
    letters = sorted({letter for example in examples for letter in example.text_a[::3]} - {" "})
    rows = [*SPECIALS, *letters, *("##" + letter for letter in letters)]
    (tmp_path / "vocab.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    tokenizer = FullTokenizer(str(tmp_path / "vocab.txt"))
    for example in examples:
        alone = [tokenizer.encode(word) or [tokenizer.unk_id] for word in example.words]
        assert word_pieces(example.words, tokenizer) == alone
        (features,) = task.featurize(example, tokenizer, False)
        tag_ids = [tag_id for tag_id in features["naver-ner_tag_ids"] if tag_id != NO_TAG]
        assert [task.tags[tag_id] for tag_id in tag_ids] == list(example.tags)[: len(tag_ids)] and len(features["input_ids"]) <= 128
