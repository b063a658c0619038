"""The shell scripts: usage, argument errors, the commands they would run, and the environment they make."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from configure_finetuning import FinetuningConfig
from configure_pretraining import PretrainingConfig
from pretrain import pretraining_run
from pretrain.dataset_builder import DatasetConfig
from pretrain.vocab_builder import VocabConfig
from tests.pretraining_home import HELD_OUT, HPARAMS, LENGTH, history, make_home, variables

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNNABLE = ["quickstart.sh", "run_tests.sh", "finetune_all.sh", "download_data.sh"]
RUNNABLE += ["pretrain_gpu.sh", "pretrain_tpu.sh", "pretrain_multiworker.sh"]
ALL = [*RUNNABLE, "common.sh", "pretrain_steps.sh"]
CONFIG_OF = {
    "build_vocab.py": VocabConfig,
    "build_pretraining_dataset.py": DatasetConfig,
    "run_pretraining.py": PretrainingConfig,
    "run_finetuning.py": FinetuningConfig,
}
INPUT = f"--corpus_dir={ROOT}/data/sample/corpus"


def bash(*command: str, **environment: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **environment}
    return subprocess.run(["bash", *command], capture_output=True, text=True, timeout=900, cwd=ROOT, env=environment)


def check_flags(command: list[str]) -> None:
    """Every flag of a python command exists."""
    allowed = {field.name for field in dataclasses.fields(CONFIG_OF[pathlib.Path(command[1]).name])} | {"hparams"}
    for word in command[2:]:
        name = re.match(r"--(\w+)", word)[1]
        assert name in allowed, f"{command[1]} has no flag --{name}"


@pytest.mark.parametrize("name", ALL + ["../.ci/run"])
def test_is_valid_bash(name):
    assert bash("-n", f"scripts/{name}").returncode == 0
    if shutil.which("shellcheck"):
        result = subprocess.run(["shellcheck", "-x", "-P", "SCRIPTDIR", ROOT / "scripts" / name], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", RUNNABLE)
def test_help_is_the_comment_at_the_top(name):
    result = bash(f"scripts/{name}", "--help")
    assert result.returncode == 0 and f"scripts/{name}" in result.stdout
    assert "set -euo" not in result.stdout and not re.search("^#", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["quickstart.sh", "--data_dir=/no/such"], "no folder '/no/such' (--data_dir)"),
        (["quickstart.sh", "--data_dir=tests/golden"], "golden/corpus (--data_dir)"),
        (["quickstart.sh", "--fast"], "unexpected argument '--fast'"),
        (["finetune_all.sh", "nsmc"], "unexpected argument 'nsmc'"),
        (["pretrain_gpu.sh"], "--corpus_dir is required"),
        (["pretrain_gpu.sh", INPUT], "--output_dir is required"),
        (["pretrain_gpu.sh", "--corpus_dir=/no/such", "--output_dir=x"], "no folder '/no/such' (--corpus_dir)"),
        (["pretrain_gpu.sh", INPUT, "--output_dir=x", "--hparams=no.json"], "no file 'no.json' (--hparams)"),
        (["pretrain_gpu.sh", INPUT, "--output_dir", "x"], "unexpected argument '--output_dir'"),
        (["pretrain_gpu.sh", INPUT, "--tpu_name=x"], "unknown flag --tpu_name"),
        (["pretrain_tpu.sh", INPUT, "--output_dir=/local"], "must be a gs:// folder"),
        (["pretrain_tpu.sh", INPUT], "must be a gs:// folder"),
        (["pretrain_multiworker.sh", "--workers=a:1"], "--data_dir is required"),
        (["pretrain_multiworker.sh", "--data_dir=/no/such"], "no folder '/no/such/pretrain_tfrecords'"),
        (["pretrain_multiworker.sh", "--data_dir=gs://b", "--workers=a:1,b"], "workers must be HOST:PORT,HOST:PORT,..., got 'a:1,b'"),
        (["pretrain_multiworker.sh", "--data_dir=gs://b", "--workers=a:1,b:1", "--index=2"], "a number from 0 to 1, got '2' (--index)"),
        (["pretrain_multiworker.sh", "--data_dir=gs://b", "--local_workers=0"], "a number from 1 on, got '0' (--local_workers)"),
        (["pretrain_multiworker.sh", "--data_dir=gs://b", "--local_workers=2", "--index=0"], "excludes --workers and --index"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_arguments_end_with_one_sentence_and_code_2(arguments, message):
    result = bash(f"scripts/{arguments[0]}", *arguments[1:])
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith(f"{arguments[0]}: error: ") and message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def _dry_run(*arguments: str) -> list[list[str]]:
    result = bash(f"scripts/{arguments[0]}", *arguments[1:], "--dry_run")
    assert result.returncode == 0, result.stderr
    return [shlex.split(line) for line in result.stdout.splitlines()]


def test_pretrain_gpu_goes_the_whole_way_with_the_published_numbers(tmp_path):
    folder = tmp_path / "with space"
    vocabulary, records, training = _dry_run("pretrain_gpu.sh", INPUT, f"--output_dir={folder}")
    for command in (vocabulary, records, training):
        check_flags(command)
    assert {"--vocab_size=40000", "--unused_size=500", "--limit_alphabet=6000", "--min_frequency=3"} <= set(vocabulary)
    assert {f"--vocab_file={folder}/vocab.txt", "--max_seq_length=128"} <= set(records)
    assert {f"--data_dir={folder}", f"--hparams={ROOT}/configs/dialog_koelectra_small.json", "--do_eval"} <= set(training)
    assert not folder.exists()


def test_pretrain_tpu_copies_the_data_to_the_bucket_and_trains_there():
    vocabulary, records, *copies, training = _dry_run(
        "pretrain_tpu.sh", INPUT, "--output_dir=gs://bucket/run", "--work_dir=work", "--tpu_name=pod", "--tpu_zone=zone-a"
    )
    for command in (vocabulary, records, training):
        check_flags(command)
    assert [copy[:3] for copy in copies] == [["gcloud", "storage", "cp"], ["gcloud", "storage", "rsync"]]
    assert all(copy[-1].startswith("gs://bucket/run") for copy in copies)
    assert {"--data_dir=gs://bucket/run", "--use_tpu", "--tpu_name=pod", "--tpu_zone=zone-a"} <= set(training)
    assert not any(word.startswith("--gcp_project") for word in training)


def test_what_follows_two_dashes_goes_to_pretraining():
    result = bash("scripts/pretrain_gpu.sh", INPUT, "--output_dir=x", "--dry_run", "--", "--gradient_accumulation_steps=2")
    commands = [shlex.split(line) for line in result.stdout.splitlines()]
    assert ["--gradient_accumulation_steps=2" in command for command in commands] == [False, False, True]


def test_pretrain_multiworker_tells_each_worker_of_all_and_which_one_it_is():
    flags = ["--data_dir=gs://bucket/run", "--workers=a.example:2222,10.0.0.2:2222"]
    (command,) = _dry_run("pretrain_multiworker.sh", *flags, "--index=1")
    assert command[0] == "env" and json.loads(command[1].removeprefix("TF_CONFIG=")) == {
        "cluster": {"worker": ["a.example:2222", "10.0.0.2:2222"]},
        "task": {"type": "worker", "index": 1},
    }
    check_flags(command[2:])
    assert {"--data_dir=gs://bucket/run", "--max_seq_length=128", "--do_eval"} <= set(command)
    local = _dry_run("pretrain_multiworker.sh", "--data_dir=gs://bucket/run", "--local_workers=3")
    configs = [json.loads(command[1].removeprefix("TF_CONFIG=")) for command in local]
    assert [config["task"]["index"] for config in configs] == [0, 1, 2]
    addresses = configs[0]["cluster"]["worker"]
    assert len(set(addresses)) == 3 and all(config["cluster"]["worker"] == addresses for config in configs)
    assert all(re.fullmatch(r"localhost:\d+", address) for address in addresses)


def test_every_flag_in_quickstart_exists():
    allowed = {"hparams", "help"} | {field.name for config in CONFIG_OF.values() for field in dataclasses.fields(config)}
    used = set(re.findall(r"(?<=[\s(])--(\w+)", (ROOT / "scripts" / "quickstart.sh").read_text()))
    used = {name.removeprefix("no") if name not in allowed else name for name in used}  # --noswitch turns a switch off
    assert len(used) > 15 and used <= allowed


# --- the environment ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path):
    """A copy of the scripts whose .venv is a stand-in: python runs this interpreter, and pip only writes down its arguments."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "setup.py", tmp_path)
    executable = tmp_path / ".venv" / "bin" / "python"
    executable.parent.mkdir(parents=True)
    pip = f'[ "$3" = --version ] || echo "$@" >>"{tmp_path}/pip.log"'
    executable.write_text(f'#!/bin/sh\nif [ "$2" = pip ]; then {pip}; else exec {sys.executable} "$@"; fi\n')
    executable.chmod(0o755)
    return tmp_path


