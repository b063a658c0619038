import functools
import hashlib
import io
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import tokenization, words
from model.command import DataError, UserError
from model.tokenization import SPECIAL_TOKENS, FullTokenizer, Piece, check_provenance, load_vocab

PIECES = """그 ##는 심각 ##합니다 심 ##각 ##합 ##니 ##다 . [ ] MASK 한국 ##어 ##어를 한 ##국 영화 ##ㅋ ㅋ # a ##b é i e ##e 漢 ( ) ! ,
재미 재 ##미 ##있 ##어요 ##요 가 ##가 나 ##나 ##ㅠ 하 뷁""".split()
TEXT = st.text(
    alphabet="그는심각합니다한국어를영화재미있요가나뷁ㅋㅠ abéÉİ.!#[]漢\u200b\u0301\u1100\u1161\u11a8\x00\u2028\u3000😀", max_size=30
)


def _write(folder, entries, name="vocab.txt"):
    path = folder / name
    path.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("vocab"), [*SPECIAL_TOKENS, *PIECES])


@pytest.fixture(scope="module")
def tokenizer(vocab_file):
    return FullTokenizer(vocab_file)


# ---- pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("그는 심각합니다.", "그 ##는 심각 ##합니다 ."),
        ("한국어를", "한국 ##어 [UNK]"),  # 한국어 ##를, and ##를 is not in the vocabulary
        ("심니다", "심 ##니 ##다"),
        ("쀍 영화", "[UNK] 영화"),
        ("[MASK]", "[ MASK ]"),
        ("", ""),
        (" \t\n\u3000", ""),
        ("\u200b", ""),
        ("漢漢", "漢 漢"),
        ("ㅋㅋㅋ", "ㅋ ##ㅋ ##ㅋ"),
    ],
)
def test_tokenize(tokenizer, text, expected):
    assert tokenizer.tokenize(text) == expected.split()


def test_types_differ_in_morphemes_only(vocab_file):
    plain = FullTokenizer(vocab_file, tokenizer_type="wordpiece")
    assert plain.tokenize("한국어를") == ["한국", "##어를"]
    assert FullTokenizer(vocab_file, analyzer="none").tokenize("한국어를 영화!") == plain.tokenize("한국어를 영화!")


def test_kept_original_special_tokens_in_the_text_are_text(tokenizer):
    ids = tokenizer.encode("[MASK] [CLS]")
    assert tokenizer.mask_id not in ids and tokenizer.cls_id not in ids


def test_kept_original_words_over_200_characters_are_unknown(vocab_file):
    tokenizer = FullTokenizer(vocab_file, tokenizer_type="wordpiece")
    assert tokenizer.tokenize("가" * 200) == ["가"] + ["##가"] * 199
    assert tokenizer.tokenize_with_offsets("가" * 201 + "나.") == [Piece("[UNK]", 0, 202), Piece(".", 202, 203)]


def test_fixed_lower_casing_keeps_hangul(vocab_file):
    tokenizer = FullTokenizer(vocab_file, do_lower_case=True)
    assert tokenizer.tokenize("한국어 A É") == ["한국", "##어", "a", "é"]
    assert FullTokenizer(vocab_file, do_lower_case=True, strip_accents=True).tokenize("뷁 É") == ["뷁", "e"]


def test_nfd_input_gives_the_ids_of_nfc(tokenizer):
    text = "그는 심각합니다. 한국어 영화가 재미있어요"
    assert tokenizer.encode(unicodedata.normalize("NFD", text)) == tokenizer.encode(text)


def test_kept_original_greedy_match_gives_up_whole_morphemes(tokenizer):
    # 재 ##미 match and 쀍 does not: the morpheme is one [UNK], not three pieces.
    assert tokenizer._wordpiece("재미쀍", False) == [("[UNK]", 3)]


# ---- offsets


def test_offsets_by_hand(tokenizer):
    assert tokenizer.tokenize_with_offsets(" 그는  심각합니다.") == [
        Piece("그", 1, 2),
        Piece("##는", 2, 3),
        Piece("심각", 5, 7),
        Piece("##합니다", 7, 10),
        Piece(".", 10, 11),
    ]


