import json
import unicodedata
from collections import Counter

import pytest

from benchmarks import vocabularies
from benchmarks.vocabularies import Benchmark, BenchmarkConfig, compare, count_eojeols, format_results, measure, morpheme_spans, seed_spread
from model.command import UserError
from model.tokenization import SPECIAL_TOKENS, FullTokenizer
from model.words import WordSplitter
from tests.conftest import ROOT

REFERENCE = WordSplitter(analyzer="mecab")


def test_count_eojeols():
    assert count_eojeols(["가 나", "", "가\t가"]) == {"가": 3, "나": 1}


def test_morpheme_spans_by_hand():
    assert morpheme_spans(REFERENCE, "심각합니다.") == [(0, 2), (2, 5), (5, 6)]
    assert morpheme_spans(REFERENCE, unicodedata.normalize("NFD", "심각합니다.")) == [(0, 6), (6, 13), (13, 14)]


def _measure(tmp_path, pieces, tokenizer_type, eojeols):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS, *pieces]), encoding="utf-8")
    return measure(FullTokenizer(str(path), tokenizer_type=tokenizer_type), REFERENCE, Counter(eojeols))


def test_measure_by_hand(tmp_path):
    # 심각 ##합 ##니다 . three times: 심각 and . are morphemes, 합니다 fell apart; 뷁 once: [UNK].
    found = _measure(tmp_path, ["심각", "##합", "##니다", "."], "mecab_wordpiece", {"심각합니다.": 3, "뷁": 1})
    assert found == {"eojeols": 4, "fertility": 3.25, "unk_eojeols": 0.25, "whole_morphemes": round(6 / 13, 4), "morphemes_kept": 0.5}


def test_pieces_that_coincide_with_morphemes_count_whoever_cut_them(tmp_path):
    # 심각 ##합니다 without an analyser, and 심 ##각합니다, which crosses the border.
    found = _measure(tmp_path, ["심각", "##합니다"], "wordpiece", {"심각합니다": 1})
    assert (found["whole_morphemes"], found["morphemes_kept"]) == (1.0, 1.0)
    found = _measure(tmp_path, ["심", "##각합니다"], "wordpiece", {"심각합니다": 1})
    assert (found["whole_morphemes"], found["morphemes_kept"]) == (0.0, 0.0)


# ---- statistics


def _row(algorithm, kind, size, accuracies):
    return {"algorithm": algorithm, "tokenizer_type": kind, "size": size, "accuracies": accuracies}


ROWS = [
    _row("wordpiece", "mecab_wordpiece", 8000, [82.0, 83.0]),
    _row("wordpiece", "wordpiece", 8000, [81.0, 81.0]),
    _row("wordpiece", "mecab_wordpiece", 16000, [82.0, 82.0]),
    _row("wordpiece", "wordpiece", 16000, [82.0, 81.0]),
    _row("sentencepiece_bpe", "mecab_wordpiece", 8000, [80.0]),
    _row("sentencepiece_bpe", "sentencepiece", 8000, [81.0, 70.0]),
    _row("sentencepiece_bpe", "wordpiece", 8000, []),
]


def test_compare_by_hand():
    found = compare(ROWS, vocabularies.WITHOUT)
    assert [(pair["size"], pair["gains"], pair["mean"]) for pair in found["pairs"]] == [
        (8000, [1.0, 2.0], 1.5),
        (16000, [0.0, 1.0], 0.5),
        (8000, [-1.0], -1.0),
    ]
    # Mean 1/3, sample deviation 1.2583, t(0.975, 2) = 4.3027: 4.3027 * 1.2583 / sqrt(3) = 3.1258.
    assert found["mean"] == 0.333 and found["interval"] == [-2.792, 3.459]
    assert found["by_size"] == {"8000": 0.25, "16000": 0.5} and found["by_algorithm"] == {"wordpiece": 1.0, "sentencepiece_bpe": -1.0}
    assert found["by_seed"] == [0.0]
    assert compare(ROWS[:2], vocabularies.WITHOUT) is None


def test_gains_as_a_table():
    lines = format_results({"cells": [], "seed_std": 0.1, "comparisons": {"morphemes": compare(ROWS, vocabularies.WITHOUT)}}).split("\n")
    assert lines[3:10] == [
        "morphemes: +0.33 points, 95 % interval -2.79 to +3.46",
        "",
        "| gain, points | 8,000 | 16,000 | mean |",
        "| --- | --- | --- | --- |",
        "| wordpiece | +1.50 (+1.00 +2.00) | +0.50 (+0.00 +1.00) | +1.00 |",
        "| sentencepiece_bpe | -1.00 (-1.00) |  | -1.00 |",
        "| mean | +0.25 | +0.50 | +0.33 |",
    ]


