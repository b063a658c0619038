"""model/modeling.py: against the transformers library in values and gradients, and what else the network promises."""

import re
import types

import numpy as np
import pytest
import tensorflow as tf

from model import layers, modeling
from model.command import UserError
from model.layers import variable_name
from model.modeling import BertConfig, BertModel, attention_adder, get_bert_config
from model.random import RandomState
from pretrain.pretraining_model import DiscriminatorPredictions, GeneratorPredictions

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 12}
CONFIG = BertConfig(vocab_size=60, **SMALL)
BATCH, LENGTH = 3, 10


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """input_ids, input_mask, token_type_ids int32 [B, L]; the second and third row end in padding.

    Id 0 does not occur: torch leaves the row of its padding_idx out of the gradient.
    """
    generator = np.random.default_rng(seed)
    ids = generator.integers(1, CONFIG.vocab_size, (BATCH, LENGTH)).astype(np.int32)
    mask = (np.arange(LENGTH) < np.array([[10], [7], [4]])).astype(np.int32)
    return ids, mask, generator.integers(0, 2, (BATCH, LENGTH)).astype(np.int32)


def randomize(module: tf.Module, seed: int = 1) -> None:
    """Weights, biases and norms all far from where they start, so that every one of them matters."""
    generator = np.random.default_rng(seed)
    for variable in sorted(module.trainable_variables, key=lambda variable: variable.name):
        variable.assign(generator.normal(1.0 if "gamma" in variable.name else 0.0, 0.15, variable.shape).astype(np.float32))


def noise(first_example: int = 0, step: int = 0) -> RandomState:
    return RandomState(7, tf.constant(step, tf.int64), tf.constant(first_example, tf.int64))


@pytest.fixture(scope="module")
def model() -> BertModel:
    built = BertModel(CONFIG, 16)
    randomize(built)
    return built


# --- parity with transformers -------------------------------------------------------------------------------------------------------

FORWARD = {"rtol": 0, "atol": 1e-4}  # hidden states are of order 1, logits up to 10
GRADIENT_TOLERANCE = 1e-4  # of the largest entry of each gradient, and of 1 for those that are 0 but for rounding (key biases)


def torch_name(name: str) -> str:
    """What transformers calls the variable `name` of the original."""
    name = name.replace("/kernel", "/weight").replace("/gamma", "/weight").replace("/beta", "/bias")
    name = name.replace("discriminator_predictions/dense_1", "discriminator_predictions/dense_prediction")
    name = name.replace("generator_predictions/output_bias", "generator_lm_head/bias")
    name = re.sub(r"((?:word|position|token_type)_embeddings)$", r"\1/weight", name)
    return re.sub(r"layer_(\d+)", r"layer/\1", name).replace("/", ".")


def torch_layout(name: str, value: np.ndarray) -> np.ndarray:
    return value.T if name.endswith("kernel") else value