def _make_environment(checkout: pathlib.Path, *extras: str) -> list[str]:
    command = f'set -euo pipefail; source "{checkout}/scripts/common.sh"; make_environment {" ".join(extras)}'
    assert bash("-c", command).returncode == 0
    log = checkout / "pip.log"
    installed = [line.split()[-1] for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return installed


def test_installs_once_and_again_only_for_a_new_extra_or_a_changed_setup(checkout):
    assert _make_environment(checkout) == ["."]
    assert _make_environment(checkout) == []
    assert _make_environment(checkout, "dev", "parity") == [".[dev,parity]"]
    assert _make_environment(checkout, "dev") == [] and _make_environment(checkout) == []
    (checkout / "setup.py").write_text("# other bounds\n")
    assert _make_environment(checkout, "dev") == [".[dev]"]


def test_a_failed_installation_is_tried_again(checkout):
    good = (checkout / ".venv" / "bin" / "python").read_text()
    (checkout / ".venv" / "bin" / "python").write_text('#!/bin/sh\n[ "$3" = --version ]\n')
    command = f'set -euo pipefail; source "{checkout}/scripts/common.sh"; make_environment'
    assert bash("-c", command).returncode == 1
    (checkout / ".venv" / "bin" / "python").write_text(good)
    assert _make_environment(checkout) == ["."]


def test_no_suitable_python_names_the_package_to_install():
    result = bash("-c", "source scripts/common.sh; find_python", PYTHON="/no/such/python")
    assert result.returncode == 2 and "/no/such/python" in result.stderr and "apt-get install python3 python3-venv" in result.stderr


def test_python_without_venv_names_the_package_to_install(tmp_path):
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\n')
    python.chmod(0o755)
    command = f'set -euo pipefail; source scripts/common.sh; VENV="{tmp_path}/.venv"; make_environment'
    result = bash("-c", command, PYTHON=str(python))
    assert result.returncode == 2 and "apt-get install python3-venv" in result.stderr


def test_too_old_a_python_is_passed_over(tmp_path):
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    other = tmp_path / "python3.12"
    other.write_text("#!/bin/sh\nexit 0\n")
    other.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert bash("-c", "source scripts/common.sh; find_python", PATH=path, PYTHON="").stdout == "python3.12\n"


# --- several workers -----------------------------------------------------------------------------------------------------------


def _start_workers(checkout: pathlib.Path, *arguments: str) -> subprocess.Popen:
    command = ["bash", checkout / "scripts" / "pretrain_multiworker.sh", f"--data_dir={checkout}/home", "--local_workers=2"]

    def heed_interrupts() -> None:  # which whoever runs the tests in the background may have switched off for all below
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, *arguments], preexec_fn=heed_interrupts, **pipes)


