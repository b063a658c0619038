"""Tokenizer type "kobert": against sentencepiece on whole sentences and a second writing of what KoBertTokenizer does around it."""

import functools
import io
import json
import unicodedata

import pytest
import sentencepiece

from model import transformers_folder
from model.command import DataError, UserError
from model.tokenization import FullTokenizer

# KoBERT's ids: [UNK] 0, [PAD] 1, [CLS] 2, [SEP] 3, [MASK] 4.
KOBERT = {
    "unk_id": 0,
    "pad_id": 1,
    "bos_id": -1,
    "eos_id": -1,
    "unk_piece": "[UNK]",
    "pad_piece": "[PAD]",
    "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
}
CORPUS = [
    "영화가 정말 재미있다 ㅋㅋㅋ...",
    "한국어 영화를 1,000원에 10, 20, 30편 보았다",
    "카페 cafe 에서 ~~ 최고!! ㅠㅠ",
    "가격은 10,000원... 10, 5, 0,",
] * 60
LINES = """영화가 정말 재미있다 ㅋㅋㅋㅋ.....
한국어로 10, 20, 1,000원 그리고 100,
가격은 0, 5,원 ``인용'' 카페
  앞뒤  공백　전각 café Ünï ㅋㅏ ㄱㅏㄴ ㈜한국 ´▽` ～～
쀍뷁 없는 글자 쀍쀍. ❤️ 😀
.......... !!!!!!!!! ,,,,,,""".split("\n")


def train(**settings) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=120,
        hard_vocab_limit=False,
        split_by_number=False,
        user_defined_symbols=["0,"],  # a number with its comma, which KoBertTokenizer takes apart again
        minloglevel=2,
        **{**KOBERT, **settings},
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """KoBERT's files; vocab.txt has another order than the model, and not all of its pieces."""
    folder = tmp_path_factory.mktemp("kobert")
    (folder / "tokenizer_78b3253a26.model").write_bytes(train())
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer_78b3253a26.model"))
    pieces = [model.id_to_piece(row) for row in range(5, len(model)) if model.id_to_piece(row) != "▁영화"]
    rows = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *reversed(pieces)]
    (folder / "vocab.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@functools.cache
def files(folder):
    rows = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer_78b3253a26.model"))
    return model, {row: index for index, row in enumerate(rows)}


def twin(folder, text):
    """The ids that KoBertTokenizer gives."""
    model, rows = files(folder)
    text = " ".join(text.split()).replace("``", '"').replace("''", '"')
    pieces = []
    for piece in model.encode("".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)), out_type=str):
        if piece[-1] == "," and piece[-2:-1].isdigit():
            number = model.encode(piece[:-1].lstrip("▁"), out_type=str)
            if piece[0] != "▁":
                number = [number[0].lstrip("▁")] * (number[0] != "▁") + number[1:]
            pieces += [*number, ","]
        else:
            pieces.append(piece)
    return [rows.get(piece, 0) for piece in pieces]


@pytest.fixture(scope="module")
def tokenizer(folder):
    vocab_file = transformers_folder.find_vocabulary(str(folder))
    return FullTokenizer(vocab_file, **transformers_folder.tokenizer_settings(str(folder), vocab_file))


def test_a_folder_of_kobert_is_known_by_its_files(folder, tokenizer):
    assert tokenizer.vocab_file == str(folder / "vocab.txt") and tokenizer.tokenizer_type == "kobert"
    assert (tokenizer.unk_id, tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 1, 2, 3, 4)
    assert not tokenizer.splitter.do_lower_case and tokenizer.splitter.strip_accents
    assert tokenizer.files == {str(folder / "vocab.txt"), str(folder / "tokenizer_78b3253a26.model")}
    assert tokenizer.provenance()["tokenizer_type"] == "kobert" and "sentencepiece" in tokenizer.provenance()["analyzer_version"]


@pytest.mark.parametrize("line", LINES)
def test_ids_are_those_of_kobert(folder, tokenizer, line):
    assert tokenizer.encode(line) == twin(folder, line)
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(line)) == tokenizer.encode(line)


def test_without_accents_quotes_or_numbers_ids_are_sentencepieces_own_looked_up_in_vocab_txt(folder, tokenizer):
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer_78b3253a26.model"))
    for line in CORPUS[:1] + LINES[:1] + LINES[-1:]:
        assert tokenizer.encode(line) == [tokenizer.vocab.get(piece, 0) for piece in model.encode(line, out_type=str)]


def test_a_piece_that_vocab_txt_lacks_is_unknown(tokenizer):
    assert tokenizer.tokenize("영화 최고") == ["[UNK]", *tokenizer.tokenize("최고")]


