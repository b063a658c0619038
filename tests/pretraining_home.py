"""A tiny pre-training run: its data_dir, its flags, and what it leaves. For the tests of run_pretraining.py and of faults."""

import hashlib
import json

import numpy as np
import tensorflow as tf

from model import checkpoint

LENGTH, VOCAB, TRAIN, HELD_OUT = 24, 300, 40, 10
SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 24}
HPARAMS = {
    "model_hparam_overrides": SHAPE,
    "embedding_size": 16,
    "generator_hidden_size": 0.5,
    "max_seq_length": LENGTH,
    "train_batch_size": 8,
    "eval_batch_size": 4,
    "num_warmup_steps": 2,
    "num_train_steps": 6,
    "save_checkpoints_steps": 3,
    "log_steps": 1,
}


def example(generator, length=LENGTH, vocab_size=VOCAB):
    size = int(generator.integers(length // 2, length + 1))
    padding = [0] * (length - size)
    ids = [2, *np.minimum(5 + generator.zipf(1.5, size - 2), vocab_size - 1), 3, *padding]
    values = {"input_ids": ids, "input_mask": [1] * size + padding, "segment_ids": [0] * length}
    feature = {name: tf.train.Feature(int64_list=tf.train.Int64List(value=value)) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def make_home(folder, vocab_size=VOCAB):
    """A data_dir: vocabulary, two training shards, one held-out shard, and the manifest that goes with them."""
    records = folder / "pretrain_tfrecords"
    records.mkdir(parents=True)
    vocabulary = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"piece{row}" for row in range(vocab_size - 5))]) + "\n"
    (folder / "vocab.txt").write_text(vocabulary)
    generator, shards = np.random.default_rng(0), {"train": [], "eval": []}
    for part, prefix, number in (("train", "pretrain_data", 2), ("eval", "eval_data", 1)):
        count = TRAIN // 2 if part == "train" else HELD_OUT
        for index in range(number):
            path = records / f"{prefix}.tfrecord-{index:05d}-of-{number:05d}"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for _ in range(count):
                    writer.write(example(generator, vocab_size=vocab_size))
            shards[part].append({"file": path.name, "records": count, "bytes": path.stat().st_size})
    tokenizer = {"tokenizer_type": "mecab_wordpiece", "analyzer": "mecab", "analyzer_version": "1", "do_lower_case": False}
    tokenizer |= {"strip_accents": False, "vocab_sha256": hashlib.sha256(vocabulary.encode()).hexdigest(), "vocab_size": vocab_size}
    manifest = {"format_version": 1, "max_seq_length": LENGTH, "tokenizer": tokenizer}
    manifest |= {part: {"examples": sum(shard["records"] for shard in shards[part]), "shards": shards[part]} for part in shards}
    (records / "manifest.json").write_text(json.dumps(manifest))
    return folder


def flags(home, model_name, **settings):
    hparams = json.dumps({**HPARAMS, **settings})
    return [f"--data_dir={home}", f"--model_name={model_name}", f"--hparams={hparams}"]


def history(folder):
    return [json.loads(line) for line in (folder / "train_metrics.jsonl").read_text().splitlines()]


def variables(prefix):
    names = sorted(checkpoint.read_shapes(str(prefix)))
    return checkpoint.read(str(prefix), names)


def contents(folder):
    """Every file under `folder` with what it holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_refused(result, *parts):
    """One sentence, no traceback."""
    assert "Traceback" not in result.err and result.out == ""
    assert result.last_line.startswith("run_pretraining.py: error: ") and result.err.count("error: ") == 1
    for part in parts:
        assert part in result.last_line, result.last_line
