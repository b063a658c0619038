"""Times the data builder on real text: against a plain WordPiece builder, cold and warm, with one process and two, by stage.

    python benchmarks/data_building.py --corpus=reviews.txt.gz --vocab_file=vocab.txt --output_dir=work/data_building

Every rival runs in a process of its own, in turns, `--rounds` times. CPU time (user and system) is compared, imports left out;
for two processes against one, wall time. Writes data_building.json and prints a table.
"""

import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from model import command, tokenization
from model.command import write_json
from model.words import find_eojeols, is_split_off
from pretrain import dataset_builder
from pretrain.dataset_builder import DatasetConfig, ExampleBuilder
from pretrain.draws import Draws
from pretrain.example_writer import ExampleTable, ExampleWriter
from pretrain.text_files import read_lines, unpacked_size
from pretrain.units import read_units

MAX_SEQ_LENGTH = 128
SHARDS = 10
RIVALS = ("plain", "one", "two", "warm")


# ---- the rival: what google-research/electra does for every line, without morphemes, without caches, one record at a time


def basic_tokenize(text: str) -> Iterator[str]:
    """BERT's BasicTokenizer: cleans character by character, splits at spaces, then at punctuation and CJK characters."""
    cleaned = []
    for char in text:
        category = unicodedata.category(char)
        if char in "\t\n\r " or category == "Zs":
            cleaned.append(" ")
        elif char != "\ufffd" and category not in ("Cc", "Cf"):
            cleaned.append(char)
    for token in "".join(cleaned).split():
        word = ""
        for char in token:
            if is_split_off(char):
                if word:
                    yield word
                yield char
                word = ""
            else:
                word += char
        if word:
            yield word


def wordpiece(word: str, vocab: dict[str, int], unknown: int) -> list[int]:
    """Greedy longest match first, trying every end from the right."""
    if len(word) > tokenization.MAX_WORD_CHARS:
        return [unknown]
    ids = []
    start = 0
    while start < len(word):
        end = len(word)
        while start < end:
            piece = ("##" if start else "") + word[start:end]
            if piece in vocab:
                break
            end -= 1
        else:
            return [unknown]
        ids.append(vocab[piece])
        start = end
    return ids


