import json
import re
from html.parser import HTMLParser

import pytest

from pretrain.cleaning import Changes, Cleaner, CleaningConfig
from pretrain.corpus_report import BOUNDS, SCRIPTS, TextStatistics, find_warnings, mask_example, median, script, write_report


def statistics_of(*documents: list[str]) -> TextStatistics:
    statistics = TextStatistics()
    for document in documents:
        statistics.add(document)
    return statistics


def test_statistics_count_lengths_and_characters():
    value = statistics_of(["안녕 abc 12", "ㅋㅋ!"], ["★韓カ♥★"]).to_json()
    assert value["bounds"][:12] == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48] and value["bounds"] == sorted(set(BOUNDS))
    assert value["sentence_characters"] == [0, 0, 0, 1, 1, 0, 1]  # 3, 5 (in the bin of 4 and 5) and 9 characters
    assert value["document_sentences"] == [0, 1, 1]
    assert value["document_characters"] == [0, 0, 0, 0, 1, 0, 0, 1]
    assert list(value["scripts"]) == list(SCRIPTS)
    counts = {"hangul": 2, "jamo": 2, "latin": 3, "digits": 2, "han": 1, "kana": 1, "punctuation": 1, "symbols": 3, "space": 2, "other": 0}
    assert value["scripts"] == counts
    assert list(value["unusual"].items()) == [("U+2605", 2), ("U+2665", 1), ("U+30AB", 1), ("U+97D3", 1)]


def test_statistics_of_parts_add_up_to_those_of_the_whole():
    documents = [["가" * length, "♥b"] for length in (1, 5, 100, 3000)] + [["★"], []]
    total = TextStatistics()
    for start in range(0, len(documents), 2):
        total.merge(TextStatistics.from_json(json.loads(json.dumps(statistics_of(*documents[start : start + 2]).to_json()))))
    assert total.to_json() == statistics_of(*documents).to_json()
    total.add(["다"])
    assert total.to_json() == statistics_of(*documents, ["다"]).to_json()


@pytest.mark.parametrize(
    "chars, name",
    [
        ("가힣", "hangul"),
        ("ㄱㅎㅏㅣ\u1100\u11a8", "jamo"),
        ("aZéÅＡ", "latin"),
        ("09½Ⅳ", "digits"),
        ("韓々\uf9dd𠀀", "han"),
        ("あカー", "kana"),
        (".!…「·", "punctuation"),
        ("★♥+😀~", "symbols"),
        (" \u3000\t", "space"),
        ("яαم\u0301", "other"),
    ],
)
def test_scripts(chars, name):
    assert {script(char) for char in chars} == {name}


@pytest.mark.parametrize(
    "before, after, shown",
    [
        ("나쁜 말이네ㅋㅋㅋㅋ!!! 정말", "나쁜 말이네ㅋㅋ!! 정말", ("○○ ○○○ㅋㅋㅋㅋ!!! ○○", "○○ ○○○ㅋㅋ!! ○○")),
        ("ㅋㅋ 욕설.. ㅗㅗㅗㅗ 18놈", "ㅋㅋ 욕설.. ㅗㅗ 18놈", ("○○ ○○.. ○○○○ ○○○", "○○ ○○.. ○○ ○○○")),
        ("&lt;이름&gt; bad😀", "<이름> bad😀", ("&lt;○○&gt; ○○○○", "<○○> ○○○○")),
        ("이름⟨U+200B⟩아", "이름아", ("○○⟨U+200B⟩○", "○○○")),
        ("봐 http://name.kr/a1 봐", "봐 봐", ("○ http://○○○○.○○/○○ ○", "○ ○")),
        ("이름 010-1234", "이름 000-0000", ("○○ 0○0-○○○○", "○○ 000-0000")),
        ("영어 only", "", ("○○ ○○○○", "")),
    ],
)
def test_masked_examples_show_what_the_rule_did_and_nothing_else(before, after, shown):
    assert mask_example(before, after) == shown


def corpus(documents: list[str], moderated: bool = True, **changed) -> dict:
    """A corpus as the pipeline counts it, cleaned for real."""
    cleaner, changes = Cleaner(CleaningConfig()), Changes()
    kept = [[text] for text in (cleaner.clean(document, changes) for document in documents) if text]
    value = {
        "reader": "comments",
        "group": "dialog",
        "moderated": moderated,
        "files": [{"file": "댓글.txt", "bytes": 12345}],
        "read": {"documents": len(documents), "texts": len(documents), "bytes": 100_000, "replaced_invalid_utf8": 0},
        "duplicates": {"exact": {"documents": 0, "bytes": 0}, "near": {"documents": 0, "bytes": 0}},
        "excluded": {},
        "mixture": {"weight": 7, "dropped_documents": 0},
        "kept": {"documents": len(kept), "sentences": len(kept), "bytes": 90_000},
        "statistics": statistics_of(*kept).to_json(),
    }
    return value | changes.to_json() | changed


def report_of(**corpora: dict) -> dict:
    outputs = [{"file": "corpus-00000.txt", "bytes": 90_000, "documents": 3, "sentences": 3, "sha256": "ab" * 32}]
    return {"format_version": 1, "settings": {"hanja": "keep", "weird": "<script>"}, "corpora": corpora, "outputs": outputs}


