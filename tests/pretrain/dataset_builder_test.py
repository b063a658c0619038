import collections
import dataclasses
import gzip
import hashlib
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from model.command import DataError, UserError
from pretrain import build_folder, dataset_builder, text_files, units
from pretrain.dataset_builder import DatasetConfig, ExampleBuilder, Worker, build
from pretrain.draws import Draws

CLS, SEP = 2, 3
LINES = 1200  # of the corpus that `setting` builds


class Forced:
    """Random numbers that a test or the original chose; anything left over or missing is an error."""

    def __init__(self, uniforms, integers=()):
        self._uniforms = list(uniforms)
        self._integers = list(integers)
        self.ranges = []

    def uniform(self):
        return self._uniforms.pop(0)

    def integer(self, low, high):
        self.ranges.append((low, high))
        return self._integers.pop(0)

    def used_up(self):
        return not self._uniforms and not self._integers


def examples_of(builder, documents):
    made = []
    for document in documents:
        for sentence in document:
            made += builder.add_line(list(sentence))
        made += builder.end_document()
    return made


# ---- ExampleBuilder


@pytest.mark.parametrize("number", range(12))
def test_original_examples_draw_for_draw(golden, number):
    case = json.loads((golden / "examples" / "examples.json").read_text())[number]
    draws = Forced(case["uniforms"], case["integers"])
    builder = ExampleBuilder(case["max_length"], CLS, SEP, draws)
    made = []
    for line in [*case["lines"], ""]:
        made += builder.add_line([int(word) for word in line.split()]) if line else builder.end_document()
    assert [example.features(case["max_length"]) for example in made] == case["examples"]
    assert draws.used_up()
    assert set(draws.ranges) <= {(5, case["max_length"])}


def test_one_segment_in_a_tenth_of_the_examples():
    document = [[[10] * 3, [11] * 3, [12] * 3]]
    (single,) = examples_of(ExampleBuilder(16, CLS, SEP, Forced([0.09, 0.5])), document)
    assert single == ([CLS] + [10] * 3 + [11] * 3 + [12] * 3 + [SEP], 11)
    # The first segment's target is (16 - 3) // 2 = 6, which the second sentence would reach: 3 + 3 < 6 is false.
    (pair,) = examples_of(ExampleBuilder(16, CLS, SEP, Forced([0.1, 0.5, 0.5])), document)
    assert pair == ([CLS] + [10] * 3 + [SEP] + [11] * 3 + [12] * 3 + [SEP], 5)


def test_overflowing_sentence_joins_the_first_segment_half_of_the_time():
    document = [[[10] * 3, [11] * 3, [12] * 3]]
    (joined,) = examples_of(ExampleBuilder(16, CLS, SEP, Forced([0.1, 0.49, 0.5])), document)
    assert joined == ([CLS] + [10] * 3 + [11] * 3 + [SEP] + [12] * 3 + [SEP], 8)


def test_short_target_is_drawn_when_an_example_closes_and_holds_for_the_next_one():
    """Kept from the original; the draw is randint(5, max_length)."""
    draws = Forced([0.5, 0.04, 0.5, 0.9], [5])
    builder = ExampleBuilder(8, CLS, SEP, draws)
    assert builder.add_line([10] * 4) == []
    assert len(builder.add_line([10] * 4)) == 1
    assert len(builder.add_line([11] * 5)) == 1  # 5 tokens are enough now
    assert builder.add_line([12] * 5) == []
    assert draws.used_up() and draws.ranges == [(5, 8)]


def test_tokens_beyond_the_length_are_discarded_and_counted():
    builder = ExampleBuilder(8, CLS, SEP, Forced([0.5, 0.5, 0.5]))
    (example,) = builder.add_line(list(range(10, 30)))
    assert example == ([CLS, 10, 11, 12, 13, 14, 15, SEP], 8)
    assert builder.discarded_tokens == 14
    assert builder.end_document() == []


def test_carry_opens_the_next_example_with_them():
    builder = ExampleBuilder(8, CLS, SEP, Draws(1), carry=True)
    made = builder.add_line(list(range(10, 30)))
    made += builder.end_document()
    assert [example.ids for example in made] == [
        [CLS, *range(10, 16), SEP],
        [CLS, *range(16, 22), SEP],
        [CLS, *range(22, 28), SEP],
        [CLS, 28, 29, SEP],
    ]
    assert builder.discarded_tokens == 0


