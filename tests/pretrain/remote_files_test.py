"""TensorFlow's file system in memory, ram://, stands for gs:// and the like."""

import gzip
import os

import pytest
import tensorflow as tf

from model.command import DataError, UserError
from pretrain import corpus_builder
from pretrain.document_cleaner import PreprocessConfig
from pretrain.text_files import TextFile, expand_files, read_lines, stored_size, unpacked_size


@pytest.fixture
def bucket(request):
    folder = f"ram://{request.node.name}"
    contents = {
        "raw/b.txt": "나무가 자란다.\n\n바람이 분다.\n".encode(),
        "raw/deep/c.txt.gz": gzip.compress("강이 흐른다.\n".encode()),
        "raw/.hidden": b"no",
        "other.txt": b"\xb0\xa1\n",
    }
    for name, data in contents.items():
        tf.io.gfile.makedirs(os.path.dirname(f"{folder}/{name}"))
        with tf.io.gfile.GFile(f"{folder}/{name}", "wb") as file:
            file.write(data)
    return folder


def test_folders_files_and_globs(bucket):
    assert expand_files([f"{bucket}/raw"]) == [f"{bucket}/raw/b.txt", f"{bucket}/raw/deep/c.txt.gz"]
    assert expand_files([f"{bucket}/raw/b.txt,{bucket}/raw"]) == expand_files([f"{bucket}/raw"])
    assert expand_files([f"{bucket}/raw/b*"]) == [f"{bucket}/raw/b.txt"]


def test_text_and_sizes(bucket):
    assert list(read_lines(f"{bucket}/raw/b.txt")) == ["나무가 자란다.", "", "바람이 분다."]
    assert list(read_lines(f"{bucket}/raw/deep/c.txt.gz")) == ["강이 흐른다."]
    assert TextFile(f"{bucket}/raw/b.txt").stream().read().decode() == "나무가 자란다.\n\n바람이 분다.\n"
    assert stored_size(f"{bucket}/raw/b.txt") == unpacked_size(f"{bucket}/raw/b.txt") == len("나무가 자란다.\n\n바람이 분다.\n".encode())


def test_errors_are_those_of_local_files(bucket):
    with pytest.raises(UserError, match=r"no file or folder 'ram://.*/nowhere' \(--corpora\)"):
        expand_files([f"{bucket}/nowhere"], "corpora")
    with pytest.raises(UserError, match="cannot read 'ram://.*/nowhere.txt'"):
        list(read_lines(f"{bucket}/nowhere.txt"))
    with pytest.raises(DataError, match="other.txt, line 1, byte 0: not UTF-8"):
        list(read_lines(f"{bucket}/other.txt"))


def test_corpora_are_read_where_they_are(bucket, tmp_path):
    config = PreprocessConfig(corpora=f"text:{bucket}/raw", output_dir=str(tmp_path / "clean"))
    corpus_builder.build(config)
    text = (tmp_path / "clean/corpus/text-00000-of-00001.txt").read_text(encoding="utf-8")
    assert text == "나무가 자란다.\n\n바람이 분다.\n\n강이 흐른다.\n"
