import gzip
import json
import pathlib
import pickle
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import hparams
from model.command import UserError
from pretrain import cleaning
from pretrain.cleaning import RULES, Changes, Cleaner, CleaningConfig


def clean(text: str, **options) -> str:
    return Cleaner(CleaningConfig(**options)).clean(text, Changes())


@pytest.mark.parametrize(
    "text, expected",
    [
        ("&lt;영화&gt; 최고 &amp; 감동", "<영화> 최고 & 감동"),
        ("&amp;lt;b&amp;gt; &amp;amp;amp; 끝", "<b> & 끝"),
        ("&#54620;&#xAE00; &#39;말&#39;", "한글 '말'"),
        ("&lt닥터노&gt보다 &gt_&lt", "<닥터노>보다 >_<"),  # as in NSMC, where the ; got lost
        ("http://a.kr/?a=1&lt=2&copy=3", "http://a.kr/?a=1&lt=2&copy=3"),
        ("R&D; &notit; AT&T", "R&D; &notit; AT&T"),
    ],
)
def test_html_entities(text, expected):
    assert cleaning.unescape_html(text) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("가\u200b나\ufeff다\u00ad라\u2060마", "가나다라마"),
        ("\u202e거꾸로\u202c \u200f왼쪽", "거꾸로 왼쪽"),
        ("제어\x00\x07\x7f\x9f 사용자\ue000\U000f1234", "제어 사용자"),
        ("깨진 \ufffd글자 \ud83d반쪽", "깨진 글자 반쪽"),
        ("❤\ufe0f 👨\u200d👩\u200d👧 👍🏽", "❤ 👨👩👧 👍🏽"),  # a joined family becomes three people, a skin tone stays
        ("탭\t줄\n끝\x85", "탭\t줄\n끝\x85"),  # spaces are another rule's
    ],
)
def test_invisible_characters(text, expected):
    assert cleaning.remove_invisible(text) == expected


def test_nfc_composes_jamo_and_unifies_compatibility_hanja():
    assert cleaning.compose("\u1112\u1161\u11ab\u1100\u1173\u11af cafe\u0301 \uf9dd\u8655") == "한글 café \u5229\u8655"
    assert clean("\u1112\u200b\u1161\u11ab글") == "한글"  # what is invisible goes first, and no longer keeps the jamo apart


def test_spaces_of_every_kind():
    assert cleaning.squeeze_spaces("\u3000 안녕\u00a0\u2003하세요\t\r\n여러분\u3164\u2800 ") == "안녕 하세요 여러분"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("여기 http://blog.naver.com/a_b/2201?x=1#c 보세요", "여기 보세요"),
        ("여기(https://a.kr/b), 참고: www.naver.com.", "여기 , 참고: ."),
        ("http://a.com에서 youtu.be/abc-1 보고", "에서 보고"),
        ("위키 https://ko.wikipedia.org/wiki/A_(b) 참고", "위키 참고"),
        ("좋다.http://a.kr/b 끝", "좋다. 끝"),
        ("문의는 hong.gil-dong@mail.co.kr로, 합니다.a@b.com", "문의는 로, 합니다."),
        ("네이버는 naver.com 3/4 and/or @철수 1.5/2", "네이버는 naver.com 3/4 and/or @철수 1.5/2"),
    ],
)
def test_urls_and_mail(text, expected):
    assert cleaning.drop_urls(text) == expected


@pytest.mark.parametrize(
    "text",
    "010-1234-5678|01012345678|010 1234 5678|010.1234.5678|010 - 1234 - 5678|011-234-5678|02-123-4567|02)1234-5678|(031)123-4567|0212345678"
    "|070-1234-5678|0505-123-4567|1588-1234|1666-9876|1577-1577|+82-10-1234-5678|+82 10 1234 5678|+82 (0)2 123 4567|8210-1234-5678"
    "|900101-1234567|9001011234567|051231-4123456|851120-5******|010ㅡ1234ㅡ5678".split("|"),
)
def test_phone_and_resident_registration_numbers_are_masked_and_keep_their_shape(text):
    masked = "".join("0" if char.isdigit() else char for char in text)
    assert cleaning.mask_personal_data(f"전화{text}입니다") == f"전화{masked}입니다"
    assert cleaning.mask_personal_data(f"({text}), 끝") == f"({masked}), 끝"


@pytest.mark.parametrize(
    "text",
    "2010-12-25|2010.12.25 13:45|1592-1598년|1544-1611|1800-2100|1600-2500|12,345,678원|10000원|1,588,1234|3-2-1|2024-1234|123456-1234567"
    "|901301-1234567|900132-1234567|900101-9234567|ISBN 978-89-01-12345-6|9788901123456|1234-5678-1234-5678|0.0101234567|3.14159265358979"
    "|평점 9.5/10|2010 1234 5678|1234567890123456|30분 1시간 2010년 1234명".split("|"),
)
def test_prices_years_dates_and_scores_stay(text):
    assert cleaning.mask_personal_data(text) == text


