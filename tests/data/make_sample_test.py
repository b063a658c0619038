"""The sample data: same bytes from the same seed, the promised counts, and Korean that inflects as it should."""

import collections
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

from configure_finetuning import FinetuningConfig
from finetune.task_builder import BENCHMARK, get_tasks

SAMPLE = pathlib.Path(__file__).resolve().parents[2] / "data" / "sample"
FILES = [f"corpus/{name}.txt" for name in ("chats", "comments", "dialogues", "passages", "reviews")]
TASK = ["nsmc/ratings_train.txt", "nsmc/ratings_test.txt"]
TASKS = {  # beside NSMC: file -> rows
    "question-pair": {"train.tsv": 700, "dev.tsv": 100, "test.tsv": 150},
    "hate-speech": {"train.tsv": 500, "val.tsv": 120},
    "naver-ner": {"train.tsv": 500, "test.tsv": 120},
    "kornli": {"multinli.train.ko.tsv": 600, "xnli.dev.ko.tsv": 100, "xnli.test.ko.tsv": 120},
    "korsts": {"sts-train.tsv": 500, "sts-dev.tsv": 100, "sts-test.tsv": 120},
}
NAMES = FILES + TASK + [f"{task}/{file}" for task, files in TASKS.items() for file in files]


@pytest.fixture
def grammar(monkeypatch):
    monkeypatch.syspath_prepend(str(SAMPLE))
    return importlib.import_module("grammar")


def _make(folder: pathlib.Path, *arguments: str) -> dict[str, bytes]:
    subprocess.run([sys.executable, str(SAMPLE / "make_sample.py"), f"--output_dir={folder}", *arguments], check=True, timeout=120)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.t*")}


def _rows(name: str) -> list[list[str]]:
    lines = (SAMPLE / name).read_text(encoding="utf-8").split("\n")
    assert lines[0] == "id\tdocument\tlabel" and lines[-1] == ""
    return [line.split("\t") for line in lines[1:-1]]


def test_regenerating_gives_the_committed_bytes(tmp_path):
    assert _make(tmp_path) == {name: (SAMPLE / name).read_bytes() for name in NAMES}


def test_another_seed_gives_other_text(tmp_path):
    made = _make(tmp_path, "--seed=2")
    assert all(made[name] != (SAMPLE / name).read_bytes() for name in NAMES)


def test_corpus_is_large_and_varied_enough():
    documents = [text for name in FILES for text in (SAMPLE / name).read_text(encoding="utf-8").rstrip("\n").split("\n\n")]
    sentences = [line for text in documents for line in text.split("\n")]
    assert all(line and line == line.strip() for line in sentences)
    assert len(documents) >= 700 and len(sentences) >= 4000
    assert len(set(sentences)) >= 0.7 * len(sentences)
    assert 300_000 <= sum((SAMPLE / name).stat().st_size for name in FILES) <= 500_000


def test_no_template_mark_is_left_in_any_file():
    for name in NAMES:
        text = (SAMPLE / name).read_text(encoding="utf-8").replace("[단독]", "")
        assert not re.search(r"[{}<>\[\]@|]", text), name