def test_lines_without_tokens_change_nothing():
    builder = ExampleBuilder(8, CLS, SEP, Forced([]))
    assert builder.add_line([]) == builder.end_document() == []


documents_of_ids = st.lists(st.lists(st.lists(st.integers(5, 99), max_size=30), max_size=8), max_size=6)


@given(documents_of_ids, st.integers(5, 40), st.integers(0, 1000), st.booleans())
@settings(max_examples=150, deadline=None)
def test_properties_of_every_example(documents, max_length, seed, carry):
    builder = ExampleBuilder(max_length, CLS, SEP, Draws(seed), carry)
    kept = collections.Counter()
    for example in examples_of(builder, documents):
        ids, second = example
        features = example.features(max_length)
        assert {len(values) for values in features.values()} == {max_length} and len(ids) <= max_length
        assert ids[0] == CLS and ids[-1] == SEP and ids[second - 1] == SEP
        assert ids.count(CLS) == 1 and ids.count(SEP) == (1 if second == len(ids) else 2)
        assert features["input_ids"] == ids + [0] * (max_length - len(ids))
        assert features["input_mask"] == [1] * len(ids) + [0] * (max_length - len(ids))
        assert features["segment_ids"] == [int(second <= i < len(ids)) for i in range(max_length)]
        kept.update(token for token in ids if token > SEP)
    given_tokens = collections.Counter(token for document in documents for sentence in document for token in sentence)
    assert not kept - given_tokens
    assert (given_tokens - kept).total() == builder.discarded_tokens
    assert not carry or kept == given_tokens


def test_no_example_spans_two_documents():
    documents = [[[number] * 3] * 5 for number in range(10, 60)]
    for carry in (False, True):
        for example in examples_of(ExampleBuilder(32, CLS, SEP, Draws(3), carry), documents):
            assert len(set(example.ids) - {CLS, SEP}) == 1


def test_frequencies_of_the_random_choices():
    """10 % single segments; 5 % short targets, even from 5 to 64; every sentence is one token, so pairs split at the target."""
    builder = ExampleBuilder(64, CLS, SEP, Draws(0))
    made = [example for _ in range(64 * 3000) for example in builder.add_line([10])]
    singles = sum(example.second == len(example.ids) for example in made)
    short = sum(len(example.ids) < 62 for example in made)
    count = len(made)
    assert abs(singles - 0.1 * count) < 5 * np.sqrt(0.09 * count)
    assert abs(short - 0.05 * count) < 5 * np.sqrt(0.05 * count)


# ---- build, in this process


@pytest.fixture
def setting(tmp_path, monkeypatch) -> DatasetConfig:
    """A corpus of some 40 small units and a configuration to build it."""
    monkeypatch.setattr(units, "UNIT_BYTES", 1500)
    monkeypatch.setattr(units, "BLOCK_BYTES", 300)
    return DatasetConfig(
        corpus_dir=str(make_corpus(tmp_path / "corpus")),
        vocab_file=str(make_vocab(tmp_path / "vocab.txt")),
        output_dir=str(tmp_path / "out"),
        max_seq_length=32,
        num_out_files=5,
        tokenizer_type="wordpiece",
        analyzer="none",
        eval_fraction=0.1,
    )


def make_vocab(path: pathlib.Path) -> pathlib.Path:
    words = [f"word{number}" for number in range(300)]
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, "한국어", "##를"]) + "\n")
    return path


