import random
from collections import Counter

import pytest

from model.command import UserError
from pretrain import piece_trainers
from pretrain.piece_trainers import (
    choose_symbols,
    most_frequent_words,
    spell,
    train_sentencepiece,
    train_sentencepiece_words,
    train_wordpiece,
)

WORDS = Counter({"가나": 5, "##나": 3, "나": 1, ".": 4, "漢": 2, "가나다": 1})


def test_spell():
    assert spell("심각") == ["심", "##각"]
    assert spell("##합니다") == ["##합", "##니", "##다"]
    assert spell(".") == ["."]


def test_symbols_by_hand():
    # ##나 5+3+1 = 9, 가 5+1 = 6, . 4, 漢 2, ##다 1, 나 1; ##가 and 다 never occur; . and 漢 have no ## form.
    assert choose_symbols(WORDS, 1, 100, 100) == ["##나", "가", ".", "漢", "##다", "나", "##가", "다"]


def test_rare_characters_are_left_out():
    # Characters, whatever their form: 나 10, 가 6, . 4, 漢 2, 다 1.
    assert choose_symbols(WORDS, 3, 100, 100) == ["##나", "가", ".", "나", "##가"]
    assert choose_symbols(WORDS, 1, 2, 100) == ["##나", "가", "나", "##가"]
    assert choose_symbols(WORDS, 1, 0, 100) == choose_symbols(WORDS, 1, -3, 100) == []


def test_a_small_vocabulary_keeps_the_most_frequent_symbols():
    words = Counter({"가": 9990, "나": 6, "다": 3, "라": 1})
    assert choose_symbols(words, 1, 100, 3) == ["가", "나", "다"]


def test_a_small_vocabulary_still_spells_all_but_one_in_2000_characters():
    words = Counter({"가": 9990, "나": 6, "다": 3, "라": 1})  # 가 alone spells 99.90 %, with 나 it is 99.96 %
    assert choose_symbols(words, 1, 100, 1) == ["가", "나"]


def test_most_frequent_words_by_hand():
    words = Counter({"가나": 5, "##나다": 5, "다가": 7, "가": 9, "나나": 2})
    symbols = ["가", "##나"]
    assert most_frequent_words(words, symbols, 10, 3) == ["가", "##나", "다가", "##나다", "가나"]
    assert most_frequent_words(words, symbols, 3, 3) == ["가", "##나", "다가"]


def test_wordpiece_merges_by_hand():
    # 가+##나 is seen 8 times, then ##다 behind it 5 times; ##마+##바 4 times; 사+##아 only twice.
    words = Counter({"가나": 3, "가나다": 5, "##마바": 4, "사아": 2})
    symbols = choose_symbols(words, 1, 100, 100)
    assert train_wordpiece(words, symbols, 100, 3) == [*symbols, "가나", "가나다", "##마바"]
    assert train_wordpiece(words, symbols, len(symbols) + 1, 3) == [*symbols, "가나"]


def test_wordpiece_continuing_words_and_word_ends_share_pieces():
    # The morpheme ##합니다 and the end of 말합니다 give the same piece, which is there once.
    words = Counter({"##합니다": 9, "말합니다": 8})
    symbols = choose_symbols(words, 1, 100, 100)
    pieces = train_wordpiece(words, symbols, 100, 1)
    assert len(set(pieces)) == len(pieces)
    assert {"##합니다", "말합니다"} <= set(pieces)
    assert not any("\u2581" in piece for piece in pieces)


def test_wordpiece_leaves_words_with_unknown_characters_alone():
    words = Counter({"가나": 5, "가뷁": 5})
    assert train_wordpiece(words, ["가", "##나"], 100, 1) == ["가", "##나", "가나"]


def test_wordpiece_breaks_ties_the_same_way_every_time():
    chars = [chr(0xAC00 + 28 * index) for index in range(60)]
    words = Counter({first + second + third: 5 for first in chars[:20] for second in chars[20:40] for third in chars[40:]})
    symbols = choose_symbols(words, 1, 100, 1000)
    first = train_wordpiece(words, symbols, 700, 2)
    assert len(first) == 700
    assert all(train_wordpiece(Counter(dict(reversed(words.items()))), symbols, 700, 2) == first for _ in range(4))


