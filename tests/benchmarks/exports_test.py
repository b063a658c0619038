"""benchmarks/exports.py on a model of seconds: every format is run on every row of the test split."""

import json
import subprocess
import sys

import pytest

from finetune.finetuning_run import FinetuningRun
from tests.conftest import ROOT
from tests.finetune.conftest import home, make_config, tiny  # noqa: F401 (fixtures)


@pytest.mark.slow
def test_every_format_scores_the_test_split(make_config, home):  # noqa: F811
    for name in ("tensorflow_text", "tf2onnx", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (export extra)")
    results = FinetuningRun(make_config(num_train_epochs=6.0)).run()
    flags = [f"--model={home / 'models'}", f"--output_dir={home / 'exports'}"]
    command = [sys.executable, str(ROOT / "benchmarks" / "exports.py"), *flags]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, timeout=300)
    found = json.loads((home / "exports" / "exports.json").read_text())
    scores = {row["format"]: row["accuracy"] for row in found["formats"]}
    assert found["rows"] == 60 and list(scores) == ["our network", "SavedModel", "ONNX", "ONNX.int8", "TFLite", "TFLite.int8"]
    expected = results.trials[0]["scores"]["nsmc"]["test"]["accuracy"]
    assert scores["our network"] == scores["SavedModel"] == scores["ONNX"] == scores["TFLite"] == pytest.approx(expected)
    assert all(row["ms"] > 0 for row in found["formats"])