def make_corpus(folder: pathlib.Path, lines: int = LINES) -> pathlib.Path:
    """Two files, one of them packed: documents of one to twelve lines, with a few unknown words."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    text = []
    for _ in range(lines):
        words = [f"word{number}" for number in generator.integers(0, 303, generator.integers(1, 14))]
        text += [" ".join([*words, "한국어를"]), *[""] * (generator.random() < 0.15)]
    (folder / "a.txt").write_text("\n".join(text[: lines // 2]))
    (folder / "b.txt.gz").write_bytes(gzip.compress("\n".join(text[lines // 2 :]).encode()))
    return folder


def contents(folder: str | pathlib.Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(pathlib.Path(folder).rglob("*"))
        if path.is_file()
    }


def records(folder: str, pattern: str, length: int) -> np.ndarray:
    """Features of all records, int64 [records, 3, length], through tf.data."""
    names = ("input_ids", "input_mask", "segment_ids")
    spec = {name: tf.io.FixedLenFeature([length], tf.int64) for name in names}
    files = tf.data.Dataset.list_files(f"{folder}/{pattern}", shuffle=False)
    parsed = tf.data.TFRecordDataset(files).map(lambda record: tf.io.parse_single_example(record, spec))
    return np.array([[example[name] for name in names] for example in parsed.as_numpy_iterator()])


def test_manifest_tells_what_was_built(setting):
    manifest = build(setting)
    assert manifest == json.loads(pathlib.Path(setting.output_dir, "manifest.json").read_text())
    assert sorted(contents(setting.output_dir)) == [
        "eval_data.tfrecord-00000-of-00001",
        "manifest.json",
        *(f"pretrain_data.tfrecord-{shard:05d}-of-00005" for shard in range(5)),
    ]
    for kind in ("train", "eval"):
        for shard in manifest[kind]["shards"]:
            data = pathlib.Path(setting.output_dir, shard["file"]).read_bytes()
            assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    train = records(setting.output_dir, "pretrain_data*", 32)
    held_out = records(setting.output_dir, "eval_data*", 32)
    assert len(train) == manifest["train"]["examples"] == sum(shard["records"] for shard in manifest["train"]["shards"])
    assert len(held_out) == manifest["eval"]["examples"] == manifest["eval"]["shards"][0]["records"]
    assert 0.05 < len(held_out) / len(train) < 0.2

    counts = manifest["counts"]
    documents = [doc for file in text_files.expand_files([setting.corpus_dir]) for doc in units.read_documents(file, True)]
    words = [word for document in documents for line in document for word in line.split()]
    assert counts["documents"] == len(documents) and counts["lines"] == LINES
    assert counts["tokens"] == len(words) + LINES  # 한국어를 is two pieces
    assert counts["unk_tokens"] == sum(word in ("word300", "word301", "word302") for word in words)
    kept = sum((part[:, 0] > 4).sum() + (part[:, 0] == 1).sum() for part in (train, held_out))
    assert counts["discarded_tokens"] == counts["tokens"] - kept > 0
    assert counts["pieces_per_line"] == pytest.approx(counts["tokens"] / LINES, abs=1e-4)
    assert manifest["max_seq_length"] == 32 and manifest["tokenizer"]["vocab_size"] == 307
    assert [entry["file"] for entry in manifest["corpus"]] == ["a.txt", "b.txt.gz"]


def test_carry_loses_no_token(setting):
    counts = build(dataclasses.replace(setting, overflow="carry"))["counts"]
    ids = np.concatenate([records(setting.output_dir, pattern, 32)[:, 0] for pattern in ("pretrain*", "eval*")])
    assert counts["discarded_tokens"] == 0 and (ids == 1).sum() + (ids > 4).sum() == counts["tokens"]


def test_shards_are_balanced_and_shuffled(setting):
    build(dataclasses.replace(setting, eval_fraction=0, num_out_files=2))
    shards = [records(setting.output_dir, f"pretrain_data.tfrecord-0000{shard}-*", 32)[:, 0] for shard in range(2)]
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    place = {}  # first three words of an example -> its place in the unshuffled corpus
    corpus = units.read_units(text_files.expand_files([setting.corpus_dir]), True, 0, 42)
    lines = [line for unit in corpus for line in unit.parts[0][1]]
    vocabulary = {word: row for row, word in enumerate(pathlib.Path(setting.vocab_file).read_text().split())}
    for number, line in enumerate(lines):
        place[tuple(vocabulary.get(word, 1) for word in line.split()[:3])] = number
    for shard in shards:
        places = [place[key] for key in (tuple(ids[1:4].tolist()) for ids in shard) if key in place]
        assert len(places) > 100
        assert abs(np.corrcoef(places, range(len(places)))[0, 1]) < 0.25
        assert abs(np.mean(places) / len(lines) - 0.5) < 0.1


def test_groups_of_units_go_on_dealing_where_the_last_one_stopped(setting, monkeypatch):
    whole = build(setting)
    monkeypatch.setattr(dataset_builder, "UNITS_SHUFFLED_AT_ONCE", 3)
    parts = build(dataclasses.replace(setting, output_dir=setting.output_dir + "2"))
    sizes = [shard["records"] for shard in parts["train"]["shards"]]
    assert sizes == [shard["records"] for shard in whole["train"]["shards"]] and max(sizes) - min(sizes) <= 1
    rows = [records(folder, "pretrain*", 32).reshape(-1, 96).tolist() for folder in (setting.output_dir, setting.output_dir + "2")]
    assert rows[0] != rows[1] and sorted(rows[0]) == sorted(rows[1])


def test_never_an_empty_shard(setting, caplog):
    """Unlike the original, which always wrote 1000."""
    small = pathlib.Path(setting.corpus_dir, "small.txt")
    small.write_text("word1 word2\n\nword3\n\nword4 word5\n")
    manifest = build(dataclasses.replace(setting, corpus_dir=str(small), eval_fraction=0, num_out_files=1000))
    assert [shard["records"] for shard in manifest["train"]["shards"]] == [1, 1, 1]
    assert "3 train examples make 3 shards, not 1000" in caplog.text
    assert manifest["eval"] == {"examples": 0, "shards": []}


def test_too_small_to_hold_anything_out_is_said(setting, caplog):
    small = pathlib.Path(setting.corpus_dir, "small.txt")
    small.write_text("word1 word2\n\nword3\n")
    assert build(dataclasses.replace(setting, corpus_dir=str(small), eval_fraction=1e-9))["eval"]["shards"] == []
    assert "nothing is held out" in caplog.text


def test_the_seed_decides_everything(setting):
    other = dataclasses.replace(setting, output_dir=setting.output_dir + "2")
    assert build(setting) == build(other) and contents(setting.output_dir) == contents(other.output_dir)
    third = build(dataclasses.replace(setting, output_dir=setting.output_dir + "3", seed=43))
    assert third["train"]["shards"][0]["sha256"] != build(setting)["train"]["shards"][0]["sha256"]


def test_files_are_documents_without_blanks_separate_docs(setting):
    assert build(dataclasses.replace(setting, blanks_separate_docs=False))["counts"]["documents"] == 2


# ---- build, interrupted and repeated


class Interruption(Exception):
    pass


def interrupt(monkeypatch, method: str, after: int) -> None:
    """Makes the call number `after` of a Worker's method fail half-way."""
    original = getattr(Worker, method)
    calls = iter(range(after + 1))

    def failing(self, task):
        if next(calls) == after:
            raise Interruption
        return original(self, task)

    monkeypatch.setattr(Worker, method, failing)


