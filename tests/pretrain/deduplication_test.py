import numpy as np
import pytest

from model.command import UserError
from pretrain import deduplication as dedup
from pretrain.deduplication import EXACT_DUPLICATE, KEPT, NEAR_DUPLICATE


def test_key_is_the_beginning_of_blake2b_and_stays_the_same_for_ever():
    assert dedup.document_key("한국어\n") == 0xBE32666CF239BFD3
    assert dedup.document_key("가") != dedup.document_key("나")
    assert 0 <= dedup.document_key("") < 1 << 64


def test_first_of_equal_documents_stays_wherever_the_others_are(tmp_path):
    high, low = 2**64 - 1, 5  # keys of different buckets
    finder = dedup.ExactDuplicates(str(tmp_path))
    finder.add(np.array([high, low, 7], np.uint64))
    finder.add(np.array([], np.uint64))
    finder.add(np.array([low, high, 9, low], np.uint64))
    fates = np.zeros(7, np.uint8)
    finder.mark(fates)
    assert fates.tolist() == [KEPT, KEPT, KEPT, EXACT_DUPLICATE, EXACT_DUPLICATE, KEPT, EXACT_DUPLICATE]
    assert list(tmp_path.iterdir()) == []


def test_exact_duplicates_are_those_of_a_set(tmp_path):
    keys = np.random.default_rng(0).integers(0, 3000, 20000).astype(np.uint64) * np.uint64(6148914691236517)
    finder = dedup.ExactDuplicates(str(tmp_path))
    for part in np.array_split(keys, 13):
        finder.add(part)
    fates = np.zeros(len(keys), np.uint8)
    finder.mark(fates)
    seen: set[int] = set()
    for key, fate in zip(keys.tolist(), fates.tolist(), strict=True):
        assert fate == (EXACT_DUPLICATE if key in seen else KEPT)
        seen.add(key)


STORY = "옛날 어느 마을에 가난하지만 부지런한 농부가 살았습니다. 농부는 아침마다 논에 나가 물꼬를 보고 저녁이면 소를 몰고 돌아왔습니다. "
OTHER = "도서관은 다음 달부터 평일 운영 시간을 두 시간 늘립니다. 퇴근길에 책을 빌리려는 직장인의 요청이 오래 이어졌기 때문이라고 합니다. "


def _near(texts, fates, threshold=0.8):
    pytest.importorskip("datasketch", reason="near duplicates are an extra: pip install .[dedup]")
    finder = dedup.NearDuplicates(threshold)
    fates = np.array(fates, np.uint8)
    finder.mark(np.array([dedup.signature(text) for text in texts]), fates)
    return fates.tolist()


def test_near_duplicates():
    texts = [STORY * 2, OTHER * 2, STORY * 2 + "끝.", STORY + OTHER, "짧은 글", "짧은 글"]
    assert _near(texts, [KEPT] * 6) == [KEPT, KEPT, NEAR_DUPLICATE, KEPT, KEPT, KEPT]


def test_what_is_dropped_already_hides_nothing_and_stays_dropped():
    texts = [STORY, STORY + "끝.", STORY + "끝"]
    assert _near(texts, [EXACT_DUPLICATE, KEPT, KEPT]) == [EXACT_DUPLICATE, KEPT, NEAR_DUPLICATE]


def test_threshold_counts_in_estimated_similarity():
    assert _near([STORY * 2, STORY + OTHER], [KEPT, KEPT], threshold=0.3) == [KEPT, NEAR_DUPLICATE]


def test_estimate_is_near_the_similarity_of_the_shingles():
    pytest.importorskip("datasketch", reason="near duplicates are an extra: pip install .[dedup]")

    def shingles(text):
        text = "".join(text.split())
        return {text[start : start + 5] for start in range(len(text) - 4)}

    one, two = STORY, STORY[:60] + OTHER[:40]
    estimate = np.mean(dedup.signature(one) == dedup.signature(two))
    assert estimate == pytest.approx(len(shingles(one) & shingles(two)) / len(shingles(one) | shingles(two)), abs=0.12)


# ---- mixing


def test_draws_of_keys_are_uniform_and_depend_on_key_and_seed():
    keys = np.arange(100_000, dtype=np.uint64)
    draws = dedup.uniform_of_keys(keys, 1)
    assert np.histogram(draws, 10, (0, 1))[0] == pytest.approx(np.full(10, 10_000), abs=500)
    assert np.abs(np.corrcoef(draws, dedup.uniform_of_keys(keys, 2))[0, 1]) < 0.01
    assert dedup.uniform_of_keys(keys[5:6], 1)[0] == draws[5]


def test_scarcest_share_stays_whole():
    assert dedup.kept_fractions({"dialog": 10, "written": 40}, {"dialog": 1.0, "written": 2.0}) == {"dialog": 1.0, "written": 0.5}
    assert dedup.kept_fractions({"dialog": 100, "written": 40}, {"dialog": 7.0, "written": 15.0}) == {
        "dialog": pytest.approx(40 / 15 * 7 / 100),
        "written": 1.0,
    }


def test_mixture_is_parsed():
    assert dedup.parse_mixture("dialog=7, written=1.5,") == {"dialog": 7.0, "written": 1.5}
    assert dedup.parse_mixture("") == {}


@pytest.mark.parametrize("mixture", ["dialog", "dialog=", "dialog=x", "dialog=0", "dialog=-1", "dialog=nan", "dialog=inf"])
def test_bad_mixture(mixture):
    with pytest.raises(UserError, match=r"like dialog=7,written=15.*--mixture"):
        dedup.parse_mixture(mixture)
