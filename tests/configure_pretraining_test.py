import dataclasses
import math
import pathlib

import pytest

from configure_pretraining import PretrainingConfig
from model.command import UserError
from model.hparams import read_hparams
from pretrain.pretraining_model import get_generator_config, get_model_config

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"


def create(**user):
    return PretrainingConfig.create("mini", "/data", user)


# Every setting of google-research/electra's PretrainingConfig with its default.
ORIGINAL_DEFAULTS = {
    "debug": False,
    "do_train": True,
    "do_eval": False,
    "electra_objective": True,
    "electric_objective": False,
    "gen_weight": 1.0,
    "disc_weight": 50.0,
    "mask_prob": 0.15,
    "learning_rate": 5e-4,
    "lr_decay_power": 1.0,
    "weight_decay_rate": 0.01,
    "num_warmup_steps": 10000,
    "iterations_per_loop": 200,
    "save_checkpoints_steps": 1000,
    "num_train_steps": 1000000,
    "num_eval_steps": 100,
    "keep_checkpoint_max": 5,
    "model_size": "small",
    "model_hparam_overrides": {},
    "embedding_size": 128,  # of model_size small
    "uniform_generator": False,
    "two_tower_generator": False,
    "untied_generator_embeddings": False,
    "untied_generator": True,
    "generator_layers": 1.0,
    "generator_hidden_size": 0.25,
    "disallow_correct": False,
    "temperature": 1.0,
    "max_seq_length": 128,
    "train_batch_size": 128,
    "eval_batch_size": 128,
    "use_tpu": False,
    "num_tpu_cores": 1,
    "tpu_job_name": None,
    "tpu_name": None,
    "tpu_zone": None,
    "gcp_project": None,
    "pretrain_tfrecords": "/data/pretrain_tfrecords/pretrain_data.tfrecord*",
    "vocab_file": "/data/vocab.txt",
    "model_dir": "/data/models/mini",
    "results_txt": "/data/models/mini/results/unsup_results.txt",
}
# Where the original had a fixed value and this project asks the data: None = whatever the vocabulary or the TFRecords say.
OUR_DEFAULTS = {"vocab_size": None, "do_lower_case": None, "tokenizer_type": None, "masking": "unique", "mixed_precision": False}


def test_every_setting_of_the_original_exists_with_its_default():
    config = dataclasses.asdict(create())
    expected = ORIGINAL_DEFAULTS | OUR_DEFAULTS
    assert {name: config[name] for name in expected} == expected
    assert config["eval_tfrecords"] == "/data/pretrain_tfrecords/eval_data.tfrecord*"


def test_precedence_is_defaults_then_size_then_debug_then_user():
    assert create(model_size="base").embedding_size is None and create(model_size="large").embedding_size is None
    assert create(model_size="base", embedding_size=64).embedding_size == 64
    debug = create(debug=True, model_size="base")
    assert (debug.train_batch_size, debug.num_train_steps, debug.eval_batch_size, debug.num_eval_steps) == (8, 20, 4, 2)
    assert debug.embedding_size is None and debug.learning_rate == 5e-4
    shape = get_model_config(debug, 1000)
    assert (shape.hidden_size, shape.num_hidden_layers, shape.num_attention_heads, shape.intermediate_size) == (144, 3, 4, 576)
    mine = create(debug=True, num_train_steps=7, model_hparam_overrides={"num_hidden_layers": 2})
    assert (mine.num_train_steps, mine.train_batch_size) == (7, 8)
    assert (get_model_config(mine, 1000).num_hidden_layers, get_model_config(mine, 1000).hidden_size) == (2, 144)


def test_electric_takes_the_two_tower_generator():
    assert create(electric_objective=True).two_tower_generator
    with pytest.raises(UserError, match="two-tower generator"):
        create(electric_objective=True, two_tower_generator=False)


@pytest.mark.parametrize("user, slots", [({}, 19), ({"max_seq_length": 512}, 79), ({"max_seq_length": 512, "mask_prob": 0.25}, 130)])
def test_fixed_max_predictions_per_seq_is_derived_after_every_override(user, slots):
    """int((mask_prob + .005) * max_seq_length); Dialog-KoELECTRA keeps 19 slots at length 512."""
    assert create(**user).max_predictions_per_seq == slots
    assert create(model_size="base", **user).max_predictions_per_seq == slots


def test_there_are_never_more_slots_than_positions():
    assert create(mask_prob=0.999, max_seq_length=400).max_predictions_per_seq == 400


def test_the_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        create().learning_rate = 1.0


def test_creating_a_configuration_touches_no_file(tmp_path):
    config = PretrainingConfig.create("mini", str(tmp_path / "data"), {"model_dir": str(tmp_path / "model")})
    assert config.results_txt == str(tmp_path / "model" / "results" / "unsup_results.txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size, heads, width", [("small", 1, 64), ("base", 4, 256), ("large", 4, 256)])
def test_keep_generator_shape_is_a_fraction_with_heads_of_64_and_four_times_the_width_in_between(size, heads, width):
    config = create(model_size=size, generator_hidden_size=1 / 3 if size == "base" else 0.25)
    generator = get_generator_config(config, get_model_config(config, 1000))
    assert (generator.hidden_size, generator.num_attention_heads, generator.intermediate_size) == (width, heads, 4 * width)
    assert generator.num_hidden_layers == (24 if size == "large" else 12)


def test_generator_layers_and_a_width_below_64():
    config = create(generator_layers=0.5, generator_hidden_size=0.1)
    generator = get_generator_config(config, get_model_config(config, 1000))
    assert (generator.hidden_size, generator.num_attention_heads, generator.num_hidden_layers) == (26, 1, 6)