def count_calls(monkeypatch, method: str) -> list:
    original = getattr(Worker, method)
    calls: list = []
    monkeypatch.setattr(Worker, method, lambda self, task: calls.append(task) or original(self, task))
    return calls


@pytest.mark.parametrize("method, after", [("tokenize", 0), ("tokenize", 7), ("write_shards", 0), ("write_shards", 2)])
def test_resumed_build_is_identical_and_redoes_nothing(setting, monkeypatch, method, after):
    monkeypatch.setattr(dataset_builder, "SHARDS_AT_ONCE", 2)
    expected = dataclasses.replace(setting, output_dir=setting.output_dir + "2")
    build(expected)
    with monkeypatch.context() as patch, pytest.raises(Interruption):
        interrupt(patch, method, after)
        build(setting)
    assert not pathlib.Path(setting.output_dir, "manifest.json").exists()
    tokenized, written = count_calls(monkeypatch, "tokenize"), count_calls(monkeypatch, "write_shards")
    build(setting)
    number = len(list(units.read_units(text_files.expand_files([setting.corpus_dir]), True, 0.1, 42)))
    assert len(tokenized) == (number - after if method == "tokenize" else 0)
    assert sum(len(deal.shards) for deal in written) == 6 - (min(5, 2 * after) if method == "write_shards" else 0)
    assert contents(setting.output_dir) == contents(expected.output_dir)


