"""Writes the sample data: Korean text to pre-train on, and six small task sets in the layouts of the benchmark.

    python data/sample/make_sample.py            # rewrites the folders of data/sample

Needs nothing but Python. The same seed writes the same bytes, and the files in the repository are what it writes; the text is
composed from the scenes and sentences in the other modules beside this file, and none of it comes from elsewhere.
"""

import argparse
import pathlib
import random
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from comments import COMMENTS, comment
from dialogues import SCENES, Scene
from entities import tagged_sentence
from grammar import Noun, Predicate, draw, render, word
from inferences import inference
from pairs import caption_pair, question_pair
from passages import PASSAGES
from reviews import ASPECTS, JUDGEMENTS, OPENINGS, SHORT, SUBJECTS, USES, VERDICTS, WHEN

DOCUMENTS = {"dialogues": 190, "chats": 130, "passages": 150, "reviews": 200, "comments": 280}  # file of the corpus -> documents
TRAIN_ROWS, TEST_ROWS = 2400, 600
HEADER = "id\tdocument\tlabel"
FIRST_ID = 100_001
# Rows that break careless readers; real review files hold all of these. Only the empty document says nothing of its label.
TRAPS = [
    ("", 1),
    ("", 0),
    ('"""다시 보고 싶은 ""최고의"" 영화였다"""', 1),
    ('"""감동""이라더니 하품만 나왔다"""', 0),
    ('따옴표 하나만 " 있어도 재미있는 건 재미있다', 1),
    ("😀😀 웃느라 시간 가는 줄 몰랐어요", 1),
    ("😴😴 보다가 잠들었어요", 0),
    ("★★★★★ 말이 필요 없다", 1),
    ("ㅡㅡ;; 이게 뭐야... 시간 아까워ㅠㅠ", 0),
    ("굿굿굿 ㅋㅋㅋㅋㅋㅋ", 1),
    ("   앞뒤에 빈칸이 있어도 지루한 영화   ", 0),
    ("Good movie, 두 번 봐도 안 질려요", 1),
]
SAD_STEMS = ("아프", "아파", "힘들", "걱정", "미안", "아쉽", "속상", "늦", "고생", "피곤", "바빠", "바쁘", "떨", "불안", "상했")
SLANG = {"응,": "ㅇㅇ", "고마워": "ㄱㅅ", "정말?": "ㄹㅇ?", "알겠어": "ㅇㅋ", "미안해": "ㅈㅅ"}


class TaskSet(NamedTuple):
    """A task other than NSMC: its files, and how a row of them comes about."""

    columns: str  # separated by spaces
    text_columns: str  # those that make two rows the same
    rows: dict[str, int]  # file -> number of rows
    make: Callable[[random.Random], tuple[str, ...]]
    label: str = ""  # the column in which NOISE of the rows are wrong
    labels: Sequence[str] = ()
    has_header: bool = True


def _korsts_row(rng: random.Random) -> tuple[str, ...]:
    score, first, second = caption_pair(rng)
    return "main-captions", "sample", "2024", f"{rng.randrange(10000):04}", f"{score:.3f}", first, second


NOISE = 0.025
TASKS = {
    "question-pair": TaskSet(
        columns="question1 question2 is_duplicate",
        text_columns="question1 question2",
        rows={"train.tsv": 700, "dev.tsv": 100, "test.tsv": 150},
        make=question_pair,
        label="is_duplicate",
        labels=("0", "1"),
    ),
    "hate-speech": TaskSet(
        columns="title comment bias hate",
        text_columns="comment",
        rows={"train.tsv": 500, "val.tsv": 120},
        make=comment,
        label="hate",
        labels=tuple(COMMENTS),
    ),
    "naver-ner": TaskSet("words tags", "words", {"train.tsv": 500, "test.tsv": 120}, tagged_sentence, has_header=False),
    "kornli": TaskSet(
        columns="sentence1 sentence2 gold_label",
        text_columns="sentence1 sentence2",
        rows={"multinli.train.ko.tsv": 600, "xnli.dev.ko.tsv": 100, "xnli.test.ko.tsv": 120},
        make=inference,
        label="gold_label",
        labels=("entailment", "neutral", "contradiction"),
    ),
    "korsts": TaskSet(
        columns="genre filename year id score sentence1 sentence2",
        text_columns="sentence1 sentence2",
        rows={"sts-train.tsv": 500, "sts-dev.tsv": 100, "sts-test.tsv": 120},
        make=_korsts_row,
        label="score",
        labels=[f"{score}.000" for score in range(6)],
    ),
}