@pytest.mark.parametrize("fraction, width", [(0.001, 0), (0.7, 179)])
def test_a_generator_width_that_its_heads_do_not_divide_is_refused(fraction, width):
    config = create(generator_hidden_size=fraction)
    with pytest.raises(UserError, match=rf"makes a generator {width} wide.*--generator_hidden_size"):
        get_generator_config(config, get_model_config(config, 1000))


@pytest.mark.parametrize("name", ["train_batch_size", "eval_batch_size", "num_train_steps", "gradient_accumulation_steps", "log_steps"])
def test_numbers_that_must_be_positive(name):
    assert getattr(create(**{name: 1}), name) == 1
    with pytest.raises(UserError, match=rf"^{name} must be at least 1, got 0 \(--{name}\)$"):
        create(**{name: 0})


@pytest.mark.parametrize(
    "user, message",
    [
        ({"learning_rat": 1.0}, "unknown hparam 'learning_rat' .*did you mean 'learning_rate'"),
        ({"do_eval": "False"}, "'do_eval' must be bool, got str 'False'"),
        ({"num_train_steps": "4"}, "'num_train_steps' must be int, got str '4'"),
        ({"num_train_steps": True}, "'num_train_steps' must be int, got bool True"),
        ({"masking": "both"}, "'masking' must be one of unique, original, got 'both'"),
        ({"model_size": "huge"}, "'model_size' must be one of small, base, large"),
        ({"precision": "int8"}, "must be one of float32, bfloat16, float16"),
        ({"learning_rate": 0.0}, "learning_rate must be finite and positive, got 0.0"),
        ({"learning_rate": math.nan}, r"learning_rate.*got nan \(--learning_rate\)"),
        ({"disc_weight": math.inf}, r"disc_weight.*got inf \(--disc_weight\)"),
        ({"num_warmup_steps": -1}, "num_warmup_steps must be finite and not negative, got -1"),
        ({"seed": -1}, "seed must be finite and not negative"),
        ({"seed": 2**62}, "seed must be less than 2"),
        ({"mask_prob": 0.0}, "mask_prob must be between 0 and 1"),
        ({"mask_prob": 1.0}, "mask_prob must be between 0 and 1"),
        ({"temperature": 0.0}, "temperature must be finite and positive"),
        ({"embedding_size": 0}, "embedding_size must be at least 1"),
        ({"max_seq_length": 5}, "max_seq_length must be long enough for one masked token, got 5"),
        ({"max_seq_length": 513}, "max_seq_length 513 is beyond max_position_embeddings 512"),
        ({"model_hparam_overrides": {"max_position_embeddings": 64}}, "max_seq_length 128 is beyond max_position_embeddings 64"),
        ({"model_hparam_overrides": {"max_position_embeddings": "64"}}, "'max_position_embeddings' must be int, got '64'"),
        ({"model_hparam_overrides": {"hidden": 64}}, "unknown model hparam 'hidden'"),
        ({"model_hparam_overrides": {"hidden_size": 65}}, "hidden_size 65 is not a multiple of num_attention_heads 4"),
        ({"model_hparam_overrides": {"vocab_size": 65}}, "set --vocab_size instead"),
        ({"two_tower_generator": True, "electra_objective": False}, "two_tower_generator needs"),
        ({"two_tower_generator": True, "untied_generator": False}, "two_tower_generator needs"),
        ({"two_tower_generator": True, "uniform_generator": True}, "two_tower_generator needs"),
        ({"uniform_generator": True, "electra_objective": False}, "nothing to learn"),
        ({"do_train": False}, "nothing to do"),
        ({"init_scope": "electra/"}, "init_scope 'electra/' without a checkpoint"),
    ],
)
def test_unknown_mistyped_and_impossible_values_are_refused(user, message):
    with pytest.raises(UserError, match=message) as caught:
        create(**user)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2 and "--" in str(caught.value)


@pytest.mark.parametrize(
    "user, discriminator, own_generator",
    [
        ({}, True, True),
        ({"electra_objective": False}, False, False),
        ({"electra_objective": False, "electric_objective": True}, True, True),
        ({"uniform_generator": True}, True, False),
        ({"untied_generator": False}, True, False),
    ],
)
def test_which_networks_an_objective_has(user, discriminator, own_generator):
    config = create(**user)
    assert (config.has_discriminator, config.has_own_generator) == (discriminator, own_generator)


# Clark et al. 2020, Table 6, and Dialog-KoELECTRA: mask %, length, learning rate, batch, steps, generator's share of the width
PUBLISHED = {
    "electra_small": (0.15, 128, 5e-4, 128, 1_000_000, 0.25),
    "electra_base": (0.15, 512, 2e-4, 256, 766_000, 0.33333),
    "electra_large": (0.25, 512, 2e-4, 2048, 400_000, 0.25),
    "dialog_koelectra_small": (0.15, 128, 1e-4, 512, 700_000, 1.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_configurations_that_come_with_the_project_are_the_published_ones(name):
    config = create(**read_hparams(str(CONFIGS / f"{name}.json")))
    found = (config.mask_prob, config.max_seq_length, config.learning_rate, config.train_batch_size, config.num_train_steps)
    assert (*found, config.generator_hidden_size) == PUBLISHED[name]
    assert (config.num_warmup_steps, config.lr_decay_power, config.weight_decay_rate) == (10000, 1.0, 0.01)


def test_every_configuration_that_comes_with_the_project_is_valid():
    for path in sorted(CONFIGS.glob("*.json")):
        assert create(**read_hparams(str(path))).max_predictions_per_seq >= 9, path