def test_task_has_the_layout_of_nsmc():
    train, test = (_rows(name) for name in TASK)
    assert (len(train), len(test)) == (2400, 600)
    for rows in (train, test):
        assert {len(row) for row in rows} == {3}
        assert collections.Counter(row[2] for row in rows) == {"0": len(rows) // 2, "1": len(rows) // 2}
    assert len({row[0] for row in train + test}) == 3000


def test_task_holds_the_traps_and_no_test_document_in_train_or_corpus():
    train, test = ([row[1] for row in _rows(name)] for name in TASK)
    assert train.count("") == 2 and test.count("") == 2
    assert any(text.startswith('"""') for text in train) and any("😀" in text for text in train)
    assert any(text.count('"') % 2 for text in train) and any(text != text.strip() for text in train)
    corpus = {line for name in FILES for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()}
    assert set(test) - {""} and not (set(test) - {""}) & (set(train) | corpus)


def test_no_single_word_decides_the_task():
    """The best rule of the form 'label 1 if the word occurs' stays near chance: labels depend on how words are put together."""
    rows = _rows(TASK[0])
    with_word, positive = collections.Counter(), collections.Counter()
    for _, document, label in rows:
        for word in set(document.split()):
            with_word[word] += 1
            positive[word] += label == "1"
    half = len(rows) / 2
    best = max(max(positive[w] + half - (with_word[w] - positive[w]), half - positive[w] + with_word[w] - positive[w]) for w in with_word)
    assert best / len(rows) < 0.6


@pytest.fixture(scope="module")
def tasks():
    """name -> the task on the sample data."""
    values = {"raw_data_dir": str(SAMPLE), "task_names": [task.name for task in BENCHMARK]}
    return {task.name: task for task in get_tasks(FinetuningConfig.create("none", "none", values))}


def _splits(task) -> dict[str, list]:
    """File by file, nothing of train held out."""
    return {split: task.read_examples(task.path(split)) for split in task.files}


def test_the_other_tasks_are_read_as_the_benchmark_and_have_the_promised_rows(tasks):
    for name, files in TASKS.items():
        assert tasks[name].files == dict(zip(tasks[name].files, files, strict=True)), name
        assert [len(examples) for examples in _splits(tasks[name]).values()] == list(files.values()), name
    assert sum((SAMPLE / task / file).stat().st_size for task, files in TASKS.items() for file in files) < 500_000


def test_every_label_is_frequent_in_every_file(tasks):
    for name in ("question-pair", "hate-speech", "kornli"):
        for examples in _splits(tasks[name]).values():
            shares = {label: sum(example.label == label for example in examples) / len(examples) for label in tasks[name].labels}
            assert min(shares.values()) > 0.5 / len(shares), (name, shares)
    for examples in _splits(tasks["korsts"]).values():
        scores = [example.score for example in examples]
        assert min(scores) == 0 and max(scores) == 5 and 2 < sum(scores) / len(scores) < 3
    for examples in _splits(tasks["naver-ner"]).values():
        begun = collections.Counter(tag for example in examples for tag in example.tags if tag.endswith("-B"))
        assert set(begun) == {f"{kind}-B" for kind in ("PER", "ORG", "LOC", "DAT", "TIM", "NUM", "EVT", "CVL", "ANM")}
        assert min(begun.values()) >= 10


def test_a_name_goes_on_only_after_it_began(tasks):
    for examples in _splits(tasks["naver-ner"]).values():
        for example in examples:
            for before, tag in zip(("O", *example.tags), example.tags, strict=False):
                assert not tag.endswith("-I") or before[:3] == tag[:3], example


def test_no_text_is_in_two_splits_or_in_the_corpus(tasks):
    corpus = {line for name in FILES for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()}
    for name in TASKS:
        texts = [{frozenset((example.text_a, example.text_b)) for example in examples} for examples in _splits(tasks[name]).values()]
        assert len(set().union(*texts)) == sum(TASKS[name].values()), f"{name}: two rows have the same text"
        assert not corpus & set().union(*set().union(*texts))


def test_hate_speech_titles_keep_quotes_and_no_group_is_a_target():
    for file in TASKS["hate-speech"]:
        rows = [line.split("\t") for line in (SAMPLE / "hate-speech" / file).read_text(encoding="utf-8").splitlines()[1:]]
        assert {row[2] for row in rows} == {"none", "others"}
        assert 0.7 < sum(row[0].startswith('"') for row in rows) / len(rows) < 0.9


@pytest.mark.parametrize(
    "noun, particle, expected",
    [
        *[("책", "은", "책은"), ("영화", "은", "영화는"), ("집", "이", "집이"), ("친구", "이", "친구가"), ("빵", "을", "빵을")],
        *[("노래", "을", "노래를"), ("형", "과", "형과"), ("언니", "과", "언니와"), ("서울", "으로", "서울로"), ("산", "으로", "산으로")],
        *[("바다", "으로", "바다로"), ("책", "이에요", "책이에요"), ("보리", "이에요", "보리예요"), ("의사", "이었다", "의사였다")],
        *[("봄", "이었다", "봄이었다"), ("최고", "이라서", "최고라서"), ("학교", "에서", "학교에서"), ("콩이", "이", "콩이가")],
    ],
)
def test_particles_follow_the_final_consonant(grammar, noun, particle, expected):
    assert f"{grammar.Noun(noun):{particle}}" == expected


ENDINGS = ("어요", "었다", "으면", "는데", "습니다", "는다", "을까", "네", "음")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("가다/v", "가요 갔다 가면 가는데 갑니다 간다 갈까 가네 감"),
        ("먹다/v", "먹어요 먹었다 먹으면 먹는데 먹습니다 먹는다 먹을까 먹네 먹음"),
        ("보다/v", "봐요 봤다 보면 보는데 봅니다 본다 볼까 보네 봄"),
        ("마시다/v", "마셔요 마셨다 마시면 마시는데 마십니다 마신다 마실까 마시네 마심"),
        ("쉬다/v", "쉬어요 쉬었다 쉬면 쉬는데 쉽니다 쉰다 쉴까 쉬네 쉼"),
        ("만들다/v", "만들어요 만들었다 만들면 만드는데 만듭니다 만든다 만들까 만드네 만듦"),
        ("듣다/v", "들어요 들었다 들으면 듣는데 듣습니다 듣는다 들을까 듣네 들음"),
        ("낫다/v", "나아요 나았다 나으면 낫는데 낫습니다 낫는다 나을까 낫네 나음"),
        ("모르다/v", "몰라요 몰랐다 모르면 모르는데 모릅니다 모른다 모를까 모르네 모름"),
        ("덥다/a", "더워요 더웠다 더우면 더운데 덥습니다 덥다 더울까 덥네 더움"),
        ("좁다/a", "좁아요 좁았다 좁으면 좁은데 좁습니다 좁다 좁을까 좁네 좁음"),
        ("바쁘다/a", "바빠요 바빴다 바쁘면 바쁜데 바쁩니다 바쁘다 바쁠까 바쁘네 바쁨"),
        ("크다/a", "커요 컸다 크면 큰데 큽니다 크다 클까 크네 큼"),
        ("길다/a", "길어요 길었다 길면 긴데 깁니다 길다 길까 기네 긺"),
        ("재미있다/a", "재미있어요 재미있었다 재미있으면 재미있는데 재미있습니다 재미있다 재미있을까 재미있네 재미있음"),
        ("조용하다/a", "조용해요 조용했다 조용하면 조용한데 조용합니다 조용하다 조용할까 조용하네 조용함"),
        ("감동적이다/c", "감동적이에요 감동적이었다 감동적이면 감동적인데 감동적입니다 감동적이다 감동적일까 감동적이네 감동적임"),
        ("최고이다/c", "최고예요 최고였다 최고면 최고인데 최고입니다 최고다 최고일까 최고네 최고임"),
    ],
)
def test_predicates_conjugate_by_class(grammar, text, expected):
    assert " ".join(f"{grammar.word(text):{ending}}" for ending in ENDINGS) == expected