def make_sample(output_dir: pathlib.Path, seed: int) -> None:
    """Writes `output_dir`/corpus/*.txt, `output_dir`/nsmc/ratings_{train,test}.txt and the files of TASKS."""
    rows = _rows(random.Random(f"{seed}-nsmc"))
    task_texts = {text for text, _ in rows}
    makers: dict[str, Callable[[random.Random], list[str]]] = {
        "dialogues": lambda rng: _dialogue(rng, rng.choice(["polite", "casual"])),
        "chats": _chat,
        "passages": lambda rng: _scene(rng, rng.choice(PASSAGES), "plain"),
        "reviews": _review,
        "comments": _comments,
    }
    corpus: set[str] = set()
    for name, count in DOCUMENTS.items():
        documents = _distinct(makers[name], random.Random(f"{seed}-{name}"), count, task_texts)
        corpus.update(line for document in documents for line in document)
        _write(output_dir / "corpus" / f"{name}.txt", "\n\n".join("\n".join(document) for document in documents) + "\n")
    numbered = [f"{FIRST_ID + index}\t{text}\t{label}\n" for index, (text, label) in enumerate(rows)]
    _write(output_dir / "nsmc" / "ratings_train.txt", "".join([HEADER + "\n", *numbered[:TRAIN_ROWS]]))
    _write(output_dir / "nsmc" / "ratings_test.txt", "".join([HEADER + "\n", *numbered[TRAIN_ROWS:]]))
    for name, task in TASKS.items():
        for file, lines in _task_files(task, random.Random(f"{seed}-{name}"), corpus).items():
            _write(output_dir / name / file, "".join(line + "\n" for line in lines))


def _distinct(make: Callable[[random.Random], list[str]], rng: random.Random, count: int, banned: Collection[str]) -> list[list[str]]:
    """The first `count` different documents that `make(rng)` gives, without the lines in `banned`."""
    documents: dict[tuple[str, ...], None] = {}
    while len(documents) < count:
        documents[tuple(line for line in make(rng) if line not in banned)] = None
    return [list(document) for document in documents]


def _scene(rng: random.Random, scene: Scene, register: str) -> list[str]:
    words = draw(scene.slots, rng)
    return [render(line, words, register, rng) for line in scene.turns.strip().splitlines()]


def _dialogue(rng: random.Random, register: str) -> list[str]:
    """A conversation, now and then broken off before its last turns."""
    turns = _scene(rng, rng.choice(SCENES), register)
    return turns[: len(turns) - rng.choice([0, 0, 0, 1, 2])]


def _chat(rng: random.Random) -> list[str]:
    """A conversation typed in a hurry: no full stops, short forms, laughter and tears."""
    return [_typed(line, rng) for line in _dialogue(rng, "casual")]


def _typed(line: str, rng: random.Random) -> str:
    for full, short in SLANG.items():
        if rng.random() < 0.4:
            line = line.replace(full, short)
    line = line.rstrip(".")
    if rng.random() < 0.45:
        sad = any(stem in line for stem in SAD_STEMS)
        line += rng.choice(["ㅠㅠ", "ㅠㅠㅠ", "ㅜㅜ"] if sad else [" ㅋㅋ", "ㅋㅋㅋ", " ㅎㅎ", "~", "!!"])
    return line


def _opinion(kind: str, aspects: Sequence[str], rng: random.Random) -> dict[str, Noun | Predicate]:
    """The words of one opinion: two aspects, a and b, each with praise (pos), blame (neg) and the negations of both."""
    words: dict[str, Noun | Predicate] = {}
    for aspect, letter, number in zip(aspects, "ab", ("", "2"), strict=True):
        words[letter] = Noun(aspect)
        for name, options in zip(("pos", "neg"), ASPECTS[kind][aspect], strict=True):
            predicate = Predicate(*rng.choice(options.split(",")).strip().split("/"))
            words |= {f"{name}{number}": predicate, f"not{name}{number}": predicate.negated()}
    return words


