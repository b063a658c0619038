import collections
import dataclasses
import gzip
import hashlib
import json
import os
import random

import pytest
from absl import logging

from model.command import DataError, UserError
from model.tokenization import SPECIAL_TOKENS, FullTokenizer
from pretrain import vocab_builder
from pretrain.vocab_builder import VocabConfig, WordCounter, build, is_held_back, measure
from tests.kills import Killed

SUBJECTS = "영화가 배우는 감독의 이야기를 음악이 장면도 결말은 친구와 주인공이 대사를".split()
ADVERBS = "정말 너무 아주 조금 별로 진짜 다시 오늘 어제 같이".split()
VERBS = "재미있어요 좋았다. 지루합니다! 봤습니다 슬펐어요ㅠㅠ 웃겼다ㅋㅋ 감동적이네요 추천합니다~ 아쉽다 대단했다".split()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = random.Random(5)
    lines = [f"{rng.choice(SUBJECTS)} {rng.choice(ADVERBS)} {rng.choice(VERBS)} {rng.randrange(100)}" for _ in range(3000)]
    path = tmp_path_factory.mktemp("corpus") / "reviews.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def _config(text, folder, **settings):
    return VocabConfig(**{"corpus": str(text), "output_dir": str(folder / "vocab"), "vocab_size": 300, "unused_size": 10} | settings)


def _rows(config):
    with open(f"{config.output_dir}/vocab.txt", encoding="utf-8") as file:
        return file.read().split("\n")[:-1]


def _outputs(config):
    names = ["vocab.txt", "vocab.json"] + (["vocab.model"] if config.has_model else [])
    contents = []
    for name in names:
        with open(f"{config.output_dir}/{name}", "rb") as file:
            contents.append(file.read())
    return contents


@pytest.mark.parametrize(
    ("algorithm", "tokenizer_type", "size"),
    [
        ("wordpiece", None, 250),
        ("morpheme_frequency", None, 250),
        ("sentencepiece_unigram", None, 110),
        ("sentencepiece_bpe", None, 250),
        ("sentencepiece_unigram", "mecab_wordpiece", 200),
        ("sentencepiece_bpe", "mecab_wordpiece", 220),
        ("sentencepiece_bpe", "wordpiece", 250),
    ],
)
def test_layout_size_and_report(corpus, tmp_path, algorithm, tokenizer_type, size):
    config = _config(corpus, tmp_path, algorithm=algorithm, tokenizer_type=tokenizer_type, vocab_size=size)
    report = build(config)
    rows = _rows(config)
    assert rows[:15] == [*SPECIAL_TOKENS, *(f"[unused{index}]" for index in range(10))]
    assert len(rows) == len(set(rows)) == size
    with open(f"{config.output_dir}/vocab.json", encoding="utf-8") as file:
        assert json.load(file) == report
    tokenizer = FullTokenizer(f"{config.output_dir}/vocab.txt", tokenizer_type=config.resolved_tokenizer_type)
    assert report["tokenizer"] == tokenizer.provenance()
    assert report["vocab_txt_sha256"] == hashlib.sha256(("\n".join(rows) + "\n").encode()).hexdigest()
    assert report["corpus"][0]["file"] == "reviews.txt" and report["lines"] == 3000
    assert 0 < report["held_back"]["lines"] < 100
    assert report["held_back"]["eojeols"] == 4 * report["held_back"]["lines"]
    assert report["held_back"]["unk_rate_of_eojeols"] == 0
    assert 1 < report["held_back"]["pieces_per_eojeol"] < 4


@pytest.mark.parametrize(
    ("algorithm", "tokenizer_type"),
    [(algorithm, None) for algorithm in vocab_builder.ALGORITHMS]
    + [("sentencepiece_unigram", "mecab_wordpiece"), ("sentencepiece_bpe", "mecab_wordpiece")],
)
def test_bytes_are_the_same_in_every_run_and_for_any_number_of_processes(corpus, tmp_path, monkeypatch, algorithm, tokenizer_type):
    monkeypatch.setattr(vocab_builder, "CHUNK_LINES", 700)
    outputs = []
    for run, num_processes in enumerate((1, 2, 2)):
        settings = {"algorithm": algorithm, "tokenizer_type": tokenizer_type, "num_processes": num_processes}
        config = _config(corpus, tmp_path / str(run), vocab_size=150, **settings)
        build(config)
        outputs.append(_outputs(config))
    assert outputs[0] == outputs[1] == outputs[2]