def test_offsets_of_nfd_text_count_code_points(tokenizer):
    text = unicodedata.normalize("NFD", "한국어 영화")  # ㅎㅏㄴ ㄱㅜㄱ ㅇㅓ, ㅇㅕㅇ ㅎㅘ
    assert tokenizer.tokenize_with_offsets(text) == [Piece("한국", 0, 6), Piece("##어", 6, 8), Piece("영화", 9, 14)]


def test_offsets_across_dropped_characters(tokenizer):
    assert tokenizer.tokenize_with_offsets("\ufeff심\u200b각합\x00니다") == [Piece("심각", 1, 4), Piece("##합니다", 4, 8)]


@given(TEXT | st.text(max_size=20), st.booleans(), st.sampled_from(["NFC", "NFD", None]))
@settings(max_examples=400, deadline=None)
def test_offsets_cover_the_text_in_order(make_tokenizer, text, lower, form):
    text = unicodedata.normalize(form, text) if form else text
    tokenizer = make_tokenizer(lower)
    pieces = tokenizer.tokenize_with_offsets(text)
    assert [piece.text for piece in pieces] == tokenizer.tokenize(text)
    assert tokenizer.encode(text) == tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
    assert all(0 <= piece.start < piece.end <= len(text) for piece in pieces)
    assert [piece.start for piece in pieces] == sorted(piece.start for piece in pieces)
    assert [piece.end for piece in pieces] == sorted(piece.end for piece in pieces)
    for piece in pieces:
        if piece.text != tokenizer.unk_token:
            assert piece.text.removeprefix("##") in tokenizer.splitter.normalize(text[piece.start : piece.end]).text
    visible = {index for index, char in enumerate(text) if not words._is_dropped(char) and not words._is_space(char)}
    assert visible <= {index for piece in pieces for index in range(piece.start, piece.end)}


@pytest.fixture(scope="module")
def make_tokenizer(vocab_file):
    tokenizers = {lower: FullTokenizer(vocab_file, do_lower_case=lower) for lower in (False, True)}
    return tokenizers.__getitem__


# ---- referees


def _marked_samples():
    splitter = words.WordSplitter(analyzer="mecab")
    text = "그는 심각합니다. 한국어를 영화ㅋㅋ 재미있어요! 뷁쀍 가나 나가 #가 ##는 ( 漢가 ) 심각심각 합니다합니다 abé 재미없다 하하하ㅠㅠ"
    return [word for eojeol in text.split() for word in splitter.marked_words(eojeol)] + ["##는가", "##쀍", "##가나ㅋ", "가" * 200]


def _our_pieces(tokenizer, marked):
    continues = marked.startswith("##") and len(marked) > 2
    return [piece for piece, _ in tokenizer._wordpiece(marked[2:] if continues else marked, continues)]


def test_pieces_agree_with_the_tokenizers_library(tokenizer):
    from tokenizers import models

    referee = models.WordPiece(tokenizer.vocab, unk_token="[UNK]", max_input_chars_per_word=300)
    for marked in _marked_samples():
        assert _our_pieces(tokenizer, marked) == [token.value for token in referee.tokenize(marked)], marked


def test_pieces_agree_with_tensorflow_text(tokenizer):
    tensorflow_text = pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed", exc_type=ImportError)
    import tensorflow as tf

    referee = tensorflow_text.FastWordpieceTokenizer(
        list(tokenizer.vocab), token_out_type=tf.string, unknown_token="[UNK]", no_pretokenization=True, max_bytes_per_word=1000
    )
    for marked in _marked_samples():
        found = [piece.decode("utf-8") for piece in referee.tokenize([marked]).to_list()[0]]
        assert _our_pieces(tokenizer, marked) == found, marked


# ---- vocabularies


