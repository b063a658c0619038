import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import words
from model.words import EOJEOL, WordSplitter

HANGUL = st.text(alphabet=st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), max_size=12)
# Letters, jamo, marks and the like that interact under normalisation.
TANGLED = st.text(
    alphabet="가각한ㅋㅏ\u1100\u1112\u1161\u11a8\u11ab\u0301\u0327\u0308aéİΣß\u200b\x00\ud800 .漢\uf900\u302e\u3099か\u09c7\u09be😀",
    max_size=15,
)


def _clean(text):
    """What normalize() promises, said without offsets."""
    kept = [char for char in text if not words._is_dropped(char)]
    return "".join(" " if words._is_space(char) else char for char in kept)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("한국어", "한국어"),
        (unicodedata.normalize("NFD", "한국어"), "한국어"),
        ("\u1112\u1161\u11ab", "한"),
        ("가\u200b나\ufeff다", "가나다"),
        ("가\x00나\x1c다\u0085라\ud800", "가나다라"),
        ("가\ufffd나", "가나"),
        ("e\u0301", "é"),
        ("ㅋㅋㅋ", "ㅋㅋㅋ"),
        ("\uf900", "\u8c48"),  # a compatibility ideograph is another one in NFC
        ("가\u2028나\u3000다\t라", "가 나 다 라"),
        ("", ""),
        ("\u200d", ""),
    ],
)
def test_normalize(text, expected):
    assert WordSplitter().normalize(text).text == expected


def test_lower_casing_and_accents_leave_hangul_whole():
    splitter = WordSplitter(do_lower_case=True, strip_accents=True)
    for form in ("NFC", "NFD"):
        assert splitter.normalize(unicodedata.normalize(form, "한국어 ÉCOLE ㅋㅋ 뷁")).text == "한국어 ecole ㅋㅋ 뷁"


def test_accents_stay_unless_asked():
    assert WordSplitter(do_lower_case=True).normalize("École").text == "école"
    assert WordSplitter(strip_accents=True).normalize("École").text == "Ecole"


@given(HANGUL, st.sampled_from(["NFC", "NFD"]), st.booleans(), st.booleans())
def test_hangul_is_never_taken_apart(text, form, lower, strip):
    assert WordSplitter(lower, strip).normalize(unicodedata.normalize(form, text)).text == text


@given(TANGLED | st.text(max_size=20))
@settings(max_examples=500)
def test_normalize_is_nfc_of_the_cleaned_text(text):
    normalized = WordSplitter().normalize(text)
    assert normalized.text == unicodedata.normalize("NFC", _clean(text))


@given(TANGLED | st.text(max_size=20), st.booleans(), st.booleans())
@settings(max_examples=500)
def test_spans_are_in_order_and_cover_every_character_kept(text, lower, strip):
    normalized = WordSplitter(lower, strip).normalize(text)
    spans = [normalized.span(index, index + 1) for index in range(len(normalized.text))]
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert spans == sorted(spans) and [end for _, end in spans] == sorted(end for _, end in spans)
    if not strip:
        kept = {index for index, char in enumerate(text) if not words._is_dropped(char)}
        assert kept <= {index for start, end in spans for index in range(start, end)}


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("\u1112\u1161\u11ab국", [(0, 3), (3, 4)]),
        ("가\u200b나", [(0, 1), (2, 3)]),
        ("\u200b\u1100\u200b\u1161", [(1, 4)]),
    ],
)
def test_spans_count_characters_of_the_original(text, spans):
    normalized = WordSplitter().normalize(text)
    assert [normalized.span(index, index + 1) for index in range(len(normalized.text))] == spans


def test_a_letter_that_grows_in_lower_case_keeps_its_place():
    normalized = WordSplitter(do_lower_case=True).normalize("İ가")
    assert normalized.text == "i\u0307가"
    assert [normalized.span(index, index + 1) for index in range(3)] == [(0, 1), (0, 1), (1, 2)]


def test_a_dropped_character_does_not_hide_that_another_grew():
    normalized = WordSplitter(do_lower_case=True).normalize("\u200bİ")
    assert [normalized.span(index, index + 1) for index in range(2)] == [(1, 2), (1, 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("심각합니다.", [(0, ("심각합니다",)), (5, (".",))]),
        ("(영화)", [(0, ("(",)), (1, ("영화",)), (3, (")",))]),
        ("#1~2", [(0, ("#",)), (1, ("1",)), (2, ("~",)), (3, ("2",))]),
        ("한漢字글", [(0, ("한",)), (1, ("漢",)), (2, ("字",)), (3, ("글",))]),
        ("ㅋㅋ♥😀", [(0, ("ㅋㅋ♥😀",))]),
        ("…", [(0, ("…",))]),
        ("", []),
    ],
)
def test_split_at_punctuation_and_cjk(text, expected):
    assert WordSplitter().split(text) == expected


def test_marked_words():
    assert WordSplitter(analyzer="mecab").marked_words("심각합니다.") == ["심각", "##합니다", "."]


def test_eojeols_end_at_spaces_and_line_separators_only():
    assert EOJEOL.findall("가 나\u00a0다\u3000라\u2028마\t바\n사\x0b아\x85자\x1c차") == [
        "가",
        "나",
        "다",
        "라",
        "마",
        "바",
        "사\x0b아\x85자\x1c차",
    ]


@given(st.text(max_size=30) | TANGLED, st.booleans(), st.booleans())
def test_eojeols_can_be_normalised_alone(text, lower, strip):
    splitter = WordSplitter(lower, strip)
    alone = [splitter.normalize(eojeol).text for eojeol in EOJEOL.findall(text)]
    assert [part for part in alone if part] == splitter.normalize(text).text.split()