@pytest.mark.parametrize("algorithm", ["wordpiece", "morpheme_frequency", "sentencepiece_bpe"])
@pytest.mark.parametrize("size", [30, 120, 200, 280])
def test_exactly_as_many_entries_as_asked_for(corpus, tmp_path, algorithm, size):
    config = _config(corpus, tmp_path, algorithm=algorithm, tokenizer_type="mecab_wordpiece", vocab_size=size)
    report = build(config)
    assert len(_rows(config)) == size
    assert size == 30 or report["held_back"]["unk_rate_of_eojeols"] == 0


def test_every_word_of_the_corpus_can_be_spelled(corpus, tmp_path):
    config = _config(corpus, tmp_path, min_frequency=1)
    build(config)
    for tokenizer_type in ("mecab_wordpiece", "wordpiece"):
        tokenizer = FullTokenizer(f"{config.output_dir}/vocab.txt", tokenizer_type=tokenizer_type)
        with open(corpus, encoding="utf-8") as file:
            assert tokenizer.unk_id not in tokenizer.encode(file.read())


def test_marked_morphemes_become_pieces(corpus, tmp_path):
    config = _config(corpus, tmp_path)
    build(config)
    assert {"영화", "##가", "추천", "##합니다", "~", "."} <= set(_rows(config))
    assert not {"영화가", "추천합니다"} & set(_rows(config))


@pytest.mark.parametrize("algorithm", ["sentencepiece_unigram", "sentencepiece_bpe"])
def test_sentencepiece_chooses_among_marked_morphemes(corpus, tmp_path, algorithm):
    config = _config(corpus, tmp_path, algorithm=algorithm, tokenizer_type="mecab_wordpiece")
    report = build(config)
    assert {"영화", "##가", "추천", "##합니다", "~", "."} <= set(_rows(config))
    assert not {"영화가", "추천합니다"} & set(_rows(config))
    assert not (tmp_path / "vocab" / "vocab.model").exists() and set(report["libraries"]) == {"sentencepiece"}
    assert FullTokenizer(f"{config.output_dir}/vocab.txt").tokenize("추천합니다.") == ["추천", "##합니다", "."]


def test_plain_wordpiece_knows_no_morphemes(corpus, tmp_path):
    config = _config(corpus, tmp_path, tokenizer_type="wordpiece")
    assert build(config)["tokenizer"]["analyzer"] == "none"
    assert {"영화가", "추천합니다"} <= set(_rows(config))


def test_a_small_corpus_gives_what_there_is_and_a_warning(corpus, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda text, *arguments: warnings.append(text % arguments))
    config = _config(corpus, tmp_path, vocab_size=9000)
    build(config)
    assert 100 < len(_rows(config)) < 9000
    assert f"only {len(_rows(config))} of 9000 entries" in warnings[0]


def test_lower_case_and_accents_go_into_the_vocabulary(tmp_path):
    (tmp_path / "text").write_text("École École école 한국 한국 한국\n" * 3 + "다른 줄\n")
    config = _config(tmp_path / "text", tmp_path, do_lower_case=True, strip_accents=True, algorithm="morpheme_frequency", vocab_size=50)
    report = build(config)
    assert {"ecole", "한국"} <= set(_rows(config)) and "É" not in "".join(_rows(config))
    assert report["tokenizer"]["do_lower_case"] and report["tokenizer"]["strip_accents"]


def test_held_back_lines_are_not_trained_on():
    lines = [f"줄{number}번" for number in range(2000)]
    kept_out = [line for line in lines if is_held_back(line)]
    counts = WordCounter(False, False, "none").count(lines)
    assert 5 < len(kept_out) < 40
    assert counts.lines == 2000 and counts.held_back_lines == len(kept_out)
    assert counts.held_back == collections.Counter(kept_out)
    assert not set(kept_out) & set(counts.words) and len(counts.words) == 2000 - len(kept_out)


def test_count_by_hand():
    counts = WordCounter(False, False, "mecab").count(["심각합니다.", "심각합니다. 영화", "▁심각▁"])
    assert counts.words == {"심각": 3, "##합니다": 2, ".": 2, "영화": 1}


def test_measure_by_hand(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS, "가", "##나"]))
    tokenizer = FullTokenizer(str(path), tokenizer_type="wordpiece")
    # 가나 twice: 4 pieces; 다.가 once: [UNK] [UNK] 가.
    found = measure(tokenizer, collections.Counter({"가나": 2, "다.가": 1}))
    assert found == {"eojeols": 3, "pieces_per_eojeol": 2.3333, "unk_rate_of_pieces": 0.285714, "unk_rate_of_eojeols": 0.333333}
    assert measure(tokenizer, collections.Counter())["pieces_per_eojeol"] is None


