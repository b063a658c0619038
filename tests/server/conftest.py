"""A served model of seconds: NSMC of tests/finetune, as a SavedModel."""

import functools
import pathlib

import pytest
import tensorflow as tf

from configure_finetuning import FinetuningConfig
from export.exporter import ExportConfig, export
from finetune.finetuning_run import FinetuningRun
from tests.finetune.conftest import TINY, home, make_config, make_home, several, tiny  # noqa: F401 (fixtures)

_load_once = functools.cache(tf.saved_model.load)


@pytest.fixture(scope="module", autouse=True)
def load_once():
    """Seconds for each test otherwise, in a process that holds many functions already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.saved_model, "load", _load_once)
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> pathlib.Path:
    """A folder with a fine-tuned model and, under served/3, its SavedModel."""
    pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed (serve extra)")
    folder = make_home(tmp_path_factory.mktemp("trained"))
    FinetuningRun(FinetuningConfig.create("tiny", str(folder), {**TINY, "num_train_epochs": 1.0})).run()
    fields = {"checkpoint": str(folder / "models"), "part": "finetuned", "format": "saved_model"}
    export(ExportConfig.create({**fields, "output_dir": str(folder / "served" / "3")}))
    return folder


@pytest.fixture(scope="session")
def served(trained) -> pathlib.Path:
    return trained / "served"
