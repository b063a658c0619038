from collections import Counter

import pytest

from pretrain.contamination import Excluder, Match, loose


@pytest.fixture
def excluder(tmp_path):
    ratings = "id\tdocument\tlabel\n1\t정말 재미있는 영화!\t1\n2\t굿\t1\n3\t\t0\n4\t!!!\t0\n"
    (tmp_path / "ratings_test.txt").write_text(ratings, encoding="utf-8")
    (tmp_path / "sts.tsv").write_text("비가 내리고 있다.\t비가 오고 있다.\t4.2\n정말 재미있는 영화!\t\t0\n", encoding="utf-8")
    return Excluder([str(tmp_path / "ratings_test.txt"), str(tmp_path / "sts.tsv")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Good  영화!!", "good영화"), ("ＡＢＣ①", "abc1"), ("한_국", "한국"), ("\u1112\u1161\u11ab", "한"), ("!? ♥", ""), ("ㅋㅋ", "ㅋㅋ")],
)
def test_loose(text, expected):
    assert loose(text) == (expected if expected != "ㅋㅋ" else "ᄏᄏ")  # NFKC makes conjoining jamo of them, on both sides alike


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("정말 재미있는 영화!", Match(0, "exact")),
        ("정말재미있는영화~~", Match(0, "loose")),
        ("비가 오고 있다.", Match(1, "exact")),
        ("굿!", Match(0, "loose")),
        ("정말 재미있는 영화 였다", None),
        ("", None),
        ("!!!", None),  # without a letter nothing is said
        ("4.2", None),
    ],
)
def test_find(excluder, text, match):
    assert excluder.find(text) == match


def test_whole_documents_at_any_length_and_parts_from_seven_letters(excluder):
    counts: Counter[Match] = Counter()
    assert excluder.exclude(["굿~"], counts) == []
    assert excluder.exclude(["영화 봤어?", "굿", "정말 재미있는 영화!!", "나도 볼래"], counts) == ["영화 봤어?", "굿", "나도 볼래"]
    assert excluder.exclude(["정말 재미있는", "영화!"], counts) == []
    assert excluder.exclude(["처음 보는 글입니다"], counts) == ["처음 보는 글입니다"]
    assert counts == {Match(0, "loose"): 2, Match(0, "exact"): 1}


def test_nothing_to_exclude():
    counts: Counter[Match] = Counter()
    assert Excluder([]).exclude(["굿", "좋아요"], counts) == ["굿", "좋아요"] and not counts


def test_241_comments_and_247_nli_texts_are_nsmc_test_documents(shared_data):
    excluder = Excluder([str(shared_data / "nsmc/ratings_test.txt")])
    comments = (shared_data / "corpus/kcbert/standin.unlabeled_comments_5.txt").read_text(encoding="utf-8").splitlines()
    counts: Counter[Match] = Counter()
    kept = [comment for comment in comments if excluder.exclude([comment.strip()], counts)]
    assert len(comments) - len(kept) == 241 == sum(counts.values())
    counts.clear()
    rows = (shared_data / "kornli/standin.klue-nli-dev.train.ko.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
    for row in rows:
        excluder.exclude(row.split("\t")[:2], counts)
    assert sum(counts.values()) == 247