def build_plainly(corpus: str, vocab_file: str, output_dir: str) -> int:
    """Writes one shard of examples; returns their number."""
    import tensorflow as tf

    vocab = tokenization.load_vocab(vocab_file)
    builder = ExampleBuilder(MAX_SEQ_LENGTH, vocab["[CLS]"], vocab["[SEP]"], Draws(0))
    os.makedirs(output_dir)
    examples = 0
    with tf.io.TFRecordWriter(os.path.join(output_dir, "plain.tfrecord")) as writer:
        for line in read_lines(corpus):
            ids = [row for word in basic_tokenize(line.strip()) for row in wordpiece(word, vocab, vocab["[UNK]"])]
            for example in builder.add_line(ids):
                features = {
                    name: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
                    for name, values in example.features(MAX_SEQ_LENGTH).items()
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
                examples += 1
    return examples


# ---- ours


def make_config(corpus: str, vocab_file: str, output_dir: str, processes: int) -> DatasetConfig:
    return DatasetConfig(
        corpus_dir=corpus,
        vocab_file=vocab_file,
        output_dir=output_dir,
        max_seq_length=MAX_SEQ_LENGTH,
        num_processes=processes,
        num_out_files=SHARDS,
        eval_fraction=0.0,
    )


def run_rival(name: str, corpus: str, vocab_file: str, output_dir: str) -> dict[str, float]:
    """Builds a data set the way `name` does, and returns wall and CPU seconds."""
    if name == "plain":
        import tensorflow as tf  # noqa: F401  # its import is not what is timed

        run: Callable[[], Any] = functools.partial(build_plainly, corpus, vocab_file, output_dir)
    else:
        run = functools.partial(dataset_builder.build, make_config(corpus, vocab_file, output_dir, 2 if name == "two" else 1))
    if name == "warm":  # the second of two builds, by the tokenizer that has seen every word in the first
        dataset_builder.make_tokenizer = functools.cache(dataset_builder.make_tokenizer)
        run()
        shutil.rmtree(output_dir)
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    run()
    return {"wall": time.perf_counter() - wall, "cpu": sum(os.times()[:4]) - cpu}


def profile(corpus: str, vocab_file: str, output_dir: str) -> dict[str, float]:
    """CPU seconds of each stage of a cold build with one process, every stage by itself."""
    config = make_config(corpus, vocab_file, output_dir, 1)
    stages: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = work()
        stages[stage] = round(time.process_time() - start, 2)
        return result

    tokenizer = dataset_builder.make_tokenizer(config)
    tokenizer.encode("시작")  # loads the dictionary
    units = timed("reading and cutting into units", lambda: list(read_units([corpus], True, 0.0, config.seed)))
    lines = [line for unit in units for _, part in unit.parts for line in part if line]
    eojeols = timed("eojeols of every line", lambda: list(map(find_eojeols, lines)))
    different = timed("(only here) different eojeols", lambda: dict.fromkeys(eojeol for line in eojeols for eojeol in line))
    words = timed("words of each different eojeol", lambda: [tokenizer.splitter.words(eojeol) for eojeol in different])
    once = dict.fromkeys(word for part in words for word in part)
    analyzer = tokenizer.splitter.analyzer
    timed(f"MeCab on {len(once):,} different words", lambda: [analyzer.analyze(word) for word in once])
    total = timed("(sum) encoding, cold", lambda: [tokenizer.encode(line) for line in lines])
    timed("encoding again, all from memory", lambda: [tokenizer.encode(line) for line in lines])
    builder = ExampleBuilder(MAX_SEQ_LENGTH, tokenizer.cls_id, tokenizer.sep_id, Draws(0))
    examples = timed("packing", lambda: [example for ids in total for example in builder.add_line(ids)])
    table = timed("tables", lambda: ExampleTable.from_examples(examples))
    writer = ExampleWriter(os.path.join(output_dir, "profile.tfrecord"), MAX_SEQ_LENGTH)
    timed("writing shards", lambda: writer.write(table, np.arange(len(table.lengths))))
    writer.close()
    return stages | {"eojeols": sum(map(len, eojeols)), "different eojeols": len(different)}


def report(results: dict[str, list[dict[str, float]]], stages: dict[str, float], megabytes: float) -> dict[str, Any]:
    """Medians and ratios."""
    cpu = {name: statistics.median(run["cpu"] for run in runs) for name, runs in results.items()}
    wall = {name: statistics.median(run["wall"] for run in runs) for name, runs in results.items()}
    ratios = {
        name: statistics.median(a["cpu"] / b["cpu"] for a, b in zip(results["plain"], runs, strict=True)) for name, runs in results.items()
    }
    return {
        "megabytes": round(megabytes, 1),
        "rivals": {
            name: {
                "cpu_seconds": round(cpu[name], 2),
                "wall_seconds": round(wall[name], 2),
                "megabytes_per_cpu_second": round(megabytes / cpu[name], 2),
                "times_plain": round(ratios[name], 2),
            }
            for name in results
        },
        "two_processes_speedup": round(
            statistics.median(a["wall"] / b["wall"] for a, b in zip(results["one"], results["two"], strict=True)), 2
        ),
        "stages_cpu_seconds": stages,
        "runs": results,
    }


def show(value: dict[str, Any]) -> None:
    """Prints the tables."""
    titles = {
        "plain": "plain WordPiece, as the original",
        "one": "ours with morphemes, cold",
        "two": "the same, 2 processes",
        "warm": "ours with morphemes, warm",
    }
    print(f"| {value['megabytes']} MB | CPU s | wall s | MB per CPU s | times plain |\n|---|---|---|---|---|")
    for name, row in value["rivals"].items():
        print(f"| {titles[name]} | " + " | ".join(map(str, row.values())) + " |")
    print(f"\n2 processes: {value['two_processes_speedup']} times 1 (wall)\n\n| stage of a cold build | CPU s |\n|---|---|")
    for stage, seconds in value["stages_cpu_seconds"].items():
        print(f"| {stage} | {seconds} |")


def main() -> None:
    corpus, vocab_file, output_dir = map(command.required, ("corpus", "vocab_file", "output_dir"))
    os.makedirs(output_dir, exist_ok=True)
    build_dir = os.path.join(output_dir, "build")
    shutil.rmtree(build_dir, ignore_errors=True)
    if flags.FLAGS.rival:
        result = run_rival(flags.FLAGS.rival, corpus, vocab_file, build_dir)
        shutil.rmtree(build_dir)
        print(json.dumps(result))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in RIVALS}
    for _ in tqdm(range(flags.FLAGS.rounds), "rounds"):
        for name in RIVALS:
            arguments = [f"--{flag}={flags.FLAGS[flag].value}" for flag in ("corpus", "vocab_file", "output_dir")]
            program = [sys.executable, os.path.abspath(__file__), f"--rival={name}", *arguments]
            output = subprocess.run(program, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
            results[name].append(json.loads(output.splitlines()[-1]))
    value = report(results, profile(corpus, vocab_file, output_dir), unpacked_size(corpus) / 1e6)
    write_json(os.path.join(output_dir, "data_building.json"), value)
    show(value)


if __name__ == "__main__":
    flags.DEFINE_string("corpus", None, "one text file, plain or packed")
    flags.DEFINE_string("vocab_file", None, "vocabulary for both builders")
    flags.DEFINE_string("output_dir", None, "folder for data_building.json and for what is built meanwhile")
    flags.DEFINE_integer("rounds", 3, "how often every rival runs", lower_bound=1)
    flags.DEFINE_enum("rival", None, RIVALS, "run this one alone and print its seconds")
    command.run(main)