@pytest.fixture
def workers(checkout):
    """A checkout in which run_pretraining.py is a stand-in: the shell commands given, with the worker's number in $worker."""
    shutil.copytree(ROOT / "configs", checkout / "configs")
    (checkout / "home" / "pretrain_tfrecords").mkdir(parents=True)
    executable = checkout / ".venv" / "bin" / "python"
    original = executable.read_text()

    def start(commands: str) -> subprocess.Popen:
        number = """worker=$(echo "$TF_CONFIG" | sed 's/.*"index": \\([0-9]\\).*/\\1/')"""
        executable.write_text(original.replace("if [", f'case "$1" in *run_pretraining.py) {number}; {commands} ;; esac\nif [', 1))
        return _start_workers(checkout)

    return start


def test_a_failed_worker_ends_the_others_and_its_code_is_the_scripts(workers, checkout):
    process = workers(f"[ $worker = 1 ] && exit 3; echo $$ >{checkout}/pid; exec sleep 300")
    assert process.wait(timeout=60) == 3
    if (checkout / "pid").exists():  # else it was ended before it wrote this down
        assert not pathlib.Path("/proc", (checkout / "pid").read_text().strip()).exists()


def test_workers_that_all_fail_at_once_do_not_pass_for_a_success(workers):
    assert workers("exit 2").wait(timeout=60) == 2


