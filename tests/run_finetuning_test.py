import json
import os
import random
import subprocess
import sys
import time

import pytest

from model import checkpoint
from tests.kills import kill_at_random, temporary_files

SHAPE = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "max_position_embeddings": 32}
HPARAMS = {
    "task_names": ["nsmc"],
    "model_hparam_overrides": SHAPE,
    "tokenizer_type": "wordpiece",
    "max_seq_length": 16,
    "train_batch_size": 8,
    "dev_fraction": 0.2,
    "init_checkpoint": "none",
}


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "finetuning_data" / "nsmc"
    folder.mkdir(parents=True)
    words = ["좋다", "나쁘다", "영화", "배우"]
    generator = random.Random(1)
    for name, count in (("ratings_train.txt", 100), ("ratings_test.txt", 20)):
        labels = [generator.randrange(2) for _ in range(count)]
        rows = [f"{index}\t{generator.choice(words[2:])} {index} {words[1 - label]}\t{label}" for index, label in enumerate(labels)]
        (folder / name).write_text("\n".join(["id\tdocument\tlabel", *rows]) + "\n", encoding="utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n", encoding="utf-8")
    return tmp_path


def arguments(data_dir, *flags, **hparams):
    return [f"--data_dir={data_dir}", "--model_name=tiny", f"--hparams={json.dumps(HPARAMS | hparams)}", *flags]


def test_the_script_trains_scores_and_prints_the_table(run_script, data_dir):
    result = run_script("run_finetuning.py", *arguments(data_dir, "--num_train_epochs=1", "--task_names=nsmc"))
    assert "recipe: google" in result.stdout and "start: random weights" in result.stdout
    (row,) = [line.split() for line in result.stdout.splitlines() if line.startswith("nsmc  test   accuracy")]
    assert 0 <= float(row[3]) <= 100 and row[7:9] == ["1", "20"]
    (folder,) = (data_dir / "models" / "tiny" / "results").iterdir()
    assert json.loads((folder / "results.json").read_text())["trials"][0]["seed"] == 42


def test_a_left_over_argument_is_refused(run_script, data_dir):
    assert_refused(run_script("run_finetuning.py", *arguments(data_dir, "--do_train", "False"), check=False), ["argument 'False'"])
    assert not (data_dir / "models").exists()


def test_flags_of_the_search_need_it(run_script, data_dir):
    assert_refused(run_script("run_finetuning.py", *arguments(data_dir, "--search_trials=3"), check=False), ["--search_trials", "--search"])


@pytest.mark.slow
def test_a_killed_search_finds_what_an_undisturbed_one_finds(run_script, data_dir):
    pytest.importorskip("optuna", reason="Optuna is an extra: pip install .[search]")
    space = json.dumps({"learning_rate": [1e-5, 3e-3], "warmup_proportion": [0.0, 0.1]})
    flags = ["--search", "--search_trials=4", f"--search_space={space}", "--num_train_epochs=10", "--save_checkpoints_steps=5"]

    def command(name):
        return arguments(
            data_dir, *flags, "--eval_every_steps=25", f"--model_dir={data_dir}/{name}", f"--results_dir={data_dir}/{name}_results"
        )

    table = run_script("run_finetuning.py", *command("whole"), timeout=900).stdout
    kills = sum(kill_in_training(command("killed"), data_dir / "killed", delay) for delay in (0.0, 1.0, 2.5))
    run_script("run_finetuning.py", *command("killed"), timeout=900)
    whole, killed = (json.loads(next((data_dir / f"{name}_results").glob("*/study.json")).read_text()) for name in ("whole", "killed"))
    for study in (whole, killed):
        for trial in study["trials"]:
            del trial["seconds"]
    assert kills >= 1 and killed == whole and len(whole["trials"]) == 4
    assert f"best: trial {whole['best']}" in table and not list((data_dir / "killed").iterdir())