class Twins:
    """One of our networks and a network of transformers with the same weights, run on the same batch."""

    def __init__(self, library: types.SimpleNamespace, class_name: str, embedding_size: int, make_head):
        self.torch = library.torch
        self.model = BertModel(CONFIG, embedding_size)
        self.head = make_head(self.model)
        self.variables = {variable_name(variable): variable for part in (self.model, self.head) for variable in part.trainable_variables}
        randomize(self.model, 1)
        randomize(self.head, 2)
        settings = {**CONFIG.to_dict(), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        config = library.transformers.ElectraConfig(
            **settings, embedding_size=embedding_size, layer_norm_eps=1e-12, attn_implementation="eager", pad_token_id=0
        )
        self.other = getattr(library.transformers, class_name)(config).eval()
        self.copy_weights()

    def copy_weights(self) -> None:
        parameters = dict(self.other.named_parameters())
        with self.torch.no_grad():
            for name, variable in self.variables.items():
                parameters.pop(torch_name(name)).copy_(self.torch.tensor(torch_layout(name, variable.numpy())))
        assert not parameters, "every weight of theirs has a counterpart here"

    def run_ours(self, upstream: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Hidden states, logits, and as "gradient/NAME" the gradients of sum(logits * upstream + states * upstream)."""
        with tf.GradientTape() as tape:
            output = self.model(*batch())
            values = {"states": tf.stack([output.embedding_output, *output.all_encoder_layers])}
            values["logits"] = self.head_logits(output.sequence_output)
            loss = sum(tf.reduce_sum(values[name] * upstream[name]) for name in values)
        gradients = tape.gradient(loss, self.variables)
        dense = {f"gradient/{name}": tf.convert_to_tensor(gradient) for name, gradient in gradients.items()}
        return {name: value.numpy() for name, value in {**values, **dense}.items()}

    def head_logits(self, vectors: tf.Tensor) -> tf.Tensor:
        is_generator = isinstance(self.head, GeneratorPredictions)
        return self.head(vectors, self.model.get_embedding_table()) if is_generator else self.head(vectors)

    def run_theirs(self, upstream: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        ids, mask, types_ = (self.torch.tensor(value.astype(np.int64)) for value in batch())
        output = self.other(input_ids=ids, attention_mask=mask, token_type_ids=types_, output_hidden_states=True)
        values = {"states": self.torch.stack(output.hidden_states), "logits": output.logits}
        loss = sum((values[name] * self.torch.tensor(upstream[name])).sum() for name in values)
        loss.backward()
        parameters = dict(self.other.named_parameters())
        gradients = {name: torch_layout(name, parameters[torch_name(name)].grad.numpy()) for name in self.variables}
        return {name: value.detach().numpy() for name, value in values.items()} | {f"gradient/{n}": g for n, g in gradients.items()}


def discriminator_head(model: BertModel) -> DiscriminatorPredictions:
    return DiscriminatorPredictions(CONFIG, 0, tf.float32)


def generator_head(model: BertModel) -> GeneratorPredictions:
    return GeneratorPredictions(CONFIG.hidden_size, model.get_embedding_table(), 0.02, 0, tf.float32)


@pytest.mark.parametrize("embedding_size", [16, 32])
@pytest.mark.parametrize("class_name, make_head", [("ElectraForPreTraining", discriminator_head), ("ElectraForMaskedLM", generator_head)])
def test_states_logits_and_gradients_of_every_weight_agree_with_transformers(library, class_name, make_head, embedding_size):
    twins = Twins(library, class_name, embedding_size, make_head)
    assert any("embeddings_project" in name for name in twins.variables) == (embedding_size != 32)
    generator = np.random.default_rng(3)
    width = [CONFIG.vocab_size] if class_name == "ElectraForMaskedLM" else []
    shapes = {"states": [3, BATCH, LENGTH, 32], "logits": [BATCH, LENGTH, *width]}
    upstream = {name: generator.normal(0.0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    ours, theirs = twins.run_ours(upstream), twins.run_theirs(upstream)
    assert ours.keys() == theirs.keys() and len(ours) == 2 + len(twins.variables)
    for name in ("states", "logits"):
        np.testing.assert_allclose(ours[name], theirs[name], err_msg=name, **FORWARD)
    for name in set(ours) - {"states", "logits"}:
        scale = max(1.0, np.abs(theirs[name]).max())
        np.testing.assert_allclose(ours[name] / scale, theirs[name] / scale, rtol=0, atol=GRADIENT_TOLERANCE, err_msg=name)


def test_the_encoder_alone_agrees_with_electra_model(library, model):
    settings = {**CONFIG.to_dict(), "embedding_size": 16, "layer_norm_eps": 1e-12, "attn_implementation": "eager"}
    other = library.transformers.ElectraModel(library.transformers.ElectraConfig(**settings)).eval()
    parameters = dict(other.named_parameters())
    with library.torch.no_grad():
        for variable in model.trainable_variables:
            name = variable_name(variable)
            value = library.torch.tensor(torch_layout(name, variable.numpy()))
            parameters[torch_name(name).removeprefix("electra.")].copy_(value)
    ids, mask, types_ = (library.torch.tensor(value.astype(np.int64)) for value in batch())
    expected = other(input_ids=ids, attention_mask=mask, token_type_ids=types_).last_hidden_state.detach().numpy()
    output = model(*batch())
    np.testing.assert_allclose(output.get_sequence_output(), expected, **FORWARD)
    np.testing.assert_allclose(output.get_pooled_output(), expected[:, 0], **FORWARD)


# --- what the network promises ------------------------------------------------------------------------------------------------------


def test_outputs_have_their_shapes_and_types(model):
    output = model(*batch())
    assert output.get_sequence_output().shape == (BATCH, LENGTH, 32)
    assert output.get_pooled_output().shape == (BATCH, 32)
    assert [layer.shape for layer in output.get_all_encoder_layers()] == [(BATCH, LENGTH, 32)] * 2
    assert output.get_embedding_output().shape == (BATCH, LENGTH, 32)
    assert {value.dtype for value in (*output.all_encoder_layers, output.embedding_output)} == {tf.float32}
    np.testing.assert_array_equal(output.all_encoder_layers[-1], output.sequence_output)


def test_the_pooled_output_is_the_first_token_as_it_is(model):
    output = model(*batch())
    np.testing.assert_array_equal(output.get_pooled_output(), output.sequence_output[:, 0])


def test_what_stands_under_padding_does_not_matter(model):
    ids, mask, token_types = batch()
    other_ids = np.where(mask == 1, ids, ids - 1)
    values, others = model(ids, mask, token_types).sequence_output, model(other_ids, mask, token_types).sequence_output
    real = mask.astype(bool)
    np.testing.assert_allclose(values.numpy()[real], others.numpy()[real], rtol=0, atol=1e-6)
    assert not np.allclose(values.numpy()[~real], others.numpy()[~real], atol=1e-3)


def test_every_input_matters(model):
    ids, mask, token_types = batch()
    base = model(ids, mask, token_types).sequence_output.numpy()
    changed = [(ids[:, ::-1], mask, token_types), (ids, mask * 0 + 1, token_types), (ids, mask, 1 - token_types)]
    for inputs in changed:
        assert not np.allclose(model(*inputs).sequence_output, base, atol=1e-2)


@pytest.mark.parametrize("ltr, rtl", [(True, False), (False, True)])
def test_a_directional_tower_sees_one_side_only(model, ltr, rtl):
    """Changing the token at position 5 changes what depends on it: positions from 5 on (left to right), or up to 5."""
    ids, _, token_types = batch()
    mask, other = np.ones_like(ids), ids.copy()
    other[:, 5] -= 1
    values, others = (model(x, mask, token_types, ltr=ltr, rtl=rtl).sequence_output.numpy() for x in (ids, other))
    changed = np.abs(values - others).max((0, 2)) > 1e-4
    assert changed.tolist() == [position >= 5 if ltr else position <= 5 for position in range(LENGTH)]


def test_the_attention_adder_is_minus_10000_where_nothing_may_be_looked_at():
    mask = tf.constant([[1, 1, 0]])
    assert attention_adder(mask).numpy().tolist() == [[[[0.0, 0.0, -10000.0]]]]
    no = -10000.0
    assert attention_adder(mask, ltr=True).numpy()[0, 0].tolist() == [[0.0, no, no], [0.0, 0.0, no], [0.0, 0.0, no]]
    assert attention_adder(mask, rtl=True).numpy()[0, 0].tolist() == [[0.0, 0.0, no], [no, 0.0, no], [no, no, no]]


def test_bfloat16_stays_near_float32(model):
    """States are of order 1; two layers of products rounded to 8 bits leave them within 0.1, and on average within 0.02."""
    low = BertModel(CONFIG, 16, dtype=tf.bfloat16)
    randomize(low)
    exact, rounded = model(*batch()).sequence_output, low(*batch()).sequence_output
    assert rounded.dtype == tf.float32
    difference = np.abs(exact.numpy() - rounded.numpy())
    assert 0.0 < difference.mean() < 0.02 and difference.max() < 0.1


# --- dropout ------------------------------------------------------------------------------------------------------------------------


def test_dropout_is_the_same_for_the_same_step_and_different_for_another(model):
    first, again = (model(*batch(), random=noise()).sequence_output.numpy() for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, model(*batch(), random=noise(step=1)).sequence_output, atol=1e-2)
    assert not np.allclose(first, model(*batch()).sequence_output, atol=1e-2)
    assert not np.allclose(first, model(*batch(), random=noise(), site="second").sequence_output, atol=1e-2)


def test_a_part_of_the_batch_sees_the_dropout_it_has_in_the_whole(model):
    whole = model(*batch(), random=noise()).sequence_output.numpy()
    rest = model(*(value[1:] for value in batch()), random=noise(first_example=1)).sequence_output.numpy()
    np.testing.assert_allclose(rest, whole[1:], rtol=0, atol=1e-5)


def test_no_two_dropouts_share_their_noise(model, monkeypatch):
    sites, draw = [], layers.random_bits16

    def record(random: RandomState, site: str, shape: tuple) -> tf.Tensor:
        sites.append(site)
        return draw(random, site, shape)

    monkeypatch.setattr(layers, "random_bits16", record)
    model(*batch(), random=noise())
    model(*batch(), random=noise(), site="generator")
    assert len(sites) == 2 * (1 + 2 * 3) and len(set(sites)) == len(sites)


def test_the_rates_are_those_of_the_configuration(monkeypatch):
    rates, draw = {}, layers.dropout_bits

    def record(random: RandomState, site: str, rate: float, shape: tuple) -> tf.Tensor:
        rates[site] = rate
        return draw(random, site, rate, shape)

    for module in (layers, modeling):
        monkeypatch.setattr(module, "dropout_bits", record)
    config = BertConfig(vocab_size=60, **{**SMALL, "num_hidden_layers": 1}, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3)
    BertModel(config, 16)(*batch(), random=noise())
    assert rates == {
        "electra/embeddings": 0.2,
        "electra/layer_0/attention/self": 0.3,
        "electra/layer_0/attention/output": 0.2,
        "electra/layer_0/output": 0.2,
    }


# --- shapes -------------------------------------------------------------------------------------------------------------------------


def test_shared_embeddings_are_the_same_variables(model):
    generator = BertModel(BertConfig(vocab_size=60, **{**SMALL, "hidden_size": 8}), None, "generator", model.embeddings)
    assert generator.get_embedding_table() is model.get_embedding_table()
    own = sorted({variable_name(v).split("/")[0] for v in generator.trainable_variables if not any(v is w for w in model.variables)})
    assert own == ["generator"]
    assert generator(*batch()).sequence_output.shape == (BATCH, LENGTH, 8)


def test_dialog_koelectra_small_has_its_published_number_of_parameters(monkeypatch):
    monkeypatch.setattr(modeling, "truncated_normal", lambda stddev: layers.zeros)  # only counted here
    config = get_bert_config("small", 40000, {"max_position_embeddings": 128})
    count = sum(np.prod(variable.shape) for variable in BertModel(config, 128).trainable_variables)
    assert count == 14647040  # 14.65M
    assert sum(np.prod(variable.shape) for variable in DiscriminatorPredictions(config, 0, tf.float32).trainable_variables) == 66049


@pytest.mark.parametrize("size, expected", [("small", (12, 256, 1024, 4)), ("base", (12, 768, 3072, 12)), ("large", (24, 1024, 4096, 16))])
def test_sizes_are_those_of_the_papers_table(size, expected):
    config = get_bert_config(size, 30522, {})
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads) == expected
    assert config.head_size == 64 and config.vocab_size == 30522


def test_overrides_win_over_the_size():
    config = get_bert_config("small", 100, {"num_hidden_layers": 3, "hidden_dropout_prob": 0})
    assert (config.num_hidden_layers, config.hidden_size, config.hidden_dropout_prob) == (3, 256, 0)
    assert BertConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "overrides, word",
    [
        ({"hidden_sise": 8}, "unknown model hparam 'hidden_sise'"),
        ({"hidden_size": "8"}, "'hidden_size' must be int, got '8'"),
        ({"hidden_size": True}, "'hidden_size' must be int, got True"),
        ({"hidden_size": 8.0}, "'hidden_size' must be int, got 8.0"),
        ({"hidden_dropout_prob": "0.1"}, "'hidden_dropout_prob' must be float"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"hidden_size": 10, "num_attention_heads": 4}, "hidden_size 10 is not a multiple of num_attention_heads 4"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must not be negative, got -1"),
        ({"hidden_act": "relu"}, "hidden_act must be 'gelu', got 'relu'"),
        ({"hidden_dropout_prob": 1.0}, r"hidden_dropout_prob must be in \[0, 1\), got 1.0"),
        ({"attention_probs_dropout_prob": -0.1}, "attention_probs_dropout_prob must be in"),
        ({"vocab_size": 99}, "vocab_size 99 .* 100"),
    ],
)
def test_impossible_shapes_are_user_errors_that_name_value_and_flag(overrides, word):
    with pytest.raises(UserError, match=word) as error:
        get_bert_config("small", 100, overrides)
    assert "--model_hparam_overrides" in str(error.value)


def test_a_batch_longer_than_the_position_embeddings_is_a_user_error(model):
    ids = tf.zeros([1, 13], tf.int32)
    with pytest.raises(UserError, match="max_seq_length 13 is beyond max_position_embeddings 12.*--max_seq_length"):
        model(ids, tf.ones_like(ids), ids)
