"""Faults that hostile files once found, and what no file may do: run code, or have a path outside its folder written or removed."""

import gzip
import json
import os
import pathlib
import pickle
import subprocess
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from configure_finetuning import FinetuningConfig
from configure_pretraining import PretrainingConfig
from export.exported_model import load_model
from finetune import custom_task
from finetune.prediction import read_config
from finetune.preprocessing import read_table
from finetune.task_builder import get_tasks
from model import checkpoint, hparams, tokenization, transformers_folder
from model.command import DataError, UserError
from pretrain import build_folder, pretrain_data
from pretrain.example_writer import masked_crcs
from pretrain.text_files import TextFile, expand_files
from tests.fuzzing.harness import attempt, folder, pack
from tests.model.kobert_test import train
from tests.model.transformers_folder_test import Malicious
from tests.pretrain.pretrain_data_test import LENGTH, write_manifest, write_shards

OUTSIDE = ("../outside", "a/../../outside", "/etc/outside", "..", ".", "a\\b", "a\0b", "gs://bucket/a")


def everything_below(folder: pathlib.Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def home(tmp_path) -> pathlib.Path:
    """A folder within one that holds other files, none of which may change."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "model.ckpt-1.index").write_bytes(b"not yours")
    before = everything_below(tmp_path)
    (tmp_path / "home").mkdir()
    yield tmp_path / "home"
    after = everything_below(tmp_path)
    assert {path: data for path, data in after.items() if not path.startswith(f"{tmp_path}/home")} == before


# ---- the watch of the other tests


def test_the_watch_sees_what_is_not_allowed(home):
    acts = (
        lambda: (home / "a").write_bytes(b"a"),
        lambda: os.mkdir(home / "b"),
        lambda: os.rename(home / "b", home / "c"),
        lambda: subprocess.run(["true"]),
        lambda: pickle.loads(pickle.dumps(Malicious(str(home / "d")))),
    )
    for act in acts:
        with pytest.raises(AssertionError, match="open|os.mkdir|os.rename|subprocess.Popen|pickle.find_class"):
            attempt(act)
    attempt(lambda: pathlib.Path(folder(), "a").write_bytes(b"a"))


# ---- faults that were found


def test_fixed_garbage_that_torch_cannot_unpack(home):
    pytest.importorskip("torch", reason="torch is not installed (torch extra)")
    (home / "pytorch_model.bin").write_bytes(b"\x80\x02M\x00")
    with pytest.raises(DataError, match="is damaged or not a file of torch.save"):
        transformers_folder.read_weights(str(home), "electra", ["a"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a: &a [x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)),
            "alias",
        ),
        ("&a [*a]", "alias"),
        ("label: 0x" + "f" * 5000, "more than 64 bits"),
        ("- !!python/object/apply:os.mkdir [evil]", "could not determine a constructor"),
    ],
)
def test_fixed_yaml_that_means_more_than_it_says(home, text, words):
    (home / "task.yaml").write_text(text)
    with pytest.raises(UserError, match=f"task.yaml, line .*{words}.*--task_config"):
        custom_task.read_description(str(home / "task.yaml"))


def test_fixed_a_text_that_no_file_can_hold(home):
    (home / "task.yaml").write_text('{name: a, type: tagging, files: {train: a.tsv, test: b.tsv}, text: "\\ud800", label: l}')
    with pytest.raises(UserError, match=r"text holds '\\ud800', which has half of a surrogate pair"):
        custom_task.read_description(str(home / "task.yaml"))


def test_fixed_a_range_that_is_no_float(home):
    values = {"name": "a", "type": "regression", "files": {"train": "a.tsv", "test": "b.tsv"}, "text": "t", "label": "l"}
    with pytest.raises(UserError, match="range must be the lowest and the highest score"):
        custom_task.TaskDescription.from_dict({**values, "range": [0, 10**400]})


@pytest.mark.parametrize("name", ["learning_rate", "seed"])
def test_fixed_numbers_of_more_than_64_bits(name):
    with pytest.raises(UserError, match=f"{name!r} must be a number of at most 64 bits, got one of 1329 .--{name}"):
        hparams.check(PretrainingConfig, {name: 10**400})


@pytest.mark.parametrize("text", ['{"a":' * 20_000, '{"a": ' + "9" * 5000 + "}"])
def test_fixed_hparams_nested_too_deeply_or_with_too_many_digits(text):
    with pytest.raises(UserError, match="--hparams is not JSON"):
        hparams.read_hparams(text)


def test_fixed_a_record_longer_than_its_file(home):
    """TensorFlow dies of it, where the length has its check sum."""
    length = (1 << 40).to_bytes(8, "little")
    path = write_shards(home, [2])[0]
    with open(path, "ab") as file:
        file.write(length + masked_crcs([length]).astype("<u4").tobytes() + b"x" * 100)
    with pytest.raises(DataError, match="record 2 of .* is truncated or corrupt"):
        pretrain_data.find_records(f"{home}/*.tfrecord*", "pretrain_tfrecords", LENGTH)


@pytest.mark.parametrize(
    "change", [{"tokenizer": []}, {"max_seq_length": None}, {"train": 3}, {"train": {"shards": [{"file": 3}]}}, {"train": {}}]
)
def test_fixed_manifests_that_are_none(home, change):
    write_manifest(home, write_shards(home, [2]))
    path = home / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(UserError, match=r"manifest|max_seq_length None"):
        pretrain_data.find_records(f"{home}/*.tfrecord*", "pretrain_tfrecords", LENGTH)


def test_fixed_a_manifest_with_more_records_than_bytes(home):
    paths = write_shards(home, [2])
    write_manifest(home, paths, counts={paths[0]: 2**62})
    with pytest.raises(DataError, match="bytes but manifest.json says .* records"):
        pretrain_data.find_records(f"{home}/*.tfrecord*", "pretrain_tfrecords", LENGTH)


def test_fixed_a_vocabulary_without_end():
    with pytest.raises(UserError, match="'/dev/zero' is no file"):
        tokenization.FullTokenizer("/dev/zero")


def test_fixed_a_piece_that_is_no_text(home):
    (home / "m.model").write_bytes(train().replace("영화".encode(), "영화".encode()[:-1] + b"\xff"))
    with pytest.raises(DataError, match="is not a sentencepiece model"):
        tokenization.FullTokenizer(str(home / "m.model"), tokenizer_type="sentencepiece")


def test_fixed_an_index_of_weights_without_names(home):
    (home / "model.safetensors.index.json").write_text('{"weight_map": {"a": null}}')
    with pytest.raises(DataError, match="weight_map must name a file"):
        transformers_folder.weight_files(str(home))


# ---- no code is run


def test_fixed_a_module_that_a_model_names_is_not_run(home):
    """Only the user names code."""
    (home / "evil.py").write_text(f"import os; os.mkdir({str(home / 'trace')!r})")
    settings = {"task_module": str(home / "evil.py"), "task_names": ["nsmc"]}
    (home / "config.json").write_text(json.dumps({"finetuning": settings, "bert_config": {}}))
    checkpoint.save(str(home), 1, [tf.Variable([1.0], name="a")], 1)
    for use in (lambda: read_config(str(home)), lambda: load_model(str(home), "finetuned", {})):
        with pytest.raises(UserError, match=r"stand in a module, '.*evil.py': name it if you trust it \(--task_module\)"):
            use()
    assert not (home / "trace").exists()
    get_tasks(read_config(str(home), task_module=str(home / "evil.py")))
    assert (home / "trace").exists()


def test_arrays_with_objects_are_not_unpickled(home):
    folder = build_folder.BuildFolder(str(home), "shard")
    os.makedirs(folder.work_path(""))
    for path in (folder.work_path("unit-0-ab.npz"), str(home / "table.npz")):
        np.savez(path, text=np.array([Malicious(str(home / "trace"))], object), offsets=np.array([Malicious(str(home / "trace"))], object))
    with pytest.raises(DataError, match="is damaged"):
        folder.read_unit("unit-0-ab", "text")
    assert read_table(str(home / "table.npz")) is None
    assert not (home / "trace").exists()


@pytest.mark.parametrize("what", ["write", "python"])
def test_saved_models_that_touch_files_are_refused_before_they_are_loaded(home, what):
    loaded_model = pytest.importorskip("server.loaded_model")
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def call(texts):
        if what == "write":
            tf.io.write_file(str(home / "trace"), texts[0])
            return {"texts": texts}
        return {"texts": tf.py_function(lambda value: value, [texts], tf.string)}

    tf.saved_model.save(module, str(home / "1"), signatures=call)
    with pytest.raises(DataError, match="holds the operation (WriteFile|EagerPyFunc).*do not trust it"):
        loaded_model.LoadedModel("a", str(home), loaded_model.Limits())
    assert not (home / "trace").exists()


# ---- no path outside


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("config_class", [PretrainingConfig, FinetuningConfig])
def test_a_model_s_name_is_no_path(home, config_class, name):
    with pytest.raises(UserError, match="model_name must be a name without / .*--model_name"):
        config_class.create(name, str(home), {})


@pytest.mark.parametrize("name", OUTSIDE)
def test_task_names_are_no_paths(home, name):
    with pytest.raises(UserError, match="unknown task"):
        get_tasks(FinetuningConfig.create("m", str(home), {"task_names": [name]}))
    with pytest.raises(UserError, match="task_config|name must be a letter"):
        custom_task.TaskDescription.from_dict(
            {"name": name, "type": "tagging", "files": {"train": "a.tsv", "test": "b.tsv"}, "text": "t", "label": "l"}
        )


@pytest.mark.parametrize("name", [name for name in OUTSIDE if "://" not in name])
def test_members_of_archives_are_read_where_they_are(home, name):
    """Nothing is unpacked to the disk."""
    (home / "a.zip").write_bytes(pack("가나다\n".encode(), ".zip", name))
    read = [list(TextFile(file).lines()) for file in expand_files([str(home / "a.zip")])]
    assert ["가나다"] in read and os.listdir(home) == ["a.zip"]


@pytest.mark.parametrize("name", [*(name for name in OUTSIDE if name != "a\\b"), "../outside/model.ckpt-1.index"])
def test_shards_of_a_manifest_that_lie_elsewhere_are_not_removed(home, name):
    pytest.importorskip("apache_beam", reason="Beam is an extra: pip install .[beam]")
    shard = {"file": name, "bytes": 9, "records": 1}
    manifest = {"format_version": 1, "max_seq_length": LENGTH, "train": {"shards": [shard]}, "shards": [shard]}
    (home / "manifest.json").write_text(json.dumps(manifest))
    assert build_folder.shards_of(manifest) == []
    build_folder.BuildFolder(str(home), ".*").claim({"seed": 1}, overwrite=True)
    beam_pipelines = pytest.importorskip("pretrain.beam_pipelines", reason="apache-beam is not installed (beam extra)")
    (home / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="unfinished_build.*already"):
        beam_pipelines._claim(str(home), [""], overwrite=True)


@pytest.mark.parametrize("place", ["../outside/model.ckpt-1", "{outside}/model.ckpt-1", "model.ckpt-1"])
def test_checkpoints_elsewhere_that_a_state_file_or_a_link_names_are_not_removed(home, place):
    outside = str(home.parent / "outside")
    path = place.format(outside=outside)
    (home / "checkpoint").write_text(f"model_checkpoint_path: {json.dumps(path)}\nall_model_checkpoint_paths: {json.dumps(path)}\n")
    os.symlink(f"{outside}/model.ckpt-1.index", home / "model.ckpt-1.index")
    variables = [tf.Variable([1.0], name="a")]
    for step in (1, 2, 3):
        checkpoint.remove_leftovers(str(home))
        checkpoint.save(str(home), step, variables, keep_max=1)
    assert sorted(os.listdir(home)) == ["checkpoint", "model.ckpt-3.data-00000-of-00001", "model.ckpt-3.index"]


def test_a_bomb_is_given_up_at_the_longest_line(home):
    (home / "bomb.txt.gz").write_bytes(gzip.compress(bytes(1 << 27)))  # 128 MiB in 130 KB
    tracemalloc.start()
    with pytest.raises(DataError, match="longer than 16,777,216 bytes"):
        list(TextFile(str(home / "bomb.txt.gz")).lines())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20