def test_workers_that_all_end_well_make_a_success(workers):
    assert workers("sleep $worker; exit 0").wait(timeout=60) == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_on_to_every_worker(workers, checkout, signum):
    name = signum.name.removeprefix("SIG")
    trap = f"trap 'touch {checkout}/told$worker; exit {128 + signum}' {name}; touch {checkout}/ready$worker"
    process = workers(f"{trap}; while true; do sleep 0.1; done")
    limit = time.monotonic() + 60
    while not all((checkout / f"ready{number}").exists() for number in (0, 1)):
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signum)
    assert process.wait(timeout=60) == 128 + signum
    assert all((checkout / f"told{number}").exists() for number in (0, 1))


@pytest.mark.slow
def test_two_workers_pretrain_as_one_process_with_two_input_streams(checkout, tmp_path):
    """Real processes over loopback, from TFRecords to the evaluation's results."""
    _copy_code(checkout)
    home = make_home(checkout / "home")
    settings = {**HPARAMS, "num_eval_steps": 0}
    alone = {"model_dir": str(tmp_path / "alone"), "input_streams": 2, "do_eval": True}
    pretraining_run.run(PretrainingConfig.create("mini", str(home), {**settings, **alone}))
    shapes = f"--hparams={checkout / 'hparams.json'}"
    (checkout / "hparams.json").write_text(json.dumps(settings))
    process = _start_workers(checkout, "--model_name=mini", shapes, f"--max_seq_length={LENGTH}")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]
    assert errors.count("Each of 2 workers reads only its shards: 2 input streams") == 2
    found, expected = home / "models" / "mini", tmp_path / "alone"
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}
    for row, other in zip(history(found), history(expected), strict=True):
        assert (row["step"], row["examples"], row["tokens"]) == (other["step"], other["examples"], other["tokens"])
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-5)
    weights, others = variables(found / "model.ckpt-6"), variables(expected / "model.ckpt-6")
    for name, value in weights.items():
        np.testing.assert_allclose(value, others[name], rtol=0, atol=2e-6, err_msg=name)
    results, others = (json.loads((folder / "results" / "unsup_results.json").read_text()) for folder in (found, expected))
    assert results["examples"] == HELD_OUT and results == pytest.approx(others, rel=1e-4, abs=1e-4)


# --- quickstart --------------------------------------------------------------------------------------------------------------


def test_quickstart_never_removes_a_folder_it_did_not_make(checkout):
    kept = checkout / "runs" / "quickstart" / "thesis.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("years of work")
    shutil.copytree(ROOT / "configs", checkout / "configs")
    result = bash(str(checkout / "scripts" / "quickstart.sh"), f"--data_dir={ROOT}/data/sample")
    assert result.returncode == 2 and "in the way" in result.stderr
    assert kept.read_text() == "years of work"


def test_results_table_shows_both_starts(tmp_path):
    def write(path, value):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(value), encoding="utf-8")

    metrics = {"masked_lm_accuracy": 0.25, "disc_accuracy": 0.9, "disc_recall": 0.5, "disc_auc": 0.875, "loss": 20.0}
    write(tmp_path / "models" / "quickstart" / "results" / "unsup_results.json", metrics)
    for start, accuracy in (("pre-trained", 93.5), ("random", 71.25)):
        summary = {"nsmc": {"test": {"accuracy": {"mean": accuracy}}}}
        write(tmp_path / "results" / start / "nsmc-abc" / "results.json", {"summary": summary})
    command = [sys.executable, ROOT / "scripts" / "quickstart_results.py", tmp_path]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[-2] for line in lines] == ["25.00", "90.00", "50.00", "87.50", "93.50", "71.25"]
    assert "pre-trained" in lines[-2] and "random" in lines[-1]


