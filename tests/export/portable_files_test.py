"""ONNX files, run by onnxruntime, and TFLite files, run by its interpreter, against the original's numbers and our predictions."""

import json

import numpy as np
import pytest

from export import onnx_export, tflite_export
from export.exporter import ExportConfig, export
from finetune.finetuning_run import FinetuningRun
from finetune.prediction import Predictor
from model.command import DataError

TOLERANCE = {"rtol": 0, "atol": 1e-4}
NAMES = ("input_ids", "input_mask", "segment_ids")


RUNNERS = {"onnx": onnx_export.runner, "tflite": tflite_export.runner}


@pytest.fixture(params=["onnx", "tflite"])
def export_to(request, tmp_path):
    """export_to(field=value, ...) -> functions of input_ids, input_mask and segment_ids: of the file, and of the one with int8 weights."""
    kind = request.param
    if kind == "onnx":
        pytest.importorskip("tf2onnx", reason="tf2onnx is not installed (export extra)")

    def run(**fields):
        export(ExportConfig.create({"format": kind, "output_dir": str(tmp_path / "out"), **fields}))
        return [RUNNERS[kind](str(tmp_path / "out" / f"model.{suffix}{kind}")) for suffix in ("", "int8.")]

    return run


@pytest.mark.parametrize("part", ["discriminator", "generator"])
def test_both_files_say_what_the_original_said(export_to, golden, original, tmp_path, part):
    exact, quantized = export_to(**original, part=part)
    numbers = np.load(golden / "small" / "outputs.npz")
    given = {"discriminator": "fake_input_ids", "generator": "masked_input_ids"}[part]
    features = dict(zip(NAMES, (numbers[name].astype(np.int32) for name in (given, *NAMES[1:])), strict=True))
    if part == "discriminator":
        where = numbers["input_mask"].astype(bool)
        found, small = (run(features)["probabilities"][where] for run in (exact, quantized))
        expected = numbers["disc_probs"][where]
    else:
        where = numbers["masked_lm_weights"] > 0
        places = numbers["masked_lm_positions"].astype(np.int64)[..., None]
        found, small = (np.take_along_axis(run(features)["logits"], places, 1)[where] for run in (exact, quantized))
        expected = numbers["mlm_logits"][where]
    np.testing.assert_allclose(found, expected, **TOLERANCE)
    assert 0 < np.abs(small - expected).mean() < 0.1 * np.abs(expected).mean() + 0.01
    assert exact({name: values[:1, :7] for name, values in features.items()})[("probabilities", "logits")[part == "generator"]].shape[
        :2
    ] == (1, 7)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").glob("model.*")}
    assert min(sizes.values()) < 0.6 * max(sizes.values()), sizes


def test_a_fine_tuned_model_with_its_labels(export_to, make_config, home, tmp_path):
    FinetuningRun(make_config(num_train_epochs=1.0)).run()
    exact, _ = export_to(checkpoint=str(home / "models"), part="finetuned")
    predictor, texts = Predictor(str(home / "models")), ["영화 좋다", "지루 최악 배우 화면"]
    tokenizer = predictor._preprocessor._tokenizer
    for text, ours in zip(texts, predictor.predict(texts), strict=True):
        ids = np.int32([[tokenizer.cls_id, *tokenizer.encode(text), tokenizer.sep_id]])
        found = exact(dict(zip(NAMES, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True)))
        np.testing.assert_allclose(found["probabilities"][0], [*ours["probabilities"].values()], **TOLERANCE)
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == ["0", "1"]
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == (home / "vocab.txt").read_bytes()


def test_a_file_that_computes_something_else_is_refused(export_to, original, tmp_path, wrong_logits):
    with pytest.raises(DataError, match="model.(onnx|tflite): logits of discriminate differs by 0.001"):
        export_to(**original)
    assert not (tmp_path / "out").exists()