def test_hanja_is_kept_dropped_or_dropped_where_it_only_repeats_the_reading():
    text = "한국(韓國)과 중국 [中國,中華], 美 대통령 大選(대선) (金)요일 3月"
    assert clean(text) == text
    assert clean(text, hanja="glosses") == "한국과 중국, 美 대통령 大選(대선) (金)요일 3月"
    assert clean(text, hanja="drop") == "한국과 중국, 대통령 대선 ( )요일 3"
    for han in ("drop", "glosses"):  # a range with U+F900 written in NFC would begin at U+8C48 and hold all of Hangul
        assert clean("영화(재미있음)와 뷁힣[가나]", hanja=han) == "영화(재미있음)와 뷁힣[가나]"


def test_repeats_leave_numbers_letters_and_syllables():
    assert cleaning.shorten_repeats("와ㅋㅋㅋㅋ!!!! ....♥♥♥ ㅠㅠ") == "와ㅋㅋ!! ..♥♥ ㅠㅠ"
    assert cleaning.shorten_repeats("10000원 www zzzZ 하하하하") == "10000원 www zzzZ 하하하하"


def test_short_and_foreign_texts_are_dropped():
    assert clean("네") == "네" and clean("네", min_chars=2) == "" and clean("네네", min_chars=2) == "네네"
    assert clean("ㅋㅋ") == "ㅋㅋ" and clean("^^ 123!") == "" and clean("Thank you") == "" and clean("好好") == ""
    assert clean("^^ 123!", min_hangul_share=0.0) == "^^ 123!"
    assert clean("It's OK 굿", min_hangul_share=0.17) == "" and clean("It's OK 굿", min_hangul_share=1 / 6) == "It's OK 굿"


def test_the_order_of_rules_lets_later_ones_see_what_a_reader_sees():
    assert clean("전화 010&#45;1234\u200b-5678 주세요ㅋㅋㅋㅋ") == "전화 000-0000-0000 주세요ㅋㅋ"
    assert clean("&l\u200bt;가&gt;") == "<가>"  # only the second round can see this entity
    assert clean("하나\u00a0&nbsp; &nbsp;둘") == "하나 둘"
    assert clean("가!(韓)!(國)!", hanja="drop") == "가!( )!( )!"


def test_every_rule_can_be_skipped_by_its_name():
    text = "&lt; 가\u200b \u1100\u1161  http://a.kr/b 010-1234-5678 한국(韓國) !!!!"
    everything = {rule.name for rule in RULES}
    left = clean(text, skip_rules=",".join(everything), hanja="drop", min_chars=1000, min_hangul_share=1.0)
    assert left == text
    options = {"hanja": "drop", "min_chars": 1000, "min_hangul_share": 1.0}
    for rule in RULES:
        kept = clean(text, skip_rules=", ".join(everything - {rule.name}), **options)
        assert kept != text, rule.name
    assert clean("가\ud800\u200b", skip_rules="invisible") == "가\u200b"  # no file can hold half a character