def _copy_code(checkout: pathlib.Path) -> None:
    for name in (*CONFIG_OF, "configure_pretraining.py", "configure_finetuning.py"):
        shutil.copy(ROOT / name, checkout)
    for name in ("model", "pretrain", "finetune", "configs"):
        shutil.copytree(ROOT / name, checkout / name)


def test_finetune_all_needs_the_quickstart_or_a_model(checkout):
    result = bash(str(checkout / "scripts" / "finetune_all.sh"))
    assert result.returncode == 2 and "run scripts/quickstart.sh first, or give --data_dir and --model_name" in result.stderr


@pytest.mark.slow
def test_finetune_all_scores_the_six_sample_tasks_and_again_without_work(checkout):
    _copy_code(checkout)
    sample, home = ROOT / "data" / "sample", checkout / "home"
    home.mkdir()
    text = "".join(path.read_text(encoding="utf-8") for path in sample.rglob("*train*.t*"))
    characters = sorted({char for char in text if not char.isspace()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *("##" + char for char in characters)]
    (home / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    shape = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    hparams = {"model_hparam_overrides": shape, "embedding_size": 16, "init_checkpoint": "none", "tokenizer_type": "wordpiece"}
    hparams |= {"max_seq_length": 32, "num_train_epochs": 0.1, "predict_batch_size": 128}
    flags = [f"--data_dir={home}", "--model_name=tiny", f"--raw_data_dir={sample}", f"--hparams={json.dumps(hparams)}", "--recipe=google"]
    first = bash(str(checkout / "scripts" / "finetune_all.sh"), *flags)
    assert first.returncode == 0, first.stderr[-3000:]
    row = next(line for line in first.stdout.splitlines() if "**tiny** (ours)" in line)
    assert len(re.findall(r"\d+\.\d\d ", row)) == 6 and "stand-in" not in first.stdout
    (page,) = (home / "models" / "tiny" / "results").glob("benchmark-*/benchmark.html")
    assert row.split("|")[2].strip() in page.read_text(encoding="utf-8")
    results = {path: path.stat().st_mtime_ns for path in home.rglob("results.json")}
    again = bash(str(checkout / "scripts" / "finetune_all.sh"), *flags)
    assert again.returncode == 0 and again.stdout[again.stdout.index("| ") :] == first.stdout[first.stdout.index("| ") :]
    assert len(results) == 6 and results == {path: path.stat().st_mtime_ns for path in home.rglob("results.json")}, "done again"


@pytest.mark.slow
def test_quickstart_goes_the_whole_way_and_again_without_work(checkout):
    """On a slice of the sample and with few steps: text to results table, then the same command once more."""
    _copy_code(checkout)
    data = checkout / "own data"
    for source, lines in (("corpus/dialogues.txt", 600), ("nsmc/ratings_train.txt", 161), ("nsmc/ratings_test.txt", 41)):
        (data / source).parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / "data" / "sample" / source).read_text(encoding="utf-8").split("\n")
        (data / source).write_text("\n".join(text[:lines]) + "\n", encoding="utf-8")
    script = checkout / "scripts" / "quickstart.sh"
    text = script.read_text()
    for name, value in (("num_train_steps", 4), ("num_warmup_steps", 1), ("num_train_epochs", 1)):
        text, replaced = re.subn(rf"--{name}=\d+", f"--{name}={value}", text)
        assert replaced == 1
    script.write_text(text)
    first = bash(str(script), f"--data_dir={data}")
    assert first.returncode == 0, first.stderr[-3000:]
    assert re.search(r"nsmc test accuracy, pre-trained weights +\d+\.\d\d %", first.stdout)
    assert re.search(r"nsmc test accuracy, random weights +\d+\.\d\d %", first.stdout)
    again = bash(str(script), f"--data_dir={data}")
    assert again.returncode == 0 and again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
