"""FLOPs against the figures of Clark et al. 2020, parameter counts against the variables of built models."""

import numpy as np
import pytest

import flops_computation
from configure_pretraining import PretrainingConfig
from flops_computation import ACTUAL, PAPER, count_parameters, training_cost
from model.modeling import BertConfig
from pretrain.pretrain_data import SpecialTokens
from pretrain.pretraining_model import PretrainingModel

PAPER_VOCABULARY = 30522
BASE = {"model_size": "base", "max_seq_length": 512, "train_batch_size": 256, "num_train_steps": 766_000, "generator_hidden_size": 0.33333}
LARGE = {"model_size": "large", "max_seq_length": 512, "train_batch_size": 2048, "num_train_steps": 400_000, "mask_prob": 0.25}
BERT = {"electra_objective": False}


def _config(**values):
    return PretrainingConfig.create("", "", values)


@pytest.mark.parametrize(
    "values, published, tolerance",
    [
        # ELECTRA-Small: the paper prints 1.4e18; counting by the rules of its appendix gives 1.29e18, with its authors' script too.
        ({}, 1.4e18, 0.08),
        (BASE, 6.4e19, 0.01),
        (LARGE, 7.1e20, 0.015),
        ({**LARGE, "num_train_steps": 1_750_000}, 3.1e21, 0.015),
        ({**BERT, "num_train_steps": 1_450_000}, 1.4e18, 0.015),
        ({**BASE, **BERT, "num_train_steps": 1_000_000}, 6.4e19, 0.01),
        ({**LARGE, **BERT, "train_batch_size": 256, "num_train_steps": 1_000_000, "mask_prob": 0.15}, 1.9e20, 0.015),
    ],
    ids=["electra-small", "electra-base", "electra-400k", "electra-1.75m", "bert-small", "bert-base", "bert-large"],
)
def test_training_flops_agree_with_tables_1_and_2_of_the_paper(values, published, tolerance):
    assert training_cost(_config(**values), PAPER_VOCABULARY, PAPER).training == pytest.approx(published, rel=tolerance)


@pytest.mark.parametrize("values, published", [({}, 14e6), (BASE, 110e6), (LARGE, 335e6)], ids=["small", "base", "large"])
def test_parameters_agree_with_the_paper(values, published):
    counted = count_parameters(_config(**values), PAPER_VOCABULARY)
    assert counted.encoder + counted.discriminator_head == pytest.approx(published, rel=0.035)


def test_dialog_koelectra_small_has_its_published_size():
    config = _config(generator_hidden_size=1.0, model_hparam_overrides={"max_position_embeddings": 128})
    counted = count_parameters(config, 40_000)
    assert counted.encoder == pytest.approx(14.65e6, abs=5e3)
    assert counted.discriminator_head == 66_049


SMALL = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128, "max_position_embeddings": 32}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"embedding_size": 96},
        {"generator_hidden_size": 1.0},
        {"untied_generator_embeddings": True},
        {"untied_generator": False},
        {"uniform_generator": True},
        {"electra_objective": False},
        {"electric_objective": True, "electra_objective": False},
        {"generator_layers": 0.5, "generator_hidden_size": 0.5},
    ],
    ids=lambda values: ",".join(f"{name}={value}" for name, value in values.items()) or "default",
)
def test_parameters_agree_with_the_variables_of_the_built_model(values):
    config = _config(model_hparam_overrides=SMALL, max_seq_length=16, **{"embedding_size": 64, **values})
    model = PretrainingModel(config, 300, SpecialTokens(2, 3, 4))
    sizes = {variable.name.split(":")[0]: int(np.prod(variable.shape)) for variable in model.trainable_variables}

    def of(*scopes):
        return sum(size for name, size in sizes.items() if name.split("/")[0] in scopes)

    counted = count_parameters(config, 300)
    assert counted.encoder == of("electra")
    assert counted.discriminator_head == of("discriminator_predictions")
    assert counted.generator == of("generator", "generator_ltr", "generator_rtl")
    assert counted.generator_head == of("generator_predictions")
    assert counted.total == sum(sizes.values())


def test_layer_flops_worked_by_hand():
    """D = 4, H = 2, inner 8, L = 3: per token 3 (2*16+4) + 24 + 10*3*2 + 24 + 36 + (64+8+64) + 68 + 2*10*4."""
    config = BertConfig(vocab_size=10, hidden_size=4, num_attention_heads=2, intermediate_size=8, num_hidden_layers=1)
    assert flops_computation.layer_flops(config, 3) == 3 * (108 + 24 + 60 + 24 + 36 + 136 + 68 + 80)


def test_head_flops_worked_by_hand():
    config = BertConfig(vocab_size=10, hidden_size=4, num_attention_heads=2, intermediate_size=8, num_hidden_layers=1)
    assert flops_computation.discriminator_head_flops(config, 3) == 3 * (32 + 4 + 32 + 8 + 1)
    assert flops_computation.generator_head_flops(4, 6, 10, 2) == 2 * (48 + 6 + 13 * 6 + 120 + 10 + 50 + 20)


def test_a_lookup_costs_a_product_only_in_the_papers_convention():
    config = BertConfig(vocab_size=10, hidden_size=4, num_attention_heads=2, intermediate_size=8, num_hidden_layers=1)
    paper, actual = (flops_computation.embedding_flops(config, 4, 3, convention) for convention in (PAPER, ACTUAL))
    assert actual == 3 * (2 * 4 * 2 + 8 + 36)
    assert paper - actual == 3 * 2 * 4 * (10 + 3)


def test_backward_pass_costs_twice_the_forward_pass_or_as_much():
    config = _config(train_batch_size=3, num_train_steps=5)
    for convention, passes in ((PAPER, 2), (ACTUAL, 3)):
        cost = training_cost(config, 1000, convention)
        assert cost.step == pytest.approx(passes * 3 * (cost.generator + cost.discriminator))
        assert cost.training == 5 * cost.step


def test_only_masked_positions_meet_the_output_softmax():
    few, many = (training_cost(_config(mask_prob=prob), 1000, ACTUAL) for prob in (0.15, 0.30))
    assert few.discriminator == many.discriminator
    per_position = flops_computation.generator_head_flops(64, 128, 1000, 1)
    assert many.generator - few.generator == pytest.approx(per_position * (39 - 19))


def test_two_towers_predict_every_token():
    one = training_cost(_config(), 1000, ACTUAL).generator - flops_computation.generator_head_flops(64, 128, 1000, 19)
    two = training_cost(_config(electric_objective=True), 1000, ACTUAL).generator
    assert two == pytest.approx(2 * one + flops_computation.generator_head_flops(128, 128, 1000, 128))


def test_script_prints_the_counts(run_script):
    output = run_script("flops_computation.py", "--hparams=configs/dialog_koelectra_small.json").stdout
    assert "14,647,040" in output and "66,049" in output and "as in the paper" in output


def test_script_refuses_an_unknown_hparam(run_script):
    result = run_script("flops_computation.py", '--hparams={"learning_rat": 1}', check=False)
    assert result.returncode == 2 and "learning_rat" in result.stderr.splitlines()[-1]