def test_every_rule_is_documented_in_its_order():
    guide = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "preprocessing.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1] for line in guide.splitlines() if line.startswith("| `")]
    assert [name for name in dict.fromkeys(rows) if name in {rule.name for rule in RULES}] == [rule.name for rule in RULES]


def test_options_keep_what_rules_would_change():
    assert clean("전화 010-1234-5678", personal_data="keep") == "전화 010-1234-5678"
    assert clean("여기 http://a.kr/b", urls="keep") == "여기 http://a.kr/b"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"skip_rules": "nfc,repeat"}, "unknown cleaning rule 'repeat': known are html_entities, invisible, nfc.*--skip_rules"),
        ({"min_chars": 0}, "min_chars must be 1 or more, got 0 .--min_chars"),
        ({"min_hangul_share": 1.5}, "min_hangul_share must be from 0 to 1, got 1.5 .--min_hangul_share"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        Cleaner(CleaningConfig(**options))


def test_configuration_is_checked_like_the_others():
    with pytest.raises(UserError, match="hanja"):
        hparams.check(CleaningConfig, {"hanja": "gloss"})


CHARACTERS = st.one_of(
    st.sampled_from("가나다힣ㄱㅋㅏ\u1100\u1161\u11a8aZ09.,!?-_@/:()[]<>&;#=+ \t\n\u3000\u200b\ufe0f\ufeff\ud800\u3164韓國\uf9dd😀👨♥…"),
    st.characters(),
)
PIECES = st.sampled_from(
    "&amp; &amp;lt; lt; &#48; &#x200b; amp; &lt gt; http:// www. a.kr/b x@y.com 010-1234-5678 1588-1234 900101-1234567 한국(韓國) "
    "大選(대선) "
    "ㅋㅋㅋ ... 안녕하세요 OK".split()
)
TEXTS = st.lists(st.one_of(CHARACTERS, PIECES), max_size=25).map("".join)
CONFIGS = st.builds(
    CleaningConfig,
    skip_rules=st.lists(st.sampled_from([rule.name for rule in RULES]), max_size=4).map(",".join),
    urls=st.sampled_from(["drop", "keep"]),
    personal_data=st.sampled_from(["mask", "keep"]),
    hanja=st.sampled_from(["keep", "drop", "glosses"]),
    min_chars=st.sampled_from([1, 3]),
    min_hangul_share=st.sampled_from([0.0, 0.3]),
)


@settings(max_examples=600, deadline=None)
@given(TEXTS, CONFIGS)
def test_clean_text_stays_as_it_is(text, config):
    cleaner, changes, none = Cleaner(config), Changes(), Changes()
    cleaned = cleaner.clean(text, changes)
    assert cleaner.clean(cleaned, none) == cleaned
    assert none.to_json() == {"rules": {}, "examples": {}}
    cleaned.encode("utf-8")
    counts = changes.to_json()["rules"]
    assert sum(rule["characters"] for rule in counts.values()) == len(text) - len(cleaned)
    assert all(rule["texts"] == 1 for rule in counts.values()) and (changes.to_json()["rules"] != {}) == (cleaned != text)
    json.dumps(changes.to_json(), ensure_ascii=False).encode("utf-8")


def test_changes_count_texts_characters_and_what_was_dropped():
    changes = Changes()
    cleaner = Cleaner(CleaningConfig())
    for text in ("좋아요ㅋㅋㅋㅋ", "nothing Korean", "그대로", "", "와!!! 정말...."):
        cleaner.clean(text, changes)
    assert changes.to_json() == {
        "rules": {
            "repeats": {"texts": 2, "dropped": 0, "characters": 5},
            "min_hangul_share": {"texts": 1, "dropped": 1, "characters": 14},
        },
        "examples": {
            "repeats": [["좋아요ㅋㅋㅋㅋ", "좋아요ㅋㅋ"], ["와!!! 정말....", "와!! 정말.."]],
            "min_hangul_share": [["nothing Korean", ""]],
        },
    }


def test_changes_of_parts_add_up_to_those_of_the_whole():
    texts = [f"{word} {'!' * number} http://a.kr/{number}" for number, word in enumerate("가 나 다 only 마 바 사".split(), 2)]
    cleaner, whole, total = Cleaner(CleaningConfig()), Changes(), Changes()
    for start in range(0, len(texts), 2):
        part = Changes()
        for text in texts[start : start + 2]:
            cleaner.clean(text, whole)
            cleaner.clean(text, part)
        total.merge(Changes.from_json(json.loads(json.dumps(part.to_json()))))
    assert total.to_json() == whole.to_json()
    assert len(total.to_json()["examples"]["urls"]) == cleaning.EXAMPLES_PER_RULE


def test_examples_show_the_change_and_no_personal_data():
    changes = Changes()
    for text in ("가\u200b나 010-1234-5678", "메일은 hong@a.kr 번호는 010-1234-5678", "나" * 200 + "  " + "다" * 200):
        Cleaner(CleaningConfig()).clean(text, changes)
    examples = changes.to_json()["examples"]
    assert examples["invisible"] == [["가⟨U+200B⟩나 0#0-####-####", "가나 0#0-####-####"]]
    assert examples["urls"] == [["메일은 ###@a.kr 번호는 0#0-####-####", "메일은 번호는 0#0-####-####"]]
    assert examples["personal_data"][0] == ["가나 0#0-####-####", "가나 000-0000-0000"]
    assert examples["whitespace"] == [["…" + "나" * 39 + "  " + "다" * 119 + "…", "…" + "나" * 39 + " " + "다" * 120 + "…"]]


def test_a_cleaner_goes_into_other_processes_and_needs_no_tensorflow(run_python):
    cleaner = pickle.loads(pickle.dumps(Cleaner(CleaningConfig(hanja="drop", min_chars=2))))
    assert cleaner.clean("한국(韓國)ㅋㅋㅋ", Changes()) == "한국ㅋㅋ"
    code = (
        "import sys, pretrain.cleaning, pretrain.sentences, pretrain.corpus_report; print({'tensorflow', 'matplotlib'} & set(sys.modules))"
    )
    assert run_python(code) == "set()"


@pytest.fixture
def run_python():
    return lambda code: subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("text", ["&amp;" * 50_000, "a." * 100_000, "010-" * 100_000, "http://(" * 20_000, "韓(" * 100_000, "x@" * 100_000])
def test_time_grows_with_the_length_alone(text):
    start = time.process_time()
    Cleaner(CleaningConfig(hanja="drop")).clean(text, Changes())
    assert time.process_time() - start < 30  # a second at most; quadratic time would take hours


def test_clean_real_reviews_are_left_alone(shared_data):
    with gzip.open(shared_data / "corpus" / "nsmc_reviews.txt.gz", "rt", encoding="utf-8", newline="\n") as file:
        reviews = [next(file).rstrip("\n") for _ in range(20_000)]
    cleaner, first, second = Cleaner(CleaningConfig(hanja="drop")), Changes(), Changes()
    cleaned = [cleaner.clean(review, first) for review in reviews]
    assert [cleaner.clean(review, second) for review in cleaned] == cleaned and second.to_json()["rules"] == {}
    kept = [review for review, left in zip(reviews, cleaned, strict=True) if left]
    assert len(kept) > 0.98 * len(reviews)
    assert sum(map(len, cleaned)) > 0.97 * sum(map(len, kept))
