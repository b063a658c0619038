"""Examples as text, and every kind of damage named with its record."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from configure_pretraining import PretrainingConfig
from model.command import DataError, UserError
from model.random import RandomState
from pretrain.dataset_builder import DatasetConfig, build
from pretrain.dataset_inspector import InspectConfig, draw_masks, find_data_set, inspect, read_examples, read_vocabulary
from pretrain.example_printer import printable
from pretrain.example_writer import Example, encode_example, frame_records
from pretrain.pretrain_data import FEATURES, Inputs
from pretrain.pretrain_helpers import mask

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "그", "##는", "심각", "##합니다", ".", "오늘", "밤", "##에", "비", "##가", "와요"]
LENGTH = 16
FIRST, EVAL = "pretrain_data.tfrecord-00000-of-00002", "eval_data.tfrecord-00000-of-00001"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> pathlib.Path:
    """DATA_DIR of a run: vocab.txt, and pretrain_tfrecords/ of two training shards and a held-out one."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "vocab.txt").write_text("\n".join(VOCAB))
    (folder / "corpus.txt").write_text("그는 심각합니다.\n오늘 밤에 비가 와요.\n비가 와요.\n\n" * 40)
    config = DatasetConfig(
        corpus_dir=str(folder / "corpus.txt"),
        vocab_file=str(folder / "vocab.txt"),
        output_dir=str(folder / "pretrain_tfrecords"),
        max_seq_length=LENGTH,
        num_out_files=2,
        tokenizer_type="wordpiece",
        analyzer="none",
        eval_fraction=0.1,
    )
    build(config)
    return folder


@pytest.fixture
def data(built, tmp_path) -> pathlib.Path:
    """A copy to damage."""
    return pathlib.Path(shutil.copytree(built, tmp_path / "data"))


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "64")


def records_of(path: pathlib.Path) -> list[bytes]:
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path))]


def foreign(folder: pathlib.Path, records: list[bytes], name: str = "examples.tfrecord") -> InspectConfig:
    """A set without a manifest, with the vocabulary above it."""
    (folder / "set").mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCAB))
    with tf.io.TFRecordWriter(str(folder / "set" / name)) as writer:
        for record in records:
            writer.write(record)
    return InspectConfig(data=str(folder / "set"), color="never")


def fault_of(config: InspectConfig) -> str:
    with pytest.raises(DataError) as error:
        inspect(dataclasses.replace(config, check=True))
    return str(error.value)


# ---- what is shown


EXPECTED = """\
example 0: record 0 of {folder}/examples.tfrecord, from byte 0
length 14 of 16, padding 2; 5 pieces in A, 6 pieces in B
  A  그는 심각합니다 .
  B  오늘 밤에 [UNK]가 와요
masking: 4 of 11 candidates, 2 as [MASK] and 2 kept
   0 A  [CLS] 그   ##는   심각 ##합니다 . [SEP]
              kept [MASK]      kept
   7 B  오늘 밤     ##에 [UNK] ##가 와요 [SEP]
             [MASK]

summary of up to 20000 examples from each of 1 shard(s): 1 examples
  tokens      14, 14.0 an example; padding 12.5 %
  segments    two in 100.0 % of the examples
  [UNK]       1, 9.091 % of the pieces
  vocabulary  11 of 16 pieces occur
  lengths
        1 to 1     0
        2 to 2     0
        3 to 3     0
        4 to 4     0
        5 to 5     0
        6 to 6     0
        7 to 7     0
        8 to 8     0
        9 to 9     0
       10 to 10    0
       11 to 11    0
       12 to 12    0
       13 to 13    0
       14 to 14    ████████████████████████████████████████ 1
       15 to 15    0
       16 to 16    0
  most frequent pieces, in % of all
    [UNK] 9.09      그 9.09         ##는 9.09
    심각 9.09       ##합니다 9.09   . 9.09
    오늘 9.09       밤 9.09         ##에 9.09
    ##가 9.09       와요 9.09
"""
EXAMPLE = Example([2, 5, 6, 7, 8, 9, 3, 10, 11, 12, 1, 14, 15, 3], 7)


def test_an_example_as_text(tmp_path, capsys):
    config = foreign(tmp_path, [encode_example(EXAMPLE, LENGTH)])
    inspect(dataclasses.replace(config, seed=3, mask_prob=0.3))
    assert capsys.readouterr().out == EXPECTED.format(folder=tmp_path / "set")


