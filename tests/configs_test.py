"""Every file in configs/ loads, and has the numbers of its publication."""

import pathlib

import pytest

from configure_pretraining import PretrainingConfig
from model.hparams import read_hparams
from pretrain.pretraining_model import get_generator_config, get_model_config

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "configs"
CONFIGS = sorted(path.name for path in FOLDER.glob("*.json"))
COMMON = {  # Clark et al. 2020, Table 6
    "num_warmup_steps": 10_000,
    "lr_decay_power": 1.0,
    "weight_decay_rate": 0.01,
    "gen_weight": 1.0,
    "disc_weight": 50.0,
    "temperature": 1.0,
    "electra_objective": True,
}


def load(name):
    return PretrainingConfig.create("model", "data", read_hparams(str(FOLDER / name)))


def test_the_promised_configs_are_there():
    assert CONFIGS == [f"{name}.json" for name in ("cpu_mini", "dialog_koelectra_small", "electra_base", "electra_large", "electra_small")]


@pytest.mark.parametrize("name", CONFIGS)
def test_loads_and_gives_two_networks(name):
    config = load(name)
    discriminator = get_model_config(config, 40_000)
    assert get_generator_config(config, discriminator).hidden_size <= discriminator.hidden_size


@pytest.mark.parametrize(
    "name, shape, generator, numbers",
    [
        ("electra_small.json", (12, 256, 1024, 4, 128), (12, 64, 1), (0.15, 128, 19, 5e-4, 128, 1_000_000)),
        ("electra_base.json", (12, 768, 3072, 12, None), (12, 256, 4), (0.15, 512, 79, 2e-4, 256, 766_000)),
        ("electra_large.json", (24, 1024, 4096, 16, None), (24, 256, 4), (0.25, 512, 130, 2e-4, 2048, 400_000)),
        ("dialog_koelectra_small.json", (12, 256, 1024, 4, 128), (12, 256, 4), (0.15, 128, 19, 1e-4, 512, 700_000)),
    ],
)
def test_has_the_published_numbers(name, shape, generator, numbers):
    config = load(name)
    bert = get_model_config(config, 40_000)
    small = get_generator_config(config, bert)
    assert (bert.num_hidden_layers, bert.hidden_size, bert.intermediate_size, bert.num_attention_heads, config.embedding_size) == shape
    assert (small.num_hidden_layers, small.hidden_size, small.num_attention_heads) == generator
    found = (config.mask_prob, config.max_seq_length, config.max_predictions_per_seq)
    assert (*found, config.learning_rate, config.train_batch_size, config.num_train_steps) == numbers
    assert {key: getattr(config, key) for key in COMMON} == COMMON
    assert (bert.hidden_dropout_prob, bert.attention_probs_dropout_prob, bert.initializer_range) == (0.1, 0.1, 0.02)


def test_dialog_koelectra_small_has_what_only_it_has():
    config = load("dialog_koelectra_small.json")
    assert (config.vocab_size, config.save_checkpoints_steps, config.mixed_precision) == (40_000, 10_000, True)
    assert config.model_hparam_overrides == {"max_position_embeddings": 128}


def test_cpu_mini_is_small_enough_for_two_cores():
    config = load("cpu_mini.json")
    bert = get_model_config(config, 40_000)
    assert bert.num_hidden_layers == 4 and 128 <= bert.hidden_size <= 192 and config.max_seq_length == 64