def test_negation_is_a_predicate_of_its_own(grammar):
    assert f"{grammar.word('지루하다/a').negated():었어요}" == "지루하지 않았어요"
    assert f"{grammar.word('늘어지다/v').negated():는다}" == "늘어지지 않는다"


@pytest.mark.parametrize(
    "register, expected",
    [
        *[("polite", "저는 떡을 먹었어요."), ("formal", "저는 떡을 먹었습니다."), ("casual", "나는 떡을 먹었어.")],
        *[("plain", "나는 떡을 먹었다."), ("nominal", "나는 떡을 먹었음.")],
    ],
)
def test_one_template_speaks_in_every_register(grammar, register, expected):
    words = {"food": grammar.Noun("떡")}
    assert grammar.render("[나|저]는 {food:을} {먹다/v:었@}.", words, register, rng=None) == expected


def test_every_noun_of_the_scenes_meets_only_its_own_particles(grammar):
    """Looks for the wrong twin of each particle behind each noun of the scenes, in all that was written."""
    scenes = importlib.import_module("passages").PASSAGES + importlib.import_module("dialogues").SCENES
    nouns = {part.strip() for scene in scenes for options in scene.slots.values() for part in re.split("[,=]", options) if "/" not in part}
    text = "\n".join((SAMPLE / name).read_text(encoding="utf-8") for name in FILES)
    for noun in nouns:
        wrong = "은|이|을|과" if grammar.attach(noun, "은").endswith("는") else "는|가|를|와"
        assert not re.search(rf"(?<![가-힣]){noun}({wrong})(?=[ .,?!\n])", text), noun