@pytest.mark.parametrize("masking", ["unique", "original"])
def test_the_draw_is_that_of_training(built, masking):
    """All examples at once, as a training step masks them."""
    config = InspectConfig(data=str(built), seed=7, mask_prob=0.3, masking=masking)
    data = find_data_set(config)
    vocabulary = read_vocabulary(config, data)
    examples = list(read_examples(data, vocabulary, 0))
    batch = np.stack([example.features for example in examples]).astype(np.int32)
    run = PretrainingConfig.create("", "", {"mask_prob": 0.3, "masking": masking, "max_seq_length": LENGTH})
    inputs = Inputs(*(tf.constant(batch[:, row]) for row in range(len(FEATURES))))
    expected = mask(run, inputs, vocabulary.special, RandomState(7, tf.constant(0, tf.int64), tf.constant(0, tf.int64)))
    draws = [draw_masks(config, example, vocabulary.special) for example in examples]
    np.testing.assert_array_equal([draw.ids for draw in draws], expected.input_ids)
    positions, weights = expected.masked_lm_positions.numpy(), expected.masked_lm_weights.numpy()
    for draw, row, used in zip(draws, positions, weights > 0, strict=True):
        assert set(np.flatnonzero(draw.drawn)) == set(row[used]) and draw.slots == used.sum()
    assert len(examples) > 30 and (batch[:, 0] != expected.input_ids).numpy().any(1).all()