RESERVED = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]"]
SENTENCES = ["한국어를 공부합니다", "영화가 재미 있다 ㅋㅋㅋ", "정말 한국 영화 재미없다 ㅠㅠ"] * 20 + ["뷁"]


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_sentencepiece_rows(model_type):
    size = {"unigram": 31, "bpe": 45}[model_type]
    model, rows = train_sentencepiece(SENTENCES, model_type, RESERVED, size, 3, 100)
    assert rows[:6] == RESERVED and len(rows) == size
    assert {"ㅋ", "ㅠ"} <= set("".join(rows)) and "뷁" not in rows  # seen once only
    assert train_sentencepiece(SENTENCES, model_type, RESERVED, size, 3, 100) == (model, rows)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_sentencepiece_gives_what_there_is(model_type):
    _, rows = train_sentencepiece(SENTENCES, model_type, RESERVED, 5000, 1, 100)
    assert 25 < len(rows) < 5000 and "뷁" in rows


def test_sentencepiece_that_cannot_hold_its_characters():
    with pytest.raises(UserError, match=r"cannot make a vocabulary of 10 entries.*smaller than required_chars.*--vocab_size"):
        train_sentencepiece(SENTENCES, "bpe", RESERVED, 10, 1, 100)


# ---- sentencepiece's trainers over words


def test_sentencepiece_words_by_hand():
    # 니+다 is seen 29 times, then 합 before it 24 times; 심+각 9 times, and only at the beginning of a word.
    words = Counter({"심각": 9, "##합니다": 20, "말합니다": 4, "##니다": 5})
    symbols = choose_symbols(words, 1, 100, 100)
    assert train_sentencepiece_words(words, symbols, len(symbols) + 3, 1, "bpe") == [*symbols, "##니다", "##합니다", "심각"]
    assert train_sentencepiece_words(words, symbols, len(symbols) + 1, 1, "bpe") == [*symbols, "##니다"]
    assert train_sentencepiece_words(words, symbols, 5, 1, "bpe") == symbols[:5]


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_sentencepiece_words_tell_beginnings_from_continuations(model_type):
    words = Counter({"합니다": 9, "##합니다": 20, "영화": 12, "##재미": 7, ".": 30, "漢": 5})
    symbols = choose_symbols(words, 1, 100, 100)
    pieces = train_sentencepiece_words(words, symbols, len(symbols) + 5, 1, model_type)
    assert pieces[: len(symbols)] == symbols and len(set(pieces)) == len(pieces)
    assert {"합니다", "##합니다", "영화", "##재미"} <= set(pieces)
    assert not {"재미", "##", ""} & set(pieces) and not any("\u2581" in piece for piece in pieces)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_sentencepiece_words_leave_words_with_unknown_characters_alone(model_type):
    words = Counter({"가나": 5, "가뷁": 5})
    assert train_sentencepiece_words(words, ["가", "##나"], 3, 1, model_type) == ["가", "##나", "가나"]
    assert train_sentencepiece_words(words, ["다"], 3, 1, model_type) == ["다"]


@pytest.fixture(scope="module")
def many_words():
    rng = random.Random(3)
    chars = [chr(0xAC00 + 28 * index) for index in range(40)]
    drawn = ["".join(rng.choices(chars, range(40, 0, -1), k=rng.randint(1, 4))) for _ in range(4000)]
    return Counter(rng.choice(["", "##"]) + word for word in drawn)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_counts_are_worth_as_much_as_text(many_words, model_type, monkeypatch):
    symbols = choose_symbols(many_words, 1, 100, 1000)
    from_counts = train_sentencepiece_words(many_words, symbols, 300, 2, model_type)
    assert len(from_counts) == 300
    run = piece_trainers._run_sentencepiece

    def run_on_text(sentences, input_format, **options):
        assert input_format == "tsv"
        counted = [sentence.split("\t") for sentence in sentences]
        return run([word for word, count in counted for _ in range(int(count))], **options)

    monkeypatch.setattr(piece_trainers, "_run_sentencepiece", run_on_text)
    assert train_sentencepiece_words(many_words, symbols, 300, 2, model_type) == from_counts


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_sentencepiece_words_come_out_the_same_in_any_order(many_words, model_type):
    symbols = choose_symbols(many_words, 1, 100, 1000)
    pieces = train_sentencepiece_words(many_words, symbols, 300, 2, model_type)
    assert train_sentencepiece_words(Counter(dict(reversed(many_words.items()))), symbols, 300, 2, model_type) == pieces


def test_unigram_finds_words_that_no_other_word_begins_with():
    # Left alone, the library takes none of them into account: nothing that varies follows them.
    words = Counter({"영화": 12, "재미": 7, "##하다": 5, "둘째": 2})
    symbols = choose_symbols(words, 1, 100, 100)
    assert train_sentencepiece_words(words, symbols, 100, 3, "unigram") == [*symbols, "영화", "재미", "##하다"]
