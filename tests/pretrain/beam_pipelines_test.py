"""The pipelines run here with several worker processes and must give what the local path gives."""

import dataclasses
import json
import math
import os
import random

import pytest

from model.command import DataError, UserError
from pretrain import corpus_builder, dataset_builder
from pretrain.dataset_builder import DatasetConfig
from pretrain.document_cleaner import PreprocessConfig

pytest.importorskip("apache_beam", reason="Beam is an extra: pip install .[beam]")
from pretrain import beam_pipelines  # noqa: E402

WORKERS = "--direct_num_workers=2 --direct_running_mode=multi_processing"
WORDS = "도서관 자전거 아침 비가 온다 산책 저녁 밥을 먹었다 친구 약속 지난주 공원 사진을 찍었다 버스 늦게 도착했다".split()


@pytest.fixture
def corpora(tmp_path):
    draw = random.Random(0)

    def sentence():
        return " ".join(draw.choices(WORDS, k=7)) + "."

    folder = tmp_path / "raw"
    folder.mkdir()
    dialogs = [{"turns": [{"question": sentence(), "answer": sentence() + "ㅋㅋㅋㅋ"} for _ in range(4)]} for _ in range(60)]
    (folder / "dialog.json").write_text(json.dumps(dialogs), encoding="utf-8")
    comments = [sentence() for _ in range(400)] + ["!!!"]
    (folder / "comments.txt").write_text("\n".join(comments + comments[:80]), encoding="utf-8")
    for name in "ab":
        documents = ["\n".join(sentence() for _ in range(9)) for _ in range(80)]
        (folder / f"{name}.txt").write_text("\n\n".join([*documents, comments[5], documents[0]]), encoding="utf-8")
    (folder / "test.tsv").write_text(f"1\t{comments[9]}\n2\t{comments[10]}~~\n", encoding="utf-8")
    return folder


def _config(folder, output, **values):
    sources = f"ai_hub_dialog:{folder}/dialog.json,kcbert:{folder}/comments.txt,text:{folder}/a.txt,{folder}/b.txt"
    return PreprocessConfig(corpora=sources, output_dir=str(output), exclude=f"{folder}/test.tsv", **values)


def _documents(folder):
    """Every document of the corpus, with the name of its corpus."""
    found = []
    for name in os.listdir(os.path.join(folder, "corpus")):
        with open(os.path.join(folder, "corpus", name), encoding="utf-8") as file:
            found += [(name.rpartition("-of-")[0][:-6], document) for document in file.read().removesuffix("\n").split("\n\n")]
    return sorted(found)


def _report(folder):
    with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
        return {name: {key: value for key, value in part.items() if key != "examples"} for name, part in json.load(file)["corpora"].items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "beam_args"),
    [({}, WORKERS), ({"mixture": "dialog=2,other=1", "hanja": "drop"}, WORKERS), ({"dedup": "none", "sentence_splitter": "none"}, "")],
)
def test_preprocessing_gives_the_documents_and_counts_of_the_local_path(corpora, tmp_path, change, beam_args):
    corpus_builder.build(_config(corpora, tmp_path / "local", **change))
    beam_pipelines.preprocess(_config(corpora, tmp_path / "beam", runner="DirectRunner", beam_args=beam_args, **change))
    assert _documents(tmp_path / "beam") == _documents(tmp_path / "local")
    assert _report(tmp_path / "beam") == _report(tmp_path / "local")
    assert sorted(os.listdir(tmp_path / "beam")) == ["corpus", "manifest.json", "report.html", "report.json"]


def test_documents_of_a_shard_stay_in_corpus_order_and_shards_are_about_as_large_as_asked(corpora, tmp_path, monkeypatch):
    monkeypatch.setattr(beam_pipelines, "MEGABYTE", 1 << 14)
    config = _config(corpora, tmp_path / "beam", runner="DirectRunner", shard_megabytes=1, dedup="none")
    beam_pipelines.preprocess(config)
    shards = [name for name in os.listdir(tmp_path / "beam/corpus") if name.startswith("text")]
    assert len(shards) == math.ceil(_report(tmp_path / "beam")["text"]["kept"]["bytes"] / (1 << 14)) > 3
    order = (corpora / "a.txt").read_text(encoding="utf-8") + (corpora / "b.txt").read_text(encoding="utf-8")
    for name in shards:
        documents = (tmp_path / "beam/corpus" / name).read_text(encoding="utf-8").removesuffix("\n").split("\n\n")
        places = [order.index(document) for document in documents if order.count(document) == 1]
        assert places == sorted(places) and len(places) > 10


