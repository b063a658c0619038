"""Premises and hypotheses for the sample's kornli task. Notation: grammar.render.

A hypothesis rarely gives its label away alone: {act:지} 않았다 contradicts that somebody did it, and follows from having given up.
"""

import random

from grammar import draw, render

SLOTS = {
    "who": "민수, 지영이, 아버지, 언니, 할머니, 그 학생, 옆집 아이, 내 친구, 삼촌, 김 선생님",
    "mate": "동생, 이웃, 사촌, 후배, 형, 동료",
    "when": "지난 토요일, 어제저녁, 오늘 아침, 지난달, 점심시간",
    # an act, what it is a case of, what one may do instead of it, and where
    "act general instead place": "사과를 사다/v=과일을 사다/v=사과를 팔다/v=시장, 축구를 하다/v=운동을 하다/v=종일 자다/v=공원, "
    "소설을 읽다/v=책을 읽다/v=잠만 자다/v=도서관, 피아노를 치다/v=악기를 연주하다/v=구경만 하다/v=학교, "
    "커피를 마시다/v=음료를 마시다/v=아무것도 마시지 않다/v=카페, 고양이를 그리다/v=동물을 그리다/v=풍경만 그리다/v=골목, "
    "장미를 심다/v=꽃을 심다/v=장미를 꺾다/v=마당, 김밥을 먹다/v=음식을 먹다/v=아무것도 먹지 않다/v=바닷가, "
    "배드민턴을 치다/v=운동을 하다/v=구경만 하다/v=체육관, 화분을 고르다/v=식물을 고르다/v=빈손으로 나오다/v=꽃집, "
    "강아지와 걷다/v=동물과 걷다/v=혼자 걷다/v=강가, 만두를 빚다/v=음식을 만들다/v=만두를 사 먹다/v=부엌",
    "place2": "병원, 우체국, 은행, 공항, 수영장",
    "feel": "즐겁다/a, 피곤하다/a, 행복하다/a, 심심하다/a, 뿌듯하다/a",
}
# Premises of one kind, and under each label the hypotheses that fit all of them.
KINDS: list[tuple[list[str], dict[str, list[str]]]] = [
    (
        [
            "{who:은} {when:에} {place:에서} {act:었다}.",
            "{when:에} {who:은} {place:에서} {act:었다}.",
            "{place:에서} {who:은} {when:에} {act:었다}.",
        ],
        {
            "entailment": ["{who:은} {general:었다}.", "{who:은} {when:에} {place:에} 있었다.", "{who:은} {place:에서} {general:었다}."],
            "neutral": [
                "{who:은} {feel:었다}.",
                "{who:은} <내일/다음 주에> 또 {act:을} 것이다.",
                "{who:은} {act:는} 것을 <가장/무척> 좋아한다.",
                "{who:은} {mate:과} 함께 있었다.",
            ],
            "contradiction": [
                "{who:은} {when:에} {act:지} 않았다.",
                "{who:은} {when:에} {place2:에} 있었다.",
                "{who:은} {place:에} 간 적이 없다.",
                "{who:은} {place:에서} {instead:었다}.",
            ],
        },
    ),
    (
        ["{who:은} {act:으려고} {place:에} 갔지만 시간이 없어서 그냥 돌아왔다.", "{who:은} {when:에} {act:으려다가} 결국 그만두었다."],
        {
            "entailment": ["{who:은} {act:지} 않았다.", "{who:은} {act:고} 싶었지만 그러지 못했다."],
            "neutral": [
                "{who:은} <내일/다음 주에> {act:을} 것이다.",
                "{who:은} 그래서 {feel:었다}.",
                "{who:은} {mate:에게} 그 이야기를 했다.",
            ],
            "contradiction": ["{who:은} {act:었다}.", "{who:은} {general:었다}.", "{who:은} {act:을} 생각이 전혀 없었다."],
        },
    ),
    (
        ["{who:은} {mate:과} 함께 {place:에서} {act:었다}.", "{who:과} {mate:은} {when:에} {place:에서} {act:었다}."],
        {
            "entailment": ["{who:은} 혼자가 아니었다.", "{mate:은} {place:에} 있었다.", "두 사람이 {place:에서} {general:었다}."],
            "neutral": ["{who:은} {mate:보다} 늦게 왔다.", "{mate:은} {feel:었다}.", "두 사람은 오랜만에 만났다."],
            "contradiction": ["{who:은} 혼자 {act:었다}.", "{place:에는} 아무도 없었다.", "{mate:은} 그때 {place2:에} 있었다."],
        },
    ),
]


def inference(rng: random.Random) -> tuple[str, str, str]:
    """(sentence1, sentence2, gold_label): a premise, a hypothesis, and whether the one follows from the other."""
    premises, hypotheses = rng.choices(KINDS, weights=[3, 2, 2])[0]
    words, label = draw(SLOTS, rng), rng.choice(list(hypotheses))
    return render(rng.choice(premises), words, "plain", rng), render(rng.choice(hypotheses[label]), words, "plain", rng), label