def test_folders_and_gz(tmp_path):
    folder = tmp_path / "texts" / "more"
    folder.mkdir(parents=True)
    with gzip.open(folder / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write("가나다라 마바사\n" * 5)
    (tmp_path / "texts" / "a.txt").write_text("아자차카\n" * 5)
    config = _config(tmp_path / "texts", tmp_path, tokenizer_type="wordpiece", vocab_size=60)
    report = build(config)
    assert [entry["file"] for entry in report["corpus"]] == ["a.txt", "b.txt.gz"]
    assert {"가나다라", "아자차카"} <= set(_rows(config))


# ---- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 15}, r"vocab_size 15 leaves no room for pieces: 5 special and 10 unused.*--vocab_size, --unused_size"),
        ({"corpus": ""}, "--corpus is required"),
        ({"output_dir": ""}, "--output_dir is required"),
        ({"output_dir": "gs://bucket/x"}, "'gs://bucket/x' is not a folder of this machine"),
        ({"min_frequency": 0}, "min_frequency must be at least 1, got 0"),
        ({"num_processes": 0}, "num_processes must be at least 1, got 0"),
        ({"unused_size": -1}, "unused_size must be at least 0, got -1"),
        ({"tokenizer_type": "sentencepiece"}, "'sentencepiece' does not go with algorithm 'wordpiece'"),
        ({"corpus": "nowhere/at/all.txt"}, "nowhere/at/all.txt.*--corpus"),
        ({"analyzer": "twitter"}, "unknown analyzer 'twitter'"),
    ],
)
def test_bad_settings(corpus, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        build(_config(corpus, tmp_path, **settings))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("algorithm", ["wordpiece", "sentencepiece_bpe"])
@pytest.mark.parametrize("text", ["", "\n\n \n", "\u200b\n"])
def test_empty_corpus(tmp_path, algorithm, text):
    (tmp_path / "empty.txt").write_text(text)
    with pytest.raises(UserError, match="no text to learn from in 1 file.*empty.txt.*--corpus"):
        build(_config(tmp_path / "empty.txt", tmp_path, algorithm=algorithm))
    assert not (tmp_path / "vocab").exists()


def test_wrong_encoding(tmp_path):
    (tmp_path / "old.txt").write_bytes("첫 줄\n".encode() + "둘째".encode("cp949"))
    with pytest.raises(DataError, match="old.txt, line 2, byte 8"):
        build(_config(tmp_path / "old.txt", tmp_path))
    assert not (tmp_path / "vocab").exists()


def test_an_existing_vocabulary_is_kept(corpus, tmp_path):
    config = _config(corpus, tmp_path, vocab_size=100)
    build(config)
    before = _outputs(config)
    with pytest.raises(UserError, match="holds vocab.txt and vocab.json already.*--overwrite"):
        build(_config(corpus, tmp_path, vocab_size=110))
    assert _outputs(config) == before
    build(_config(corpus, tmp_path, vocab_size=110, overwrite=True))
    assert len(_rows(config)) == 110


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_build_killed_at_any_change_of_the_file_system_is_completed(corpus, tmp_path, monkeypatch, killed_after, overwrite):
    whole = _config(corpus, tmp_path / "whole", vocab_size=100)
    build(whole)
    for changes in range(20):
        config = _config(corpus, tmp_path / str(changes), vocab_size=100, overwrite=overwrite)
        if overwrite:
            build(dataclasses.replace(config, vocab_size=90))
        killed_after(changes)
        try:
            build(config)
            break
        except Killed:
            monkeypatch.undo()
        try:
            build(config)
        except UserError as error:  # killed when there was nothing left to do but to remove the lock
            assert "holds vocab.txt and vocab.json already" in str(error) and changes == 8
            os.unlink(tmp_path / str(changes) / "vocab" / ".vocab.lock")
        assert _outputs(config) == _outputs(whole)
        assert sorted(os.listdir(config.output_dir)) == ["vocab.json", "vocab.txt"]
    assert changes == 9


def test_a_vocabulary_that_another_process_has_finished_in_the_meantime_is_kept(corpus, tmp_path, monkeypatch):
    config, describe = _config(corpus, tmp_path, vocab_size=100), vocab_builder._describe

    def slow(*arguments):
        monkeypatch.setattr(vocab_builder, "_describe", describe)
        build(_config(corpus, tmp_path, vocab_size=110))
        return describe(*arguments)

    monkeypatch.setattr(vocab_builder, "_describe", slow)
    with pytest.raises(UserError, match="holds vocab.txt and vocab.json already"):
        build(config)
    assert len(_rows(config)) == 110