def test_special_tokens_go_by_name(tmp_path):
    tokenizer = FullTokenizer(_write(tmp_path, ["가", "[MASK]", "[SEP]", "[CLS]", "나", "[UNK]", "[PAD]"]), analyzer="none")
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (6, 5, 3, 2, 1)
    assert tokenizer.encode("가 다") == [0, 5]


def test_kept_original_last_of_a_doubled_entry_wins(tmp_path):
    path = _write(tmp_path, [*SPECIAL_TOKENS, "가", "나", "가"])
    tokenizer = FullTokenizer(path, analyzer="none")
    assert load_vocab(path)["가"] == 7 and tokenizer.encode("가 나") == [7, 6]
    assert tokenizer.vocab_size == 8
    assert tokenizer.convert_ids_to_tokens([5, 6, 7]) == ["가", "나", "가"]


def test_vocab_size_counts_a_doubled_last_row(tmp_path):
    assert FullTokenizer(_write(tmp_path, ["가", *SPECIAL_TOKENS, "가"]), analyzer="none").vocab_size == 7


@pytest.mark.parametrize(
    "text", ["\ufeff[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\n가\r\n", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n가\n\n\n"]
)
def test_marks_line_ends_and_blank_last_lines_do_not_count(tmp_path, text):
    path = tmp_path / "vocab.txt"
    path.write_bytes(text.encode("utf-8"))
    assert load_vocab(str(path)) == {name: row for row, name in enumerate([*SPECIAL_TOKENS, "가"])}


def test_golden_vocabulary_loads(golden):
    tokenizer = FullTokenizer(str(golden / "small" / "vocab.txt"), tokenizer_type="wordpiece")
    assert tokenizer.vocab_size == 1000


def test_missing_special_token_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no \[MASK\] among its 4 entries.*--vocab_file"):
        FullTokenizer(_write(tmp_path, SPECIAL_TOKENS[:4]))


@pytest.mark.parametrize("data", [b"", b"\n\n"])
def test_empty_vocabulary(tmp_path, data):
    path = tmp_path / "vocab.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match="is empty.*--vocab_file"):
        FullTokenizer(str(path))


def test_missing_vocabulary(tmp_path):
    with pytest.raises(UserError, match="cannot read .*nothing.txt.: No such file.*--vocab_file"):
        FullTokenizer(str(tmp_path / "nothing.txt"))


def test_vocabulary_in_another_encoding(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"[PAD]\n" + "가".encode("cp949") + b"\n")
    with pytest.raises(DataError, match="vocab.txt, line 2, byte 0: not UTF-8"):
        FullTokenizer(str(path))


def test_unknown_type(vocab_file):
    with pytest.raises(UserError, match="unknown tokenizer type 'bpe', must be one of mecab_wordpiece, wordpiece, sentencepiece"):
        FullTokenizer(vocab_file, tokenizer_type="bpe")


def test_converting_unknown_tokens_and_ids_fails(tokenizer):
    assert tokenizer.convert_ids_to_tokens(tokenizer.convert_tokens_to_ids(["그", "##는"])) == ["그", "##는"]
    with pytest.raises(KeyError):
        tokenizer.convert_tokens_to_ids(["없음"])
    with pytest.raises(KeyError):
        tokenizer.convert_ids_to_tokens([tokenizer.vocab_size])


# ---- speed


def test_encode_looks_an_eojeol_up_once(vocab_file, monkeypatch):
    seen = []
    original = FullTokenizer._eojeol_ids
    monkeypatch.setattr(FullTokenizer, "_eojeol_ids", lambda self, eojeol: seen.append(eojeol) or original(self, eojeol))
    tokenizer = FullTokenizer(vocab_file)
    assert tokenizer.encode("영화 가 영화") == tokenizer.encode("영화 가 영화")
    assert seen == ["영화", "가"]


def test_memory_of_encode_is_bounded_and_keeps_what_is_still_asked_for():
    computed = []
    memo = tokenization._Memo(lambda key: computed.append(key) or (len(key),), 2)
    assert [memo[key] for key in ("a", "bb", "a", "ccc", "a", "dddd", "a")] == [(1,), (2,), (1,), (3,), (1,), (4,), (1,)]
    assert computed == ["a", "bb", "ccc", "dddd"]
    assert len(memo) <= 2 and len(memo._older) <= 2
    assert memo["bb"] == (2,) and computed[-1] == "bb"  # forgotten two generations ago


@pytest.mark.parametrize("tokenizer_type", ["mecab_wordpiece", "wordpiece"])
@pytest.mark.parametrize("do_lower_case", [False, True])
@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_encode_equals_the_ids_of_the_pieces(vocab_file, tokenizer_type, do_lower_case, text):
    tokenizer = _shared_tokenizer(vocab_file, do_lower_case, tokenizer_type)
    assert tokenizer.encode(text) == tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))


