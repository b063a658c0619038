import importlib.util
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.command import UserError
from pretrain.sentences import KIWI_CHARACTERS, make_sentence_splitter

regex = make_sentence_splitter("regex")


@pytest.mark.parametrize(
    "sentences",
    [
        ["안녕하세요.", "반갑습니다!", "누구세요?", "글쎄…", "네。", "끝"],
        ["정말요?!", "대박!!!", "그게..", "음"],
        ['그는 "가자."', "나는 (끝났다.)", "「왔다!」", "또"],
        ["좋아요!", "ㅋㅋㅋ 또 봐요~"],
        ["2024. 5. 3. 발표한 3.5점짜리 영화다.", "No. 1 배우 J. Kim과 Mr. 박이 나온다.", "끝"],
        ["가. 목적은 이것이다.", "나. 방법은 저것이다.", "1. 서론이다.", "(2. 본론이다.)"],
        ["이제 집에 가.", "나는 자."],  # at the end of a sentence 가 is a verb
        ["U. S. 대통령이 왔다.", "E.T. 봤어?", "OK."],
        ['"갈까?" 하고 물었다.', '"가자." 라고 답했다.', '"그래!"', "고마워."],
    ],
)
def test_sentences_end_behind_punctuation_and_a_space(sentences):
    assert regex(" ".join(sentences)) == sentences


def test_no_end_without_a_space_but_always_at_a_new_line():
    assert regex("좋다.그런데 3.5점?정말") == ["좋다.그런데 3.5점?정말"]
    assert regex("3.\n둘째 줄\n\n 셋째") == ["3.", "둘째 줄", "셋째"] == make_sentence_splitter("none")("3.\n둘째 줄\n\n 셋째")
    assert make_sentence_splitter("none")("하나. 둘.") == ["하나. 둘."]


@pytest.mark.parametrize("kind", ["regex", "none", "kiwi"])
def test_blank_text_has_no_sentences(kind):
    if kind == "kiwi":
        pytest.importorskip("kiwipiepy")
    assert [make_sentence_splitter(kind)(text) for text in ("", " ", "\n \t\n")] == [[], [], []]


TEXTS = st.text(
    st.one_of(st.sampled_from("가나다 ab1. .. !?…。\"')」 \n\t\u3000😀ㅋ"), st.characters(exclude_categories=("Cs",))), max_size=60
)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_nothing_is_lost_but_spaces(text):
    for kind in ("regex", "none"):
        sentences = make_sentence_splitter(kind)(text)
        assert "".join("".join(sentences).split()) == "".join(text.split())
        assert all(sentence == sentence.strip() and "\n" not in sentence for sentence in sentences)


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_kiwi_loses_nothing_either(text):
    pytest.importorskip("kiwipiepy")
    sentences = make_sentence_splitter("kiwi")(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())


def test_kiwi_finds_endings_without_punctuation_and_is_deterministic():
    pytest.importorskip("kiwipiepy")
    kiwi = pickle.loads(pickle.dumps(make_sentence_splitter("kiwi")))
    text = "여러 문장으로 구성된 텍스트네 이걸 분리해줘"
    assert kiwi(text) == ["여러 문장으로 구성된 텍스트네", "이걸 분리해줘"] == kiwi(text)
    assert kiwi("😀 좋아요. 😀😀 정말요?") == ["😀 좋아요.", "😀😀 정말요?"]


def test_lines_too_long_for_kiwi_go_another_way():
    pytest.importorskip("kiwipiepy")
    sentence = "가나 " * (KIWI_CHARACTERS // 3 - 10) + "끝."
    assert make_sentence_splitter("kiwi")(f"{sentence} {sentence} 짧다. 정말") == [sentence, sentence, "짧다.", "정말"]
    assert make_sentence_splitter("kiwi")("ㅋ" * 100_000) == ["ㅋ" * 100_000]


def test_kiwi_that_is_not_installed_and_unknown_splitters(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "kiwipiepy" else find_spec(name))
    with pytest.raises(UserError, match=r"needs kiwipiepy: pip install '.\[sentences\]'"):
        make_sentence_splitter("kiwi")
    with pytest.raises(UserError, match="unknown sentence splitter 'kss': known are regex, kiwi, none"):
        make_sentence_splitter("kss")


def test_a_long_line_is_cut_in_time_that_grows_with_its_length():
    assert len(regex("좋아요. " * 200_000)) == 200_000
    assert regex('."' * 200_000 + " " * 200_000) == ['."' * 200_000]
