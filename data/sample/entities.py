"""Sentences with names for the sample's naver-ner task: words, and a tag for each of them.

In a sentence `{PER:은}` is a name of that type with a particle; every other word is outside. The people and the firms are made up.
"""

import random
import re

from grammar import Noun

FAMILY = "김 이 박 최 정 강 조 윤 장 임 한 오 서 신 권 황 안 송 전 홍".split()
GIVEN = "민수 지영 서준 하은 도윤 수아 현우 예린 준호 은지 태민 소희 재현 유나 성훈 다혜 동욱 미래 상우 혜진 나래 한결".split()
FIRMS = "한빛 푸른 새별 다온 가람 온누리 해오름 미리내 늘봄 큰솔 아라 도담".split()
BRANCHES = "전자 은행 대학교 출판사 병원 건설 항공 신문 제약 식품".split()
PLACES = (
    "서울,부산,대구,인천,광주,대전,울산,제주도,강릉,여수,전주,경주,춘천,목포,독일,베트남,"
    "부산 해운대,서울 강남구,강원도 속초시,경기도 수원시"
)
# Slot -> type, what fits it. The types are those of the Naver set; slots differ where words would not go together.
SLOTS = {
    "LOC": ("LOC", PLACES),
    "EVT": ("EVT", "봄꽃 축제,여름 음악 축제,전국 체육 대회,바다 영화제,겨울 독서 모임,청소년 과학 대회,마을 운동회"),
    "JOB": ("CVL", "기자,배우,감독,교수,의사,작가,시장,선수,변호사,요리사"),
    "STAFF": ("CVL", "대표,부장,연구원,팀장,이사,대변인"),
    "PET": ("ANM", "강아지,고양이,토끼,거북이,햄스터,앵무새"),
    "WILD": ("ANM", "사슴,고라니,수달,까치,너구리,두루미"),
    "PAST": ("DAT", "어제,그저께,지난 월요일,지난주 금요일,작년 가을,지난달 초"),
    "FUTURE": ("DAT", "오늘,내일,모레,다음 주 금요일,이번 주말,다음 달 초"),
    "HOUR": ("TIM", "아침 여덟 시,오전 아홉 시,오후 세 시,저녁 일곱 시,밤 열 시,정오,오후 두 시 반,자정"),
    "PEOPLE": ("NUM", "세 명,백 명,스무 명,열두 명,수천 명"),
    "TIMES": ("NUM", "두 번,세 번,네 차례,열 번"),
    "THINGS": ("NUM", "일곱 개,다섯 개,열두 상자,마흔 개"),
    "BEASTS": ("NUM", "두 마리,다섯 마리,스무 마리"),
}

SENTENCES = """
{PER:은} {PAST} {LOC:에서} {PER:을} 만났다 .
{FUTURE} {HOUR:에} {ORG} 앞에서 만나기로 했다 .
{ORG:은} {FUTURE} 새 사옥을 {LOC:에} 짓기 시작한다 .
{ORG} {PER} {STAFF:은} {PAST} 사람들 앞에서 계획을 설명했다 .
{LOC:에서} 열린 {EVT:에} {PEOPLE:이} 다녀갔다 .
{PER} {JOB:은} 상을 {TIMES:이나} 받았다 .
우리 집 {PET:은} {HOUR:이} 되면 꼭 밥을 달라고 한다 .
{PER:은} {LOC:으로} 떠나는 날짜를 {TIMES} 바꿨다 .
{PAST} {HOUR} {LOC} 하늘에 무지개가 떴다 .
{ORG:에} 다니는 {PER:은} 요즘 무척 바쁘다 .
{EVT:은} {FUTURE} {HOUR:에} 시작한다 .
{WILD} {BEASTS:이} {LOC} 근처에서 발견됐다 .
그 친구는 {PAST} 아무 말도 없이 돌아갔다 .
어느 회사에서 일하는지 {PER:은} 말해 주지 않았다 .
{PER} 씨가 {ORG} {STAFF:이} 됐다는 소식을 {PAST} 들었다 .
{JOB} 한 사람이 {LOC:에서} {WILD:을} 찍고 있었다 .
{HOUR:까지} {THINGS:을} 더 모아야 한다 .
{PER:이랑} {PER:은} {EVT:에서} 처음 만난 사이다 .
{ORG:은} {LOC} 공장에서 일할 {PEOPLE:을} 뽑는다 .
이 책을 쓴 사람은 {PER} {JOB:이라고} 한다 .
언젠가 {LOC:에} 다시 가 보고 싶다 .
{PAST} 본 영화에서 {PER} 연기가 좋았다
{LOC} 여행은 {FUTURE} 떠나는 게 좋아요 !
{PER:이} 키우는 {PET:은} 사람을 잘 따른다 .
어느 {JOB:이} 그 회사에 물건을 {THINGS} 보냈다 .
집에 오는 길에 비가 와서 옷이 다 젖었다 .
우리 동네에는 오래된 나무가 많아서 좋다 .
무슨 말인지 잘 모르겠지만 일단 들어 보자
""".strip().splitlines()
FORGOTTEN = 0.025  # share of names that go unmarked, as annotators overlook some


def tagged_sentence(rng: random.Random) -> tuple[str, str]:
    """(words, tags), each between single spaces."""
    words: list[str] = []
    tags: list[str] = []
    for token in rng.choice(SENTENCES).split(" "):
        slot = re.fullmatch(r"\{([A-Z]+):?(.*)\}", token)
        if slot is None:
            words.append(token)
            tags.append("O")
            continue
        kind, name = _name(slot[1], rng)
        *first, last = name.split(" ")
        words += [*first, f"{Noun(last):{slot[2]}}"]
        marks = [f"{kind}-B", *[f"{kind}-I"] * len(first)]
        tags += marks if rng.random() >= FORGOTTEN else ["O"] * len(marks)
    return " ".join(words), " ".join(tags)


def _name(slot: str, rng: random.Random) -> tuple[str, str]:
    """(its type, a name that fits the slot)."""
    if slot == "PER":
        given = rng.choice(GIVEN)
        friend = given + "이" if f"{Noun(given):은}".endswith("은") else given  # 지은이는, but 민수는
        return "PER", rng.choice(FAMILY) + given if rng.random() < 0.75 else friend
    if slot == "ORG":
        return "ORG", rng.choice(FIRMS) + rng.choice(BRANCHES)
    kind, options = SLOTS[slot]
    if slot in ("PAST", "FUTURE") and rng.random() < 0.4:
        return kind, f"{rng.randint(1, 12)}월 {rng.randint(1, 28)}일"
    if slot in ("PEOPLE", "THINGS") and rng.random() < 0.4:
        return kind, f"{rng.randint(2, 90)}{'명' if slot == 'PEOPLE' else '개'}"
    return kind, rng.choice(options.split(","))