def test_a_comma_after_a_number_stands_alone(tokenizer):
    assert tokenizer.tokenize("0, 10,")[-1] == "," and not any(piece.endswith("0,") for piece in tokenizer.tokenize("0, 10, 100,"))


def test_special_tokens_and_lone_surrogates_in_the_text(tokenizer):
    assert not {1, 2, 3, 4} & set(tokenizer.encode("[MASK] [CLS] [PAD] [SEP]"))
    assert tokenizer.encode("영화\ud800가") == tokenizer.encode("영화가") and tokenizer.encode(" \u200b\x01") == []


def test_offsets_lie_in_their_word_and_give_the_pieces_of_the_words(tokenizer):
    text = "  영화가 정말 café ㈜한국, 쀍 \u200b ❤️"
    pieces = tokenizer.tokenize_with_offsets(text)
    words = [word for word in text.split() if tokenizer.tokenize(word)]
    assert [piece.text for piece in pieces] == [piece for word in words for piece in tokenizer.tokenize(word)]
    starts = [text.index(word) for word in words]
    for piece in pieces:
        start = max(start for start in starts if start <= piece.start)
        assert start <= piece.start <= piece.end <= start + len(words[starts.index(start)])
    assert [piece.start for piece in pieces] == sorted(piece.start for piece in pieces)


def test_a_model_that_does_not_compose_hangul_gets_it_whole(tmp_path):
    (tmp_path / "spiece.model").write_bytes(train(normalization_rule_name="identity"))
    tokenizer = FullTokenizer(str(tmp_path / "spiece.model"), tokenizer_type="kobert", strip_accents=True)
    assert tokenizer.unk_id not in tokenizer.encode("영화가 정말 재미있다")


def test_lower_case_and_accents_as_the_folder_says(folder, tmp_path):
    for name in ("vocab.txt", "tokenizer_78b3253a26.model"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "keep_accents": True}))
    vocab_file = transformers_folder.find_vocabulary(str(tmp_path))
    tokenizer = FullTokenizer(vocab_file, **transformers_folder.tokenizer_settings(str(tmp_path), vocab_file))
    assert tokenizer.encode("CAFE") == tokenizer.encode("cafe") != tokenizer.encode("café")


def test_a_model_alone_brings_its_own_ids(folder, tmp_path):
    (tmp_path / "spiece.model").write_bytes((folder / "tokenizer_78b3253a26.model").read_bytes())
    vocab_file = transformers_folder.find_vocabulary(str(tmp_path))
    tokenizer = FullTokenizer(vocab_file, **transformers_folder.tokenizer_settings(str(tmp_path), vocab_file))
    model = sentencepiece.SentencePieceProcessor(model_file=vocab_file)
    assert tokenizer.encode(CORPUS[0]) == model.encode(CORPUS[0], out_type=int)


def test_kobert_without_its_vocab_txt_is_refused(folder, tmp_path):
    (tmp_path / "tokenizer_78b3253a26.model").write_bytes((folder / "tokenizer_78b3253a26.model").read_bytes())
    with pytest.raises(UserError, match="needs the vocab.txt.*--init_checkpoint"):
        transformers_folder.find_vocabulary(str(tmp_path))


def test_two_models_or_a_damaged_one(folder, tmp_path):
    for name in ("vocab.txt", "tokenizer_78b3253a26.model"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(UserError, match="2 lie beside"):
        FullTokenizer(str(tmp_path / "vocab.txt"), tokenizer_type="kobert")
    with pytest.raises(DataError, match="not a sentencepiece model"):
        FullTokenizer(str(tmp_path / "spiece.model"), tokenizer_type="kobert")


@pytest.mark.slow
def test_ids_of_every_line_of_a_task_are_those_of_kobert(tmp_path, shared_data):
    rows = (shared_data / "nsmc" / "ratings_test.txt").read_text(encoding="utf-8").split("\n")[1:]
    texts = [row.split("\t")[1] for row in rows if row]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts[:10000]), model_writer=model, vocab_size=8000, split_by_number=False, minloglevel=2, **KOBERT
    )
    (tmp_path / "tokenizer_78b3253a26.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    (tmp_path / "vocab.txt").write_text("\n".join(processor.id_to_piece(row) for row in range(len(processor))), encoding="utf-8")
    tokenizer = FullTokenizer(str(tmp_path / "vocab.txt"), tokenizer_type="kobert", strip_accents=True)
    assert len(texts) == 50000 and [text for text in texts if tokenizer.encode(text) != twin(tmp_path, text)] == []