def test_another_seed_draws_otherwise(built):
    config = InspectConfig(data=str(built), mask_prob=0.3)
    data = find_data_set(config)
    vocabulary = read_vocabulary(config, data)
    examples = list(read_examples(data, vocabulary, 0))
    first, again, other = ([draw_masks(c, e, vocabulary.special).drawn for e in examples] for c in (config, config, InspectConfig(seed=1)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_start_counts_over_shards_and_split_chooses(built):
    config = InspectConfig(data=str(built))
    data = find_data_set(config)
    vocabulary = read_vocabulary(config, data)
    everything = list(read_examples(data, vocabulary, 0))
    manifest = json.loads((built / "pretrain_tfrecords" / "manifest.json").read_text())
    assert len(everything) == manifest["train"]["examples"] + manifest["eval"]["examples"]
    assert everything[0].path.endswith(FIRST) and everything[-1].path.endswith(EVAL)
    later = list(read_examples(data, vocabulary, 22))
    assert [(e.number, e.path, e.record, e.offset) for e in later] == [(e.number, e.path, e.record, e.offset) for e in everything[22:]]
    held_out = find_data_set(dataclasses.replace(config, split="eval"))
    assert [path.rpartition("/")[2] for path in held_out.files] == [EVAL]
    with pytest.raises(UserError, match=rf"no example 999: the data hold {len(everything)} \(--start\)"):
        next(read_examples(data, vocabulary, 999))


def test_data_cannot_steer_the_terminal(tmp_path, capsys):
    assert printable("가\x1b[2J\u202e\u200b\x9b") == "가\\x1b[2J\\u202e\\u200b\\x9b"
    config = foreign(tmp_path, [encode_example(EXAMPLE, LENGTH)])
    (tmp_path / "vocab.txt").write_text("\n".join(["##\x1b[2J" if piece == "##는" else piece for piece in VOCAB]))
    inspect(config)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "그\\x1b[2J 심각합니다 ." in out


def test_a_misfit_is_shown_and_marked(tmp_path, capsys):
    inspect(foreign(tmp_path, [encode_example(Example([2, 99, 5, 3], 4), LENGTH)]))
    out = capsys.readouterr().out
    assert "bad: input_ids[1] is 99, expected 0 to 15\n" in out and "  A  <99> 그\n" in out


# ---- --check


def test_a_sound_set_passes(built, capsys):
    inspect(InspectConfig(data=str(built), check=True, color="never"))
    out = capsys.readouterr().out
    manifest = json.loads((built / "pretrain_tfrecords" / "manifest.json").read_text())
    assert f": {manifest['train']['examples'] + manifest['eval']['examples']} examples\n" in out
    assert out.endswith("every record is sound\n") and "bad" not in out


def test_a_set_without_a_manifest_passes_and_says_so(tmp_path, capsys):
    inspect(dataclasses.replace(foreign(tmp_path, [encode_example(EXAMPLE, LENGTH)] * 3), check=True))
    assert capsys.readouterr().out.endswith(f"every record is sound; no manifest.json in {tmp_path / 'set'} to compare with\n")


def shard(data: pathlib.Path) -> pathlib.Path:
    return data / "pretrain_tfrecords" / FIRST


def start_of(path: pathlib.Path, number: int) -> int:
    return sum(16 + len(record) for record in records_of(path)[:number])


def flip(path: pathlib.Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def test_a_flipped_byte_of_the_data(data):
    path, start = shard(data), start_of(shard(data), 3)
    record = records_of(path)[3]
    flip(path, start + 12 + 20)
    assert not path.read_bytes() == b"" and len(record) > 20
    damaged = path.read_bytes()[start + 12 : start + 12 + len(record)]
    wanted, found = (frame_records([some])[-4:][::-1].hex() for some in (record, damaged))
    assert fault_of(InspectConfig(data=str(data))) == (
        f"record 3 of {path}, from byte {start}: the check sum of its data is 0x{found}, expected 0x{wanted} as written: "
        "build or copy the data set again"
    )


def test_the_first_of_every_shard_is_listed(data, capsys):
    paths = [shard(data), data / "pretrain_tfrecords" / EVAL]
    for path in paths:
        flip(path, start_of(path, 1) + 12 + 20)
    message = fault_of(InspectConfig(data=str(data), color="never"))
    assert message.startswith(f"record 1 of {paths[0]}, ") and message.endswith(
        " (and 1 more, listed above): build or copy the data set again"
    )
    listed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bad: ")]
    assert [line.partition(",")[0] for line in listed] == [f"bad: record 1 of {path}" for path in paths]


# ---- the manifest


def test_a_missing_shard(data):
    shard(data).unlink()
    assert (
        fault_of(InspectConfig(data=str(data))) == f"{shard(data)}: missing, but manifest.json lists it: build or copy the data set again"
    )
    inspect(InspectConfig(data=str(data), split="eval", check=True))  # what was not asked for is not missed


def test_a_missing_shard_of_files_named_without_a_folder(data, monkeypatch):
    shard(data).unlink()
    monkeypatch.chdir(shard(data).parent)
    assert fault_of(InspectConfig(data="pretrain_data*")).startswith(f"./{FIRST}: missing, but manifest.json lists it")


def test_a_file_that_the_manifest_does_not_list(data):
    other = shard(data).with_name("pretrain_data.tfrecord-00002-of-00003")
    shutil.copy(shard(data), other)
    assert fault_of(InspectConfig(data=str(data))) == f"{other}: not in the manifest.json beside it: build or copy the data set again"


def test_a_record_too_many(data):
    records = records_of(shard(data))
    shard(data).write_bytes(frame_records(records + records[:1]))
    assert fault_of(InspectConfig(data=str(data))) == (
        f"{shard(data)}: records {len(records) + 1}, expected {len(records)} as manifest.json says of {FIRST}: "
        "build or copy the data set again"
    )


def test_other_records_of_the_same_number_and_size(data):
    records = records_of(shard(data))
    shard(data).write_bytes(frame_records(records[::-1]))
    message = fault_of(InspectConfig(data=str(data)))
    assert message.startswith(f"{shard(data)}: sha256 ") and f"as manifest.json says of {FIRST}" in message


def test_a_manifest_that_does_not_add_up(data):
    path = data / "pretrain_tfrecords" / "manifest.json"
    manifest = json.loads(path.read_text())
    examples = manifest["train"]["examples"]
    manifest["train"]["examples"] += 1
    path.write_text(json.dumps(manifest))
    assert fault_of(InspectConfig(data=str(data))) == (
        f"{path}: train.examples {examples + 1}, expected {examples} as in its shards: build or copy the data set again"
    )


# ---- what the user can mend


def test_a_vocabulary_that_the_data_were_not_made_with(data):
    (data / "vocab.txt").write_text("\n".join([*VOCAB, "또"]))
    message = r"the TFRecords in .*/pretrain_tfrecords: made with vocab_sha256 '\w+', but this run has '\w+'; name the .* \(--vocab_file\)"
    with pytest.raises(UserError, match=message):
        inspect(InspectConfig(data=str(data)))


def test_no_vocabulary(data):
    (data / "vocab.txt").unlink()
    with pytest.raises(UserError, match="--vocab_file is required: there is no '.*/data/vocab.txt'"):
        inspect(InspectConfig(data=str(data)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": ""}, "--data is required"),
        ({"data": "/no/such"}, r"no TFRecord files match '/no/such': .* change --data or --split"),
        ({"num_examples": -1}, r"num_examples must be from 0 to 1000000, got -1 \(--num_examples\)"),
        ({"mask_prob": 1.5}, r"mask_prob must be between 0 and 1, got 1.5 \(--mask_prob\)"),
        ({"split": "dev"}, r"hparam 'split' must be one of all, train, eval, got 'dev' \(--split\)"),
    ],
)
def test_settings_that_make_no_sense(values, message):
    with pytest.raises(UserError, match=message):
        inspect(InspectConfig.create(None, {"data": "x", **values}))


def test_a_mask_prob_that_masks_nothing(built):
    with pytest.raises(UserError, match=r"higher for one token of 16 to be masked, got 0.01 \(--mask_prob\)"):
        inspect(InspectConfig(data=str(built), mask_prob=0.01))


def test_settings_of_a_run_are_taken_over():
    config = InspectConfig.create('{"mask_prob": 0.25, "seed": 5, "learning_rate": 1e-3}', {"data": "x", "seed": 6})
    assert (config.mask_prob, config.seed, config.masking) == (0.25, 6, "unique")
    with pytest.raises(UserError, match="unknown hparam 'mask_probe'"):
        InspectConfig.create('{"mask_probe": 0.25}', {"data": "x"})


def test_a_file_that_is_no_tfrecord(tmp_path):
    config = foreign(tmp_path, [])
    (tmp_path / "set" / "examples.tfrecord").write_text("그는 심각합니다.\n" * 10)
    with pytest.raises(DataError, match=r"record 0 of .*, from byte 0: the check sum of its length .* is it a TFRecord file\? \(--data\)"):
        inspect(config)
    foreign(tmp_path, [])
    with pytest.raises(UserError, match="hold no examples"):
        inspect(config)