@functools.cache
def _shared_tokenizer(*arguments):
    return FullTokenizer(*arguments)


# ---- provenance


def test_provenance(vocab_file, tokenizer):
    with open(vocab_file, "rb") as file:
        sha256 = hashlib.sha256(file.read()).hexdigest()
    found = tokenizer.provenance()
    assert "python-mecab-ko-dic" in found.pop("analyzer_version")
    assert found == {
        "tokenizer_type": "mecab_wordpiece",
        "analyzer": "mecab",
        "do_lower_case": False,
        "strip_accents": False,
        "vocab_sha256": sha256,
        "vocab_size": len(PIECES) + 5,
    }


def test_provenance_of_plain_wordpiece_names_no_analyser(vocab_file):
    found = FullTokenizer(vocab_file, tokenizer_type="wordpiece", analyzer="mecab").provenance()
    assert (found["analyzer"], found["analyzer_version"]) == ("none", "")


@pytest.mark.parametrize(
    ("key", "made_with", "flag"),
    [
        ("tokenizer_type", "wordpiece", "--tokenizer_type"),
        ("analyzer", "okt", "--analyzer"),
        ("analyzer_version", "konlpy 0.5", "--analyzer"),
        ("do_lower_case", True, "--do_lower_case"),
        ("vocab_sha256", "00ff", "--vocab_file"),
        ("vocab_size", 7, "--vocab_file"),
    ],
)
def test_check_provenance_names_both_values_and_the_flag(tokenizer, key, made_with, flag):
    found = tokenizer.provenance()
    with pytest.raises(UserError) as error:
        check_provenance(found | {key: made_with}, found, "the TFRecords in data")
    assert all(part in str(error.value) for part in ("the TFRecords in data", key, repr(made_with), repr(found[key]), flag))


def test_check_provenance_passes_what_is_equal(tokenizer):
    check_provenance(tokenizer.provenance(), tokenizer.provenance(), "itself")
    with pytest.raises(UserError, match="None"):
        check_provenance(tokenizer.provenance(), {}, "an old record")


# ---- sentencepiece


def _train(**settings):
    import sentencepiece

    lines = ["한국어를 공부합니다 hello world", "영화가 재미 있다 ㅋㅋㅋ", "정말 한국 영화 재미없다 ㅠㅠ"] * 50
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=80,
        minloglevel=2,
        hard_vocab_limit=False,
        **settings,
    )
    return model.getvalue()


OURS = {
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": -1,
    "eos_id": -1,
    "pad_piece": "[PAD]",
    "unk_piece": "[UNK]",
    "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
    "normalization_rule_name": "identity",
}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("spm") / "vocab.model"
    path.write_bytes(_train(**OURS))
    return str(path)


def test_sentencepiece_offsets_and_unknowns(model_file):
    tokenizer = FullTokenizer(model_file, tokenizer_type="sentencepiece")
    pieces = tokenizer.tokenize_with_offsets(" 영화가다  쀍 재미")
    assert [(piece.text, piece.start, piece.end) for piece in pieces] == [
        ("▁영화가", 1, 4),
        ("다", 4, 5),
        ("▁", 7, 7),
        ("[UNK]", 7, 8),
        ("▁재미", 9, 11),
    ]
    assert tokenizer.encode(" 영화가다  쀍 재미") == tokenizer.convert_tokens_to_ids([piece.text for piece in pieces])