def test_from_bucket_to_bucket(corpora):
    """TensorFlow's file system in memory, which the workers of one process share, stands for gs://."""
    import tensorflow as tf

    for name in ("comments.txt", "test.tsv"):
        with tf.io.gfile.GFile(f"ram://bucket/raw/{name}", "wb") as file:
            file.write((corpora / name).read_bytes())
    sources = {"corpora": "kcbert:ram://bucket/raw/comments.txt", "exclude": "ram://bucket/raw/test.tsv"}
    beam_pipelines.preprocess(PreprocessConfig(output_dir="ram://bucket/clean", runner="DirectRunner", **sources))
    assert sorted(tf.io.gfile.listdir("ram://bucket/clean")) == ["corpus", "manifest.json", "report.html", "report.json"]
    with tf.io.gfile.GFile("ram://bucket/clean/corpus/kcbert-00000-of-00001.txt", "rb") as file:
        documents = file.read().decode().removesuffix("\n").split("\n\n")
    assert len(documents) == 398  # of 400 different ones two are test texts
    config = PreprocessConfig(output_dir="ram://bucket/clean", runner="DirectRunner", **sources)
    with pytest.raises(UserError, match="already: choose another --output_dir, or give --overwrite"):
        beam_pipelines.preprocess(config)


@pytest.fixture
def dataset(tmp_path, corpora, monkeypatch):
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "."]
    chars = sorted(set("".join(WORDS)))
    (tmp_path / "vocab.txt").write_text("\n".join([*vocab, *chars, *("##" + char for char in chars)]) + "\n", encoding="utf-8")
    return DatasetConfig(
        corpus_dir=f"{corpora}/a.txt,{corpora}/b.txt,{corpora}/comments.txt",
        vocab_file=str(tmp_path / "vocab.txt"),
        output_dir=str(tmp_path / "local"),
        max_seq_length=32,
        num_out_files=5,
        eval_fraction=0.2,
        tokenizer_type="wordpiece",
        analyzer="none",
    )


def _files(folder):
    return {name: open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))}


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"overflow": "carry", "eval_fraction": 0.0, "num_out_files": 1}])
def test_data_sets_are_the_same_to_the_byte(dataset, tmp_path, monkeypatch, change):
    monkeypatch.setattr("pretrain.units.UNIT_BYTES", 2000)  # read in this process; workers only see units
    local = dataclasses.replace(dataset, **change)
    dataset_builder.build(local)
    beam = dataclasses.replace(local, output_dir=str(tmp_path / "beam"), runner="DirectRunner")
    beam_pipelines.build_dataset(beam)
    assert _files(beam.output_dir) == _files(local.output_dir)


@pytest.mark.slow
def test_data_sets_are_the_same_to_the_byte_with_several_workers(dataset, tmp_path):
    dataset_builder.build(dataset)
    beam = dataclasses.replace(dataset, output_dir=str(tmp_path / "beam"), runner="DirectRunner", beam_args=WORKERS)
    beam_pipelines.build_dataset(beam)
    assert _files(beam.output_dir) == _files(dataset.output_dir)


def test_near_duplicates_are_refused(corpora, tmp_path):
    with pytest.raises(UserError, match="near duplicates are found on one machine only: choose --dedup=exact or --runner=local"):
        beam_pipelines.preprocess(_config(corpora, tmp_path / "beam", runner="DirectRunner", dedup="near"))
    assert not (tmp_path / "beam").exists()


def test_only_an_earlier_build_is_overwritten(dataset, tmp_path):
    folder = tmp_path / "beam"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    config = dataclasses.replace(dataset, output_dir=str(folder), runner="DirectRunner")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds 'thesis.txt' already: choose another --output_dir"):
            beam_pipelines.build_dataset(dataclasses.replace(config, overwrite=overwrite))
    (folder / "thesis.txt").unlink()
    beam_pipelines.build_dataset(config)
    with pytest.raises(UserError, match="already: choose another --output_dir, or give --overwrite"):
        beam_pipelines.build_dataset(config)
    beam_pipelines.build_dataset(dataclasses.replace(config, overwrite=True, num_out_files=2))
    assert sorted(_files(folder)) == [
        "eval_data.tfrecord-00000-of-00001",
        "manifest.json",
        "pretrain_data.tfrecord-00000-of-00002",
        "pretrain_data.tfrecord-00001-of-00002",
    ]


def test_an_error_on_a_worker_is_one_sentence():
    report = "Traceback ...\nmodel.command.DataError: b.txt, line 1: not UTF-8 [while running 'ParDo(_Read)']\n\nmore\n"
    with pytest.raises(DataError, match="^b.txt, line 1: not UTF-8$"), beam_pipelines._pipeline("DirectRunner", ""):
        raise RuntimeError(report)
    with pytest.raises(RuntimeError, match="anything else"), beam_pipelines._pipeline("DirectRunner", ""):
        raise RuntimeError("anything else")
