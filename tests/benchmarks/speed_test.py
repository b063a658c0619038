"""Benchmarks of speed on tiny shapes: rivals take turns and compute the same, variants of the step too, and scripts write their tables."""

import itertools
import json
import math

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import ablations, contest, finetuning, inference, pretraining_step, soak
from flops_computation import ACTUAL, count_parameters, training_cost
from model import layers, modeling, optimization
from model.command import UserError
from model.estimator import InputContext
from pretrain import pretrain_helpers, pretraining_model, pretraining_run
from pretrain.pretraining_run import Vocabulary
from tests.conftest import ROOT
from tests.finetune.conftest import home, tiny  # noqa: F401 (fixtures)

SHAPE = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SETTINGS = {
    "vocab_size": 1000,
    "train_batch_size": 4,
    "max_seq_length": 32,
    "embedding_size": 32,
    "generator_hidden_size": 0.5,
    "model_hparam_overrides": SHAPE,
}
SPEC = {"task": "nsmc", "batches": 2, "data_dir": "", "settings": {}, "precision": "float32"}

RIVAL = """
import sys, time
from benchmarks import contest
from absl import app, flags
flags.DEFINE_string("rival", None, "")
def main(_):
    if flags.FLAGS.rival == '"broken"':
        sys.exit(3)
    contest.answer(lambda times: time.sleep(float(flags.FLAGS.rival) * times))
app.run(main)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = tmp_path / "rival.py"
    path.write_text(RIVAL)
    return str(path)


def test_rivals_take_turns_and_their_medians_are_seconds_of_one_repetition(script):
    slow, fast = contest.race(script, {"slow": 0.04, "fast": 0.01}, rounds=3, times=2, warm_up=1)
    assert (slow["name"], fast["name"]) == ("slow", "fast")
    assert 0.04 <= slow["fastest"] <= slow["seconds"] < 0.08 and 0.01 <= fast["seconds"] < 0.04
    assert len(slow["rounds"]) == 3 and fast["memory"] > 2**20 and 0.0 <= fast["cpu_seconds"] < fast["seconds"]


def test_a_rival_that_ends_is_named(script):
    with pytest.raises(UserError, match="poor one ended with 3"):
        contest.race(script, {"poor one": "broken"}, rounds=1, times=1, warm_up=1)


def test_a_table_is_markdown():
    assert contest.table([("a", "b"), ("1", "2")]) == "| a | b |\n|---|---|\n| 1 | 2 |"


# --- the pre-training step ------------------------------------------------------------------------------------------------------------


def losses(settings: dict, steps: int) -> list[dict[str, float]]:
    """What the first steps of our side add up to."""
    config = pretraining_step.make_config(settings)
    estimator = pretraining_run.make_estimator(config, Vocabulary(pretraining_step.SPECIAL, config.vocab_size, {}))
    examples = {**pretraining_step.make_examples(config), "position": np.arange(config.train_batch_size)}
    batches = estimator.iterate(lambda context: tf.data.Dataset.from_tensors(examples).repeat(), InputContext(config.train_batch_size))
    return [{name: float(value) for name, value in estimator.train_steps(batches, 1).items()} for _ in range(steps)]


def test_the_rival_has_the_same_network_loss_and_number_of_masks(library):
    from benchmarks.torch_rivals import ReplacedTokenDetection, to_electra_config

    torch = library.torch
    config = pretraining_step.make_config({**SETTINGS, "model_hparam_overrides": {**SHAPE, **NO_DROPOUT}})
    shape = modeling.get_bert_config("small", 1000, config.model_hparam_overrides)
    networks = [to_electra_config(each, 32) for each in (shape, pretraining_model.get_generator_config(config, shape))]
    model = ReplacedTokenDetection(*networks, pretraining_step.SPECIAL.mask, 1.0, 50.0)
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(config, 1000).total
    examples = pretraining_step.make_examples(config)
    inputs = [torch.tensor(np.asarray(value, np.int64)) for value in examples.values()]
    positions = torch.arange(1, 1 + config.max_predictions_per_seq).repeat(4, 1)
    assert model(*inputs, positions).item() == pytest.approx(math.log(1000) + 50 * math.log(2), abs=1.0)
    assert losses(SETTINGS, 1)[0]["total_masked"] == positions.numel()


def test_both_sides_repeat_their_steps(library):
    config = pretraining_step.make_config({**SETTINGS, "precision": "bfloat16"})
    assert math.isfinite(pretraining_step.our_steps(config)(2))
    assert pretraining_step.torch_steps(config, is_compiled=False)(2) == pytest.approx(math.log(1000) + 50 * math.log(2), abs=1.0)
    pretraining_step.peak_products("bfloat16", 64)(1)


def test_rows_say_what_their_seconds_mean():
    config = pretraining_step.make_config(SETTINGS)
    usage = {"cpu_seconds": 1.0, "memory": 2**30, "fastest": 0.4}
    rows = [{"name": name, "seconds": seconds, **usage} for name, seconds in (("ours-bfloat16", 0.5), ("torch-float32", 1.0))]
    pretraining_step.describe(rows, config, {"bfloat16": 1e12, "float32": 5e11})
    assert rows[0]["tokens_per_second"] == 4 * 32 / 0.5 and rows[0]["times_fastest_torch"] == 2.0
    assert rows[0]["share_of_peak"] == pytest.approx(training_cost(config, 1000, ACTUAL).step / 0.5 / 1e12)
    assert "| ours-bfloat16 | 0.500 | 0.400 | 256 | 1.00 | 1.00 GiB | 0% | 2.00 |" in pretraining_step.make_table(rows)


@pytest.fixture
def restored():
    """Puts the functions back that a variant replaces."""
    places = (layers, modeling, pretrain_helpers, pretraining_model, modeling.TransformerLayer, optimization.AdamWeightDecayOptimizer)
    before = [(place, {name: value for name, value in vars(place).items() if callable(value)}) for place in places]
    yield
    for place, values in before:
        for name, value in values.items():
            setattr(place, name, value)


EXACT = {**SETTINGS, "model_hparam_overrides": {**SHAPE, **NO_DROPOUT}, "precision": "float32", "num_warmup_steps": 0}


@pytest.fixture(scope="module")
def expected():
    return losses(EXACT, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (change, _) in ablations.VARIANTS.items() if change])
def test_every_variant_of_the_step_computes_the_same(expected, restored, name):
    ablations.VARIANTS[name][0]()
    found = losses(EXACT, 3)
    # Another draw of samples is another batch for the discriminator, and from the first update on for the generator's embeddings.
    compared = itertools.product(range(3), ("mlm_loss", "disc_loss", "gradient_norm")) if "Gumbel" not in name else [(0, "mlm_loss")]
    for step, quantity in compared:
        assert found[step][quantity] == pytest.approx(expected[step][quantity], rel=1e-4), (step, quantity)


def test_dropout_from_32_bits_drops_the_same_share(restored):
    ablations.noise_of_32_bits()
    random = layers.RandomState(1, tf.constant(0, tf.int64), tf.constant(0, tf.int64))
    bits = modeling.dropout_bits(random, "site", 0.25, (64, 128))
    assert float(tf.reduce_mean(layers.apply_dropout(tf.ones([64, 128]), bits, 0.25))) == pytest.approx(1.0, abs=0.03)


# --- fine-tuning and inference ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def spec(home, tiny):  # noqa: F811
    tiny = {name: value for name, value in tiny.items() if name != "init_checkpoint"}
    return {**SPEC, "data_dir": str(home), "settings": tiny}


def test_fine_tuning_gives_both_sides_the_same_batches(library, spec):
    setting = finetuning.Setting(spec)
    batches = setting.batches()
    assert len(batches) == 2 and batches[0]["input_ids"].shape == (16, 8)
    ids, mask, segments, labels = finetuning.to_torch(batches[0], ("input_ids", "input_mask", "segment_ids", "nsmc_label_ids"), pads=False)
    longest = int(batches[0]["input_mask"].sum(1).max())
    assert ids.shape == mask.shape == segments.shape == (16, longest) and longest < 8
    np.testing.assert_array_equal(ids.numpy(), batches[0]["input_ids"][:, :longest])
    np.testing.assert_array_equal(labels.numpy(), batches[0]["nsmc_label_ids"])
    finetuning.make_rival({**spec, "kind": "ours"})(1)
    finetuning.make_rival({**spec, "kind": "torch", "is_compiled": False})(1)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_inference_on_both_sides(library, spec, one_by_one):
    texts = 2 if one_by_one else 60  # one of each batch, or all of the test split
    spec["settings"]["predict_batch_size"] = 30
    for kind in ("ours", "torch"):
        rival = inference.make_rival({**spec, "kind": kind, "is_compiled": False, "one_by_one": one_by_one})
        assert rival(1) == texts and rival(2) == 2 * texts


def test_single_rows_are_padded_to_the_next_length():
    mask = np.array([[1] * 5 + [0] * 11, [1] * 16])
    batches = [{"input_mask": mask, "input_ids": mask, "task_id": np.zeros(2)}] * 3
    rows = inference.single_rows(batches, [4, 8, 16])
    assert len(rows) == 3 and rows[0]["input_ids"].shape == (1, 8) and rows[0]["task_id"].shape == (1,)


def test_the_fastest_torch_is_what_rows_are_compared_with():
    rows = [
        {"name": name, "seconds": seconds, "cpu_seconds": 1.0, "memory": 2**30}
        for name, seconds in (("ours-float32", 1.0), ("torch-float32", 3.0), ("compiled-bfloat16", 2.0))
    ]
    lines = finetuning.make_table(rows, 100, "task").splitlines()
    assert lines[2] == "| ours-float32 | 100 | 10.00 | 1.00 GiB | 2.00 |" and lines[4].endswith("| 1.00 |")


# --- scripts from end to end ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pretraining_flags(tmp_path):
    settings = {name: value for name, value in SETTINGS.items() if name != "vocab_size"}
    return [f"--output_dir={tmp_path / 'out'}", f"--hparams={json.dumps(settings)}"]


@pytest.mark.slow
def test_scripts_write_tables_and_json(run_script, monkeypatch, pretraining_flags, tmp_path, library):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    common = [*pretraining_flags, "--vocab_size=1000", "--rounds=1"]
    step = [*common, "--rivals=ours-float32", "--steps=1", "--profile=float32"]
    table = run_script("benchmarks/pretraining_step.py", *step).stdout
    assert "| ours-float32 |" in table and "MatMul |" in table
    found = json.loads((tmp_path / "out" / "pretraining_step.json").read_text())
    assert [row["name"] for row in found["rivals"]] == ["ours-float32"] and found["peaks"]["float32"] > 1e9
    assert "| torch-float32 | " in run_script("benchmarks/startup.py", *common, "--rivals=torch-float32").stdout
    wrong = run_script("benchmarks/pretraining_step.py", *common, "--rivals=jax", check=False)
    assert wrong.returncode == 2 and "there is no 'jax'; allowed: ours-bfloat16" in wrong.stderr


def test_the_soak_compares_its_first_and_last_third(tmp_path):
    rows = [
        {"step": 10 * number, "minutes": number / 6, "memory": 100 + number, "seconds": 1.0, "cpu_seconds": 2.0, "loss": 1.0}
        for number in range(1, 13)
    ]
    rows[0]["seconds"] = 60.0  # functions are traced
    assert soak.summarize(rows) == {"memory": [105, 111], "seconds": [1.0, 1.0], "cpu_seconds": [2.0, 2.0]}
    soak.draw(rows, str(tmp_path / "soak.png"))
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_soak_trains_evaluates_and_measures(run_script, monkeypatch, tmp_path):
    from tests.pretraining_home import HPARAMS, make_home

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    data = make_home(tmp_path / "home")
    settings = {name: value for name, value in HPARAMS.items() if name not in ("num_train_steps", "log_steps", "save_checkpoints_steps")}
    arguments = [f"--data_dir={data}", f"--output_dir={tmp_path}", "--minutes=0.05", "--save_checkpoints_steps=20"]
    table = run_script("benchmarks/soak.py", *arguments, f"--hparams={json.dumps(settings)}").stdout
    rows = json.loads((tmp_path / "soak.json").read_text())["rows"]
    assert "the last third" in table and rows[0]["step"] == 10 and all(row["memory"] > 2**27 for row in rows)
    assert (tmp_path / "model" / "checkpoint").exists()
    reading = run_script(
        "benchmarks/input_pipeline.py",
        f"--data_dir={data}",
        f"--output_dir={tmp_path}",
        "--rounds=1",
        f"--hparams={json.dumps({**settings, 'vocab_size': 300})}",
    ).stdout
    assert reading.startswith("| step in | records read per second")