def test_sentencepiece_cuts_a_line_as_the_library_does(model_file):
    import sentencepiece

    library = sentencepiece.SentencePieceProcessor(model_file=model_file)
    tokenizer = FullTokenizer(model_file, tokenizer_type="sentencepiece")
    for line in ("한국어를 공부합니다 hello world", "정말 재미없는 한국 영화 ㅋㅋ", "  world   hello ", "쀍쀍 가쀍"):
        assert tokenizer.encode(line) == library.encode(line, out_type=int)


def test_sentencepiece_special_tokens_never_come_from_text(model_file):
    tokenizer = FullTokenizer(model_file, tokenizer_type="sentencepiece")
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 1, 2, 3, 4)
    assert not {tokenizer.cls_id, tokenizer.mask_id} & set(tokenizer.encode("[CLS] [MASK]"))


def test_sentencepiece_of_another_maker_by_its_own_names(tmp_path):
    path = tmp_path / "kobert.model"
    path.write_bytes(_train(unk_id=0, pad_id=1, bos_id=2, eos_id=3, control_symbols=["[MASK]"]))
    tokenizer = FullTokenizer(str(path), tokenizer_type="sentencepiece")
    assert (tokenizer.unk_token, tokenizer.pad_token, tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token) == (
        "<unk>",
        "<pad>",
        "<s>",
        "</s>",
        "[MASK]",
    )
    assert (tokenizer.unk_id, tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 1, 2, 3, 4)


def test_sentencepiece_normaliser_that_moves_characters_keeps_offsets_inside_the_eojeol(tmp_path):
    path = tmp_path / "nfkc.model"
    path.write_bytes(_train(**OURS | {"normalization_rule_name": "nmt_nfkc"}))
    pieces = FullTokenizer(str(path), tokenizer_type="sentencepiece").tokenize_with_offsets("영화 ㈜한국")
    assert all(3 <= piece.start <= piece.end <= 6 for piece in pieces[1:])


def test_vocabulary_beside_a_model_gives_the_ids(tmp_path, model_file):
    with open(model_file, "rb") as file:
        (tmp_path / "tokenizer.model").write_bytes(file.read())
    path = _write(tmp_path, ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "▁영화가", "다"])
    tokenizer = FullTokenizer(path, tokenizer_type="sentencepiece")
    assert tokenizer.encode("영화가다 재미") == [5, 6, 0]
    (tmp_path / "another.model").write_bytes(b"")
    with pytest.raises(UserError, match="2 lie beside"):
        FullTokenizer(path, tokenizer_type="sentencepiece")


def test_sentencepiece_provenance_depends_on_model_and_entries(tmp_path, model_file):
    names = FullTokenizer(model_file, tokenizer_type="sentencepiece").vocab
    with open(model_file, "rb") as file:
        (tmp_path / "vocab.model").write_bytes(file.read())

    def digest(path):
        return FullTokenizer(path, tokenizer_type="sentencepiece").provenance()["vocab_sha256"]

    assert digest(model_file) == digest(_write(tmp_path, names)) != digest(_write(tmp_path, reversed(names)))


def test_sentencepiece_without_a_model(vocab_file):
    with pytest.raises(UserError, match=r"needs a \.model file, and 0 lie beside.*--vocab_file"):
        FullTokenizer(vocab_file, tokenizer_type="sentencepiece")


def test_damaged_sentencepiece_model(tmp_path):
    (tmp_path / "bad.model").write_bytes(b"not a model")
    with pytest.raises(DataError, match="is not a sentencepiece model"):
        FullTokenizer(str(tmp_path / "bad.model"), tokenizer_type="sentencepiece")


def test_sentencepiece_whose_pieces_cross_spaces_is_refused(tmp_path):
    (tmp_path / "odd.model").write_bytes(_train(**OURS, add_dummy_prefix=False))
    with pytest.raises(UserError, match="pieces that cross spaces"):
        FullTokenizer(str(tmp_path / "odd.model"), tokenizer_type="sentencepiece")
