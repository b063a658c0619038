"""Comments under news for the sample's hate-speech task. Nobody is insulted: what stands in for hatred is wanting a thing gone.

"none" is pleased or asks, "offensive" grumbles and scolds, "hate" wants that something stops for good; it is always about things,
such as a programme or a song. Notation: grammar.render.
"""

import random

from grammar import draw, render

TOPICS = "이 드라마, 이 예능, 이번 공연, 새 광고, 이 영화, 아침 방송, 이 만화, 새 예고, 이번 무대, 이 코너, 이 다큐, 이 인터뷰"
GOOD = "재미있다/a, 신선하다/a, 훌륭하다/a, 흥겹다/a, 따뜻하다/a, 멋지다/a, 감동적이다/c"
BAD = "지루하다/a, 유치하다/a, 시끄럽다/a, 엉성하다/a, 촌스럽다/a, 답답하다/a, 어설프다/a"
SLOTS = {"topic": TOPICS, "good": GOOD, "bad": BAD}
TITLES = [
    "{topic}, <첫 회부터/어제도/이번 주도> <화제/관심 집중>",
    "[단독] {topic:이} <다음 달/올가을/내년에> 다시 온다",
    "{topic:은} 왜 {good:을까}… <직접 보니/들어 보니>",
    "<제작진/감독/작가> \"{topic:은} 모두가 함께 만든 <작품/결과>\"",
    "{topic}, 이번 주 화제 <1위/2위/3위>",
]  # fmt: skip
COMMENTS = {
    "none": [
        "{topic} <정말/진짜/참> {good:네~}",
        "{topic:이} 이렇게 {good:을} 줄 몰랐[다|어요]",
        "{bad:을} 줄 알았는데 {topic:이} <의외로/생각보다> {good:네~}",
        "{topic:이} {bad:는다는} 사람도 있던데 [나는|저는] <좋았어~/잘 봤어~>",
        "{topic} <또/다음에는> 언제 볼 수 [있어|있어요]?",
        "기사 잘 <읽었어~/봤어~>. {topic} <기대돼~/응원해~>",
        "{topic:이} {bad:지} 않아서 <다행이[다|에요]/좋았어~>",
        "어제 {topic} 보면서 <많이 웃었어~/위로를 받았어~>",
    ],
    "offensive": [
        "{topic} <정말/진짜/너무> {bad:네~}",
        "{topic:이} 이렇게 {bad:을} 줄 몰랐[다|어요]",
        "{good:을} 줄 알았는데 {topic:이} <의외로/생각보다> {bad:네~}",
        "{topic:이} {good:는다는} 사람도 있던데 [나는|저는] <별로였어~/실망했어~>",
        "이걸 기사라고 썼[냐|나요], {topic} 이야기는 어디에 있[냐|나요]",
        "{topic:이} {good:는다고} 쓴 기자님, <제대로 보고/생각 좀 하고> [써라|쓰세요]",
        "{topic:이} {good:지} 않아서 <실망이[다|에요]/별로였어~>",
        "어제 {topic} 보면서 <하품만 했어~/한숨만 나왔어~>",
    ],
    "hate": [
        "{topic:은} <당장/하루빨리> 없어져야 [한다|해요]",
        "{topic:은} 이제 <그만 나왔으면/아무도 안 봤으면> 좋겠[다|어요]",
        "{good:든} 말든 {topic:은} <당장 치워라/영영 안 보고 싶다>",
        "{topic:이} {good:는다는} 사람도 있던데 다 필요 없고 <당장 없애라/그만해라>",
        "{topic} 같은 것은 <모조리/전부> <없애야/치워야> [한다|해요]",
        "{topic:은} 두 번 다시 내보내지 마[라|세요]",
        "{bad:는} {topic}, 제발 <사라져라/없어져라>",
        "{topic} 보느니 텔레비전을 끄겠[다|어요], <영영 나오지 마라/당장 없애라>",
    ],
}
ENDINGS = ["", "", "", ".", "!", "!!", "...", "~", " ㅋㅋ", " ㅎㅎ", "ㅠㅠ", ";;"]


def comment(rng: random.Random) -> tuple[str, str, str, str]:
    """(title, comment, bias, hate) as in the official files, whose titles keep the quotes of the table they came from."""
    label = rng.choices(list(COMMENTS), weights=[44, 32, 24])[0]
    words, register = draw(SLOTS, rng), rng.choice(["polite", "casual"])
    title = render(rng.choice(TITLES), words, register, rng)
    if rng.random() < 0.8:
        title = '"' + title.replace('"', '""') + '"'
    text = render(rng.choice(COMMENTS[label]), words, register, rng)
    text += rng.choice(ENDINGS) if text[-1] != "?" else ""
    bias = "others" if label == "hate" and rng.random() < 0.5 else "none"
    return title, text, bias, label