def test_seed_spread_by_hand():
    assert seed_spread([{"accuracy_std": 3.0}, {"accuracy_std": 1.0}, {"accuracy_std": None}]) == 2.236
    assert seed_spread([{"accuracy_std": None}]) is None


# ---- a run


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "nsmc"
    folder.mkdir()
    for name in ("ratings_train.txt", "ratings_test.txt"):
        (folder / name).write_text("id\tdocument\tlabel\n1\t재미있어요\t1\n2\t" + "가나다라" * 30 + "\t0\n3\t별로\t0\n", encoding="utf-8")
    corpus = ROOT / "data" / "sample" / "corpus"
    return BenchmarkConfig(
        corpus=str(corpus), nsmc_dir=str(folder), output_dir=str(tmp_path / "out"), sizes="1300", num_seeds=2, train_rows=2, test_rows=2
    )


def test_a_run_is_not_done_twice(config, tmp_path, monkeypatch):
    done = []

    def finetune(self, cell, seed):
        done.append((cell.name, seed))
        if len(done) == 12:
            raise KeyboardInterrupt
        return {"accuracy": 80.0 + seed + (cell.tokenizer_type == "mecab_wordpiece"), "parameters": 1_500_000, "cpu_seconds": 1.0}

    monkeypatch.setattr(Benchmark, "_finetune", finetune)
    with pytest.raises(KeyboardInterrupt):
        Benchmark(config).run()
    vocabulary = tmp_path / "out" / "vocabularies" / "wordpiece-wordpiece-1300" / "vocab.txt"
    assert len(vocabulary.read_text().split("\n")) == 1301
    vocabulary.unlink()  # not needed any more, so not built again
    results = Benchmark(config).run()
    assert len(done) == 21 and len(set(done)) == 20  # 10 vocabularies, 2 seeds, and the one that was stopped
    assert done[:8:2] == [(f"{name}-mecab_wordpiece-1300", 0) for name in vocabularies.ALGORITHMS]
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    gains = list(results["comparisons"].values())
    assert [(gain["mean"], gain["interval"], len(gain["pairs"])) for gain in gains] == [(1.0, [1.0, 1.0], 4)] * 2
    assert results["seed_std"] == 0.707
    row = results["cells"][0]
    assert (row["accuracy"], row["accuracy_std"], row["entries"], row["nsmc_rows_cut"]) == (81.5, 0.707, 1300, 0.5)
    assert list(row["text"]) == ["held_back"] and row["text"]["held_back"]["fertility"] > 1
    assert "| 81.50 (0.71) |" in (tmp_path / "out" / "results.md").read_text() == format_results(results)
    assert all((tmp_path / "out" / name).stat().st_size > 5000 for name in ("fertility.png", "nsmc.png"))
    assert (tmp_path / "out" / "raw" / "nsmc" / "ratings_train.txt").read_text().count("\n") == 3


def test_other_settings_are_refused(config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "settings.json").write_text('{"corpus": "elsewhere.txt"}')
    with pytest.raises(UserError, match="was made with corpus 'elsewhere.txt', not .*--output_dir"):
        Benchmark(config).run()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nsmc_dir": ""}, "--nsmc_dir is required"),
        ({"sizes": "8k"}, "sizes must be whole numbers separated by commas, got '8k' .--sizes"),
    ],
)
def test_bad_flags(config, settings, message):
    with pytest.raises(UserError, match=message):
        Benchmark(BenchmarkConfig(**{**vars(config), **settings}))


@pytest.mark.slow
def test_finetuning(config, tmp_path):
    benchmark = Benchmark(BenchmarkConfig(**{**vars(config), "nsmc_dir": str(ROOT / "data" / "sample" / "nsmc"), "train_rows": 200}))
    cell = benchmark.cells[0]
    benchmark._lay_out_nsmc()
    benchmark._build(cell)
    found = benchmark._finetune(cell, 0)
    # Embeddings 1300 x 128, positions 48 x 128, segments 2 x 128, layer norm 2 x 128; a layer; the classifier.
    layer = 4 * (128 * 128 + 128) + 2 * 128 + (128 * 512 + 512) + (512 * 128 + 128) + 2 * 128
    assert found["parameters"] == 128 * (1300 + 48 + 2 + 2) + layer + 128 * 2 + 2
    assert 0 <= found["accuracy"] <= 100
    assert benchmark._finetune(cell, 0)["accuracy"] == found["accuracy"]
    assert not list((tmp_path / "out" / "nsmc").rglob("model.ckpt*"))
