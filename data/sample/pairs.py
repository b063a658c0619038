"""Pairs of sentences for the sample: do two questions ask the same, and how alike are two captions?

Notation: grammar.render. Two questions that ask the same are two wordings of one entry about the same words.
"""

import random

from grammar import Noun, Predicate, draw, render

CITIES = "서울, 부산, 대전, 광주, 제주도, 강릉, 여수, 춘천, 전주"
PEOPLE = "여자 친구, 남자 친구, 동생, 엄마, 아빠, 선배, 직장 동료, 룸메이트, 언니, 형"
# The words of a question -> its wordings: what people ask a chatbot, and what they just want to get off their chest.
REQUESTS = [
    (
        {"day": "오늘, 내일, 모레, 이번 주말", "city": CITIES},
        [
            "{day} {city} 날씨 어때~?",
            "{city} 날씨가 {day} 어떤지 알려 줘~",
            "{day} {city:은} 날씨가 괜찮을까~?",
            "{day} {city} 날씨 궁금해~",
        ],
    ),
    (
        {"place": "학교 앞, 회사 근처, 역 근처, 시청 옆, 집 근처"},
        [
            "{place:에} 맛집 있어~?",
            "{place} 맛집 추천해 줘~",
            "{place:에서} 맛있게 하는 식당 알아~?",
            "{place:에서} 밥 먹기 좋은 데 있을까~?",
        ],
    ),
    (
        {"city": CITIES},
        ["{city:으로} 여행 가고 싶어~", "{city:에} 놀러 가고 싶어~", "{city} 여행 가 볼까~?", "{city:으로} 여행 떠나고 [싶다|싶어요]"],
    ),
    (
        {"who": PEOPLE},
        [
            "{who} 생일 선물로 뭐가 좋을까~?",
            "{who} 생일에 뭘 사 줄까~?",
            "{who:에게} 줄 생일 선물 추천해 줘~",
            "{who} 생일 선물이 [고민이야|고민이에요]",
        ],
    ),
    (
        {"skill": "수영, 기타, 피아노, 영어, 요리, 운전, 그림, 춤"},
        ["{skill:을} 배우고 싶어~", "{skill:을} 배워 볼까~?", "{skill} 학원에 다녀 볼까~?", "{skill} 배우는 거 어떻게 생각해~?"],
    ),
    (
        {"pet": "강아지, 고양이, 햄스터, 앵무새, 거북이, 토끼"},
        ["{pet:을} 키우고 싶어~", "{pet} 키워 볼까~?", "{pet:을} 한 마리 데려올까~?", "{pet} 키우는 거 어떨까~?"],
    ),
    (
        {"place": "은행, 도서관, 우체국, 수영장, 박물관, 마트"},
        ["{place:은} 몇 시에 열어~?", "{place} 문 여는 시간 알려 줘~", "{place:이} 언제 문을 여는지 알아~?", "{place} 여는 시간이 궁금해~"],
    ),
    (
        {"genre": "공포 영화, 로맨스 영화, 액션 영화, 코미디 영화, 만화 영화"},
        ["{genre} 추천해 줘~", "재미있는 {genre} 알려 줘~", "볼 만한 {genre} 있을까~?", "{genre} 중에 뭐가 재미있어~?"],
    ),
]
COMPLAINTS = [
    (
        {"thing": "지갑, 휴대폰, 우산, 열쇠, 이어폰, 안경, 교통 카드"},
        ["{thing:을} 잃어버렸어~", "{thing:이} 없어졌어~", "{thing:이} 아무리 찾아도 안 보여~", "{thing:을} 어디에 뒀는지 모르겠어~"],
    ),
    ({"who": PEOPLE}, ["{who:과} 싸웠어~", "{who:하고} 다퉜어~", "{who:이랑} 크게 싸웠어~", "{who:과} 말다툼을 했어~"]),
    (
        {"ride": "버스, 지하철, 택시, 기차, 엘리베이터"},
        [
            "{ride:이} 왜 이렇게 안 와~?",
            "{ride:이} 안 와서 답답해~",
            "{ride:을} 한참 기다렸는데 안 와~",
            "{ride:은} 언제 오는 [거야|거예요]?",
        ],
    ),
    (
        {"exam": "수학 시험, 면접, 운전면허 시험, 기말시험, 영어 시험, 자격증 시험"},
        ["{exam:을} 망쳤어~", "{exam:을} 잘 못 봤어~", "{exam:에서} 실수를 많이 했어~", "{exam} 망한 것 같아~"],
    ),
    (
        {"when": "요즘, 어젯밤에, 며칠째"},
        ["{when} 잠이 안 와~", "{when} 잠을 못 잤어~", "{when} 통 못 자서 피곤해~", "{when} 잠을 설쳤어~"],
    ),
    (
        {"pain": "머리, 배, 허리, 목, 어깨, 무릎"},
        ["{pain:이} 아파~", "{pain:이} 너무 아픈데 어떡해~?", "{pain} 아파서 힘들어~", "{pain} 통증이 심해~"],
    ),
    (
        {"thing": "일, 숙제, 집안일, 회의, 과제"},
        ["{thing:이} 너무 많아~", "{thing} 때문에 힘들어~", "{thing:이} 끝이 없어~", "{thing:이} 많아서 지쳤어~"],
    ),
    ({"who": PEOPLE}, ["{who:이} 보고 싶어~", "{who:이} 그리워~", "{who} 생각이 많이 나~", "{who} 얼굴이 자꾸 떠올라~"]),
]