def test_finished_build_does_nothing(setting, monkeypatch):
    manifest = build(setting)
    before = [(path, path.stat().st_mtime_ns) for path in pathlib.Path(setting.output_dir).iterdir()]
    monkeypatch.setattr(dataset_builder, "_tokenize", None)
    assert build(dataclasses.replace(setting, num_processes=3)) == manifest
    assert [(path, path.stat().st_mtime_ns) for path in pathlib.Path(setting.output_dir).iterdir()] == before


def test_kill_between_manifest_and_cleaning_up(setting, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(build_folder.BuildFolder, "_remove_work", lambda self: None)
        manifest = build(setting)
    assert pathlib.Path(setting.output_dir, "unfinished_build").is_dir()
    assert build(setting) == manifest
    assert not pathlib.Path(setting.output_dir, "unfinished_build").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"max_seq_length": 64}, r"max_seq_length = 32, not 64: change --max_seq_length"),
        ({"seed": 1}, r"seed = 42, not 1: change --seed"),
        ({"do_lower_case": True}, r"do_lower_case = False, not True: change --do_lower_case"),
        ({"overflow": "carry"}, r"overflow = discard, not carry: change --overflow"),
        ({"num_out_files": 6}, r"num_out_files = 5, not 6"),
        ({"tokenizer_type": "mecab_wordpiece"}, r"tokenizer_type = wordpiece, not mecab_wordpiece: change --tokenizer_type"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_parameters_are_refused(setting, monkeypatch, change, message, finished):
    if finished:
        build(setting)
    else:
        with monkeypatch.context() as patch, pytest.raises(Interruption):
            interrupt(patch, "tokenize", 3)
            build(setting)
    before = contents(setting.output_dir)
    with pytest.raises(UserError, match=message):
        build(dataclasses.replace(setting, **change))
    assert contents(setting.output_dir) == before


def test_other_corpus_and_vocabulary_are_refused(setting):
    build(setting)
    with pytest.raises(UserError, match=r"corpus = .*b\.txt\.gz.*, not None: change --corpus_dir"):
        build(dataclasses.replace(setting, corpus_dir=setting.corpus_dir + "/a.txt"))
    with open(setting.vocab_file, "a") as file:
        file.write("more\n")
    with pytest.raises(UserError, match=r"vocab_sha256 = .*: change --vocab_file"):
        build(setting)


def test_text_edited_between_kill_and_resume_is_tokenized_again(setting, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Interruption):
        interrupt(patch, "tokenize", 10)
        build(setting)
    path = pathlib.Path(setting.corpus_dir, "a.txt")
    path.write_text(path.read_text().replace("word1", "word2", 1))
    build(setting)
    expected = dataclasses.replace(setting, output_dir=setting.output_dir + "2")
    build(expected)
    assert contents(setting.output_dir) == contents(expected.output_dir)


def test_damaged_unit_is_named(setting, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Interruption):
        interrupt(patch, "write_shards", 0)
        build(setting)
    unit = sorted(pathlib.Path(setting.output_dir, "unfinished_build").glob("unit-*"))[3]
    unit.write_bytes(unit.read_bytes()[:-500])
    with pytest.raises(DataError, match=rf"{unit.name} is damaged"):
        build(setting)
    unit.unlink()
    with pytest.raises(DataError, match=rf"{unit.name} is damaged"):
        build(setting)


def test_a_second_build_in_the_same_folder_is_refused(setting):
    folder = build_folder.BuildFolder(setting.output_dir, dataset_builder.SHARD)
    assert folder.claim({"seed": 1}, overwrite=False) is None
    with folder.locked():
        with pytest.raises(UserError, match="another build is at work"), folder.locked():
            pass
        with pytest.raises(UserError, match="another build is at work"):
            build(dataclasses.replace(setting, overwrite=True))


# ---- whose folder it is


@pytest.mark.parametrize("foreign", ["notes.txt", "manifest.json", "pretrain_data.tfrecord-00000-of-00005", "unfinished_build/x.txt"])
def test_foreign_folder_is_refused_and_untouched_and_overwrite_leaves_its_files(setting, foreign):
    path = pathlib.Path(setting.output_dir, foreign)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"[1]")
    with pytest.raises(UserError, match="--overwrite"):
        build(setting)
    assert contents(setting.output_dir) == {foreign: hashlib.sha256(b"[1]").hexdigest()}
    build(dataclasses.replace(setting, overwrite=True))
    assert path.exists() and (path.read_bytes() == b"[1]") == (foreign in ("notes.txt", "unfinished_build/x.txt"))