def _review(rng: random.Random) -> list[str]:
    """A long review: an opening, some opinions on different aspects, a verdict, all of one mind and one register."""
    kind = rng.choice(["movie", "movie", *ASPECTS])
    register, label = rng.choice(["polite", "plain", "formal", "nominal"]), rng.randrange(2)
    frame = draw({"subject": SUBJECTS[kind], "when": WHEN}, rng) | {"use": word(USES[kind])}
    aspects = rng.sample(sorted(ASPECTS[kind]), len(ASPECTS[kind]))
    templates = rng.sample(JUDGEMENTS[label], rng.randint(2, 4 if kind == "movie" else 2))
    document = [render(rng.choice(OPENINGS[kind]), frame, register, rng)]
    for index, template in enumerate(templates):
        document.append(render(template, _opinion(kind, aspects[2 * index : 2 * index + 2], rng), register, rng))
    return document + [render(template, frame, register, rng) for template in rng.sample(VERDICTS[label], rng.randint(1, 3))]


def _comments(rng: random.Random) -> list[str]:
    """What several people wrote about one film; most of them agree."""
    label, subject = rng.randrange(2), draw({"subject": SUBJECTS["movie"]}, rng)
    return [_short(label if rng.random() < 0.8 else 1 - label, rng, subject) for _ in range(rng.randint(5, 9))]


def _short(label: int, rng: random.Random, subject: dict[str, Noun | Predicate] | None = None) -> str:
    """One short review, as people type them under a film."""
    register = rng.choice(["polite", "plain", "casual", "nominal"])
    subject = subject or draw({"subject": SUBJECTS["movie"]}, rng)
    aspects = rng.sample(sorted(ASPECTS["movie"]), 4)
    sentences = [
        render(template, subject | _opinion("movie", aspects[2 * index : 2 * index + 2], rng), register, rng)
        for index, template in enumerate(rng.sample(SHORT[label], rng.choice([1, 1, 1, 2])))
    ]
    prefix = rng.choice(["", "", "", "", "솔직히 ", "개인적으로 ", "와 ", "음... "])
    suffix = rng.choice(["", "", "", ".", ".", "!", "!!", "...", "~", " ㅋㅋ", "ㅋㅋㅋ", "ㅠㅠ", " ㅎㅎ", " 🎬"])
    return prefix + ". ".join(sentences) + suffix


def _rows(rng: random.Random) -> list[tuple[str, int]]:
    """TRAIN_ROWS + TEST_ROWS rows (document, label), both splits balanced, no document twice but the empty one."""
    rows: list[tuple[str, int]] = []
    for count, traps in ((TRAIN_ROWS, TRAPS), (TEST_ROWS, TRAPS[:2])):
        labels = [label for _, label in traps]
        left = {label: count // 2 - labels.count(label) for label in (0, 1)}
        split, seen = list(traps), {text for text, _ in rows}
        while any(left.values()):
            label = 0 if left[0] > left[1] else 1
            text = _short(label, rng)
            if text not in seen:
                seen.add(text)
                split.append((text, label))
                left[label] -= 1
        rng.shuffle(split)
        rows += split
    return rows


def _task_files(task: TaskSet, rng: random.Random, banned: Collection[str]) -> dict[str, list[str]]:
    """file -> lines. No two rows of the task have the same texts, in whichever order, and none has a text in `banned`."""
    columns, seen = task.columns.split(), set()
    files = {file: ["\t".join(columns)] if task.has_header else [] for file in task.rows}
    for file, count in task.rows.items():
        left = count
        while left:
            row = dict(zip(columns, task.make(rng), strict=True))
            texts = frozenset(row[column] for column in task.text_columns.split())
            if texts in seen or not texts.isdisjoint(banned):
                continue
            seen.add(texts)
            if task.label and rng.random() < NOISE:
                row[task.label] = rng.choice([label for label in task.labels if label != row[task.label]])
            files[file].append("\t".join(row.values()))
            left -= 1
    return files


def _write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes the sample corpus and the six sample tasks.")
    parser.add_argument("--output_dir", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent, help="where to write")
    parser.add_argument("--seed", type=int, default=1, help="another seed writes other text")
    arguments = parser.parse_args()
    make_sample(arguments.output_dir, arguments.seed)