def kill_in_training(command, model_dir, delay) -> bool:
    """Kills the script `delay` seconds after a checkpoint is there; returns whether it was still running."""
    script = os.path.join(os.path.dirname(os.path.dirname(__file__)), "run_finetuning.py")
    process = subprocess.Popen([sys.executable, script, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(model_dir.glob("*/*/model.ckpt*")):
        time.sleep(0.05)
    time.sleep(delay)
    running = process.poll() is None
    process.kill()
    process.wait()
    return running


def test_a_bad_row_ends_with_code_2_and_one_sentence(run_script, data_dir):
    path = data_dir / "finetuning_data" / "nsmc" / "ratings_train.txt"
    path.write_text(path.read_text(encoding="utf-8") + "7\t영화\t긍정\n", encoding="utf-8")
    result = run_script("run_finetuning.py", *arguments(data_dir), check=False)
    assert_refused(result, ["ratings_train.txt, line 102", "label '긍정'", "allowed: 0, 1"])
    assert not (data_dir / "models" / "tiny" / "results").exists()


def test_a_mistake_in_a_task_of_ones_own_ends_with_code_2_and_one_sentence(run_script, data_dir):
    (data_dir / "mood.yaml").write_text("name: mood\ntype: clasification\n", encoding="utf-8")
    result = run_script("run_finetuning.py", *arguments(data_dir, f"--task_config={data_dir}/mood.yaml"), check=False)
    assert_refused(result, ["mood.yaml: type must be one of classification, regression, tagging", "'clasification'", "--task_config"])


@pytest.mark.slow
def test_the_script_starts_from_a_folder_of_transformers_and_runs_nothing_that_is_in_it(run_script, data_dir, tmp_path):
    torch = pytest.importorskip("torch", reason="the referee torch is not installed (parity extra)")
    transformers = pytest.importorskip("transformers", reason="the referee transformers is not installed (parity extra)")
    folder, rows = tmp_path / "published", len((data_dir / "vocab.txt").read_text(encoding="utf-8").split("\n")) - 1
    config = transformers.BertConfig(vocab_size=rows, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_bytes((data_dir / "vocab.txt").read_bytes())
    hparams = {
        name: value for name, value in HPARAMS.items() if name not in ("model_hparam_overrides", "tokenizer_type", "init_checkpoint")
    }
    flags = [f"--data_dir={data_dir}", "--model_name=tiny", "--recipe=dialog", f"--hparams={json.dumps(hparams)}"]
    command = [*flags, "--num_train_epochs=1", f"--init_checkpoint={folder}"]
    assert f"start: {folder}" in run_script("run_finetuning.py", *command).stdout

    data, weights = (folder / "model.safetensors").read_bytes(), folder / "model.safetensors"
    weights.write_bytes(data[:-7])
    assert_refused(run_script("run_finetuning.py", *command, "--seed=2", check=False), ["model.safetensors is damaged"], code=1)

    weights.unlink()
    torch.save({"bert.embeddings.word_embeddings.weight": Malicious(str(tmp_path / "trace"))}, folder / "pytorch_model.bin")
    assert_refused(
        run_script("run_finetuning.py", *command, "--seed=3", check=False), ["pytorch_model.bin holds something else", "not run"]
    )
    assert not (tmp_path / "trace").exists()


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def assert_refused(result, words, code=2):
    assert result.returncode == code, result.stderr[-2000:]
    message = result.stderr.splitlines()[-1]
    assert message.startswith("run_finetuning.py: error: ") and "Traceback" not in result.stderr
    assert all(word in message for word in words), message


@pytest.mark.slow
def test_trained_again_and_again_after_kills_and_on_full_disks(fork_script, mount, data_dir):
    """The scores, the predictions, and the bits of the weights that were selected."""
    flags = ["--num_trials=2", "--num_train_epochs=6", "--save_checkpoints_steps=5", "--eval_every_steps=20", "--write_test_outputs"]
    killed = data_dir / "killed"

    def start(folder=killed):
        places = [f"--model_dir={folder}/models", f"--results_dir={folder}/results", f"--preprocessed_data_dir={folder}/features"]
        return fork_script("run_finetuning.py", *arguments(data_dir, *flags, *places))

    def outcome(folder):
        (path,) = folder.glob("results/*/results.json")
        (best,) = folder.glob("models/*/seed_43/best/model.ckpt-*.index")
        prefix = str(best.with_suffix(""))
        weights = checkpoint.read(prefix, sorted(checkpoint.read_shapes(prefix)))
        trials = json.loads(path.read_text())["trials"]
        kept = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        return kept, {
            "trials": [{name: value for name, value in trial.items() if name != "seconds"} for trial in trials],
            "weights": {name: value.tobytes() for name, value in weights.items()},
            "predictions": {file.name: file.read_bytes() for file in path.parent.glob("*.tsv")},
        }

    assert start(data_dir / "whole").wait().code == 0
    whole = outcome(data_dir / "whole")
    assert len(whole[1]["trials"]) == 2 and whole[1]["predictions"]

    def assert_undisturbed() -> None:
        assert outcome(killed) == whole

    kill_at_random(start, killed, assert_undisturbed, lambda: temporary_files(killed))
    for options in ("size=4k", "size=40k"):
        full = mount(options) / "run"
        result = start(full).wait()
        assert result.code in (1, 2) and "No space left on device" in result.last_line and "Traceback" not in result.err
        assert not temporary_files(full)
        mount("size=10m")
    assert start(full).wait().code == 0
    assert outcome(full) == whole