def test_file_in_place_of_the_folder_is_refused(setting):
    pathlib.Path(setting.output_dir).write_text("a file")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="--output_dir"):
            build(dataclasses.replace(setting, overwrite=overwrite))
    assert pathlib.Path(setting.output_dir).read_text() == "a file"


def test_overwrite_removes_only_what_was_written_here(setting, monkeypatch):
    build(setting)
    kept = pathlib.Path(setting.output_dir, "pretrain_data.tfrecord-99999-of-99999")
    kept.write_text("not listed in the manifest")
    build(dataclasses.replace(setting, num_out_files=2, overwrite=True))
    assert sorted(contents(setting.output_dir)) == [
        "eval_data.tfrecord-00000-of-00001",
        "manifest.json",
        "pretrain_data.tfrecord-00000-of-00002",
        "pretrain_data.tfrecord-00001-of-00002",
        kept.name,
    ]


def test_overwrite_removes_an_unfinished_build_and_its_shards(setting, monkeypatch):
    monkeypatch.setattr(dataset_builder, "SHARDS_AT_ONCE", 1)
    with monkeypatch.context() as patch, pytest.raises(Interruption):
        interrupt(patch, "write_shards", 3)
        build(setting)
    assert len(list(pathlib.Path(setting.output_dir).glob("pretrain_data*"))) == 3
    build(dataclasses.replace(setting, num_out_files=1, overwrite=True))
    assert len(contents(setting.output_dir)) == 3


def test_missing_shard_of_a_finished_build_is_named(setting):
    build(setting)
    pathlib.Path(setting.output_dir, "pretrain_data.tfrecord-00002-of-00005").unlink()
    with pytest.raises(UserError, match="pretrain_data.tfrecord-00002-of-00005 is missing"):
        build(setting)


# ---- wrong settings and wrong text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"corpus_dir": ""}, "--corpus_dir is required"),
        ({"vocab_file": ""}, "--vocab_file is required"),
        ({"output_dir": ""}, "--output_dir is required"),
        ({"corpus_dir": "/nowhere"}, "'/nowhere'.*--corpus_dir"),
        ({"vocab_file": "/nowhere/vocab.txt"}, "/nowhere/vocab.txt.*--vocab_file"),
        ({"output_dir": "gs://bucket/data"}, "folder on this machine, got 'gs://bucket/data'"),
        ({"max_seq_length": 4}, "max_seq_length must be from 5 to 65536, got 4"),
        ({"num_out_files": 0}, "num_out_files must be from 1 .* got 0"),
        ({"num_processes": 0}, "num_processes must be from 1 .* got 0"),
        ({"seed": -1}, "seed must be from 0 .* got -1"),
        ({"eval_fraction": 1.0}, "eval_fraction must be from 0 to 0.5, got 1.0"),
        ({"eval_fraction": float("nan")}, "eval_fraction must be from 0 to 0.5, got nan"),
    ],
)
def test_settings_that_make_no_sense(setting, change, message):
    with pytest.raises(UserError, match=message):
        build(dataclasses.replace(setting, **change))
    assert not pathlib.Path(setting.output_dir).exists()


def test_output_inside_the_corpus_is_refused(setting):
    with pytest.raises(UserError, match="lies in --corpus_dir"):
        build(dataclasses.replace(setting, output_dir=setting.corpus_dir + "/out"))


def test_empty_corpus(setting):
    empty = pathlib.Path(setting.corpus_dir, "empty.txt")
    empty.write_text("\n \n\n")
    with pytest.raises(UserError, match="no text in .*empty.txt.*--corpus_dir"):
        build(dataclasses.replace(setting, corpus_dir=str(empty)))
    assert not pathlib.Path(setting.output_dir).exists()


def test_wrong_encoding_in_the_middle(setting):
    path = pathlib.Path(setting.corpus_dir, "c.txt")
    path.write_bytes(b"word1 word2\n" * 5000 + "한국어".encode("cp949"))
    with pytest.raises(DataError, match=r"c\.txt, line 5001, byte 60000: not UTF-8"):
        build(setting)
    assert not pathlib.Path(setting.output_dir, "manifest.json").exists()