# Captions: who, where and what; an act has a second wording. Acts end in a verb, so that they inflect.
WHO = "남자=남성, 여자=여성, 아이=어린이, 할머니=노인, 청년=젊은이, 학생=학생, 요리사=주방장, 군인=병사"
PLACES = "공원, 바닷가, 마당, 시장, 강가, 운동장, 광장, 숲속, 다리 위, 호숫가"
ACTS = (
    "기타를 치다/v=기타를 연주하다/v, 자전거를 타다/v=자전거를 몰다/v, 아이스크림을 먹다/v=아이스크림을 핥다/v, "
    "공을 던지다/v=공을 내던지다/v, "
    "책을 읽다/v=책을 보다/v, 춤을 추다/v=춤추다/v, 그림을 그리다/v=스케치를 하다/v, 노래를 부르다/v=노래하다/v, "
    "개를 쓰다듬다/v=개를 어루만지다/v, 사진을 찍다/v=촬영을 하다/v, 꽃에 물을 주다/v=꽃에 물을 뿌리다/v, 낚시를 하다/v=물고기를 낚다/v, "
    "연을 날리다/v=연을 띄우다/v, 달리기를 하다/v=뛰다/v, 나무에 오르다/v=나무를 타다/v, 전화를 하다/v=통화를 하다/v"
)
# What sets the second caption apart from the first -> their score, before the votes of made-up readers move it.
SCORES = {"wording": 5.0, "no place": 4.0, "where": 3.2, "who": 2.6, "vague": 2.0, "act": 1.4, "nobody": 0.8, "news": 0.0}
# Second sentences that are no caption of their own.
OTHERS = {
    "vague": ["누군가 <밖에서/야외에서> 무언가를 하고 있다.", "어떤 사람이 {where:에} 있다.", "{where:에} 사람이 <보인다/있다>."],
    "nobody": ["{where:에는} 아무도 없다.", "{act:는} 사람은 아무도 없다.", "{who:은} {act:고} 있지 않다."],
    "news": [
        "<주가가/환율이/기름값이> <사흘/열흘/나흘> 만에 <올랐다/내렸다>.",
        "<도서관이/체육관이/박물관이> <다음 달에/올가을에/내년에> 문을 <연다/닫는다>.",
        "<대표팀이/야구팀이> 연장전 끝에 <이겼다/졌다>.",
        "<정부가/시장이/장관이> 새 <계획을/예산안을> <발표했다/내놓았다>.",
    ],
}


def question_pair(rng: random.Random) -> tuple[str, str, str]:
    """(question1, question2, is_duplicate), where "0" says that they ask the same and "1" that they do not, as in the official files.

    As there, the topic alone already tells much: complaints are seldom paired with another wording of themselves.
    """
    questions = rng.choice([REQUESTS, COMPLAINTS])
    slots, wordings = rng.choice(questions)
    words, (first, second) = draw(slots, rng), rng.sample(wordings, 2)
    others, label = words, "0"
    if rng.random() < (0.2 if questions is REQUESTS else 0.75):
        label = "1"
        if rng.random() < 0.7:  # another question altogether, else the same one about something else
            slots, wordings = rng.choice([question for question in questions if question[1] is not wordings])
            second = rng.choice(wordings)
        while others == words:
            others = draw(slots, rng)
    register = rng.choice(["polite", "casual"])
    return _typed(render(first, words, register, rng), rng), _typed(render(second, others, register, rng), rng), label


def _typed(text: str, rng: random.Random) -> str:
    """As people end what they type to a chatbot: with a full stop or without."""
    return text + rng.choice(["", "", "."]) if text[-1] != "?" else text


def caption_pair(rng: random.Random) -> tuple[float, str, str]:
    """(score, sentence1, sentence2): the score falls from 5 for the same in other words to 0 for something else altogether."""
    slots = {"who who2": WHO, "where": PLACES, "act act2": ACTS}
    words, difference = draw(slots, rng), rng.choice(list(SCORES))
    first, others = _caption(words, rng), dict(words)
    if difference in OTHERS:
        second = render(rng.choice(OTHERS[difference]), words, "plain", rng)
    else:
        while difference in words and others[difference] == words[difference]:
            others |= {name: value for name, value in draw(slots, rng).items() if name.rstrip("2") == difference}
        second = _caption(others, rng, rng.choice(["", "2"]), has_place=difference != "no place")
    score = SCORES[difference] + rng.choice([-0.4, -0.2, 0.0, 0.0, 0.2, 0.4])
    return min(5.0, max(0.0, score)), first, second


def _caption(words: dict[str, Noun | Predicate], rng: random.Random, wording: str = "", has_place: bool = True) -> str:
    subject = f"{rng.choice(['', '한 '])}{words[rng.choice(['who', 'who2'])]:이}"
    parts = [f"{words['where']:에서}", subject] if has_place else [subject]
    return f"{' '.join(rng.sample(parts, len(parts)))} {words['act' + wording]:고} 있다."