LONG = "이 영화는 정말로 오래 기억에 남을 만한 작품이라고 생각합니다. " * 5
DOCUMENTS = [LONG + "최고예요ㅋㅋㅋㅋ", LONG + "<b>볼드&amp;</b>!!!", LONG + "전화 010-1234-5678", "nothing but English", LONG + "★♥"]


class Page(HTMLParser):
    """Fails at tags that do not close in order; gathers the pictures' words and whatever the page would fetch."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.alternatives: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "img":
            self.alternatives.append(values["alt"])
        self.sources += [values[name] for name in ("src", "href") if name in values]
        assert tag not in ("script", "link", "iframe")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_report_is_one_page_that_fetches_nothing_and_escapes_everything(tmp_path):
    write_report(str(tmp_path), report_of(**{"챗봇 <b>": corpus(DOCUMENTS), "reviews": corpus(DOCUMENTS, group="written")}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources) and len(page.sources) == 12
    assert "http" not in html and "<script" not in html and "url(" not in html
    for words in ("챗봇 <b>", "<script>", "repeats", "볼드&amp;", "corpus-00000.txt", "★ 1"):
        assert words in page.text
    assert "<del>ㅋㅋ</del>" in html and "0#0-####-####" in page.text and "1234" not in page.text
    assert any("characters by script: hangul" in words for words in page.alternatives)
    assert (tmp_path / "report.html").stat().st_size < 1_000_000


def test_report_json_keeps_the_counts(tmp_path):
    given = report_of(chatbot=corpus(DOCUMENTS))
    before = json.dumps(given, ensure_ascii=False)
    write_report(str(tmp_path), given)
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert json.dumps(given, ensure_ascii=False) == before  # what was handed over is not touched
    assert {key: written[key] for key in given} == json.loads(before) and written["warnings"] == []


def test_the_page_is_the_same_from_run_to_run(tmp_path):
    pages = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_report(str(tmp_path / name), report_of(chatbot=corpus(DOCUMENTS)))
        pages.append((tmp_path / name / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_no_word_of_an_unmoderated_corpus_is_written(tmp_path):
    words = ["최고예요", "영화", "nothing", "볼드", "English", "기억"]
    write_report(str(tmp_path), report_of(comments=corpus(DOCUMENTS, moderated=False)))
    for name in ("report.json", "report.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        text = text if name.endswith("json") else Page(text).text
        assert "○○○○ㅋㅋㅋㅋ" in text and not [word for word in words if word in text]
    examples = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["corpora"]["comments"]["examples"]
    assert not re.search(
        "[가-힣A-Zac-z]", re.sub("&amp;|…", "", "".join(side for pairs in examples.values() for pair in pairs for side in pair))
    )


def test_only_the_commonest_unusual_characters_are_listed(tmp_path):
    rare = "".join(map(chr, range(0x2600, 0x2640)))
    write_report(str(tmp_path), report_of(chatbot=corpus([LONG + rare + "♥♥"])))
    unusual = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["corpora"]["chatbot"]["statistics"]["unusual"]
    assert len(unusual) == 30 and next(iter(unusual)) == "U+2665"


@pytest.mark.parametrize(
    "value, warning",
    [
        (corpus(DOCUMENTS), None),
        (corpus(DOCUMENTS, kept={"documents": 1, "sentences": 1, "bytes": 40_000}), "only 40% of its bytes are left; is"),
        (
            corpus(DOCUMENTS, kept={"documents": 1, "sentences": 1, "bytes": 1}, mixture={"weight": 1, "dropped_documents": 1234}),
            r"only 0% of its bytes are left \(1,234 documents were left out for the mixture\)",
        ),
        (corpus(DOCUMENTS, kept={"documents": 0, "sentences": 0, "bytes": 0}), "nothing of it is left"),
        (corpus(DOCUMENTS, duplicates={"exact": {"documents": 1, "bytes": 9}}), "20.0% of its documents were duplicates"),
        (corpus(DOCUMENTS, excluded={"ratings_test.txt": {"exact": 200, "loose": 41}}), "241 of its texts are also in files of --exclude"),
        (corpus(["짧은 말"] * 5), "half of its documents have fewer than 96 characters"),
        (corpus([LONG + "long English words " * 9]), "of its letters are not Hangul"),
        (
            corpus(DOCUMENTS, read={"documents": 5, "texts": 5, "bytes": 100_000, "replaced_invalid_utf8": 3}),
            "3 byte sequences were not UTF-8",
        ),
    ],
)
def test_warnings(value, warning):
    found = find_warnings(report_of(name=value))
    assert len(found) == (warning is not None)
    if warning:
        assert re.match(f"name: .*{warning}", found[0])


def test_median():
    assert median([]) == 0 and median([0, 0, 0, 5]) == 3 and median([1, 1, 0, 0, 5]) == 4


def test_report_of_what_has_nothing_left_to_draw(tmp_path):
    write_report(str(tmp_path), report_of(empty=corpus([]) | {"duplicates": {}, "mixture": {}}))
    assert "nothing of it is left" in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
