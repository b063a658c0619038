import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from finetune.finetuning_model import FinetuningModel
from finetune.starting_point import find_starting_point
from finetune.task_builder import get_tasks
from model import checkpoint
from model.command import UserError
from model.estimator import ModeKeys
from model.layers import variable_name
from model.modeling import BertConfig, BertModel

STEP = tf.constant(3, tf.int64)


@pytest.fixture
def build(make_config):
    def make(seed=1, **user) -> FinetuningModel:
        config = make_config(**user)
        start = find_starting_point(config)
        return FinetuningModel(config, get_tasks(config), start.bert_config, start.embedding_size, seed)

    return make


def batch(length=16, size=4, tasks=("nsmc",)):
    generator = np.random.default_rng(0)
    lengths = np.array([3, 7, 9, 5])[:size]
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    features = {
        "input_ids": tf.constant(generator.integers(5, 19, (size, 10)) @ np.eye(10, length, dtype=np.int64) * mask, tf.int32),
        "input_mask": tf.constant(mask),
        "segment_ids": tf.zeros([size, length], tf.int32),
        "position": tf.range(size, dtype=tf.int64),
        "task_id": tf.constant(np.arange(size) % len(tasks), tf.int32),
    }
    for task in tasks:
        features[f"{task}_eid"] = tf.range(2, 2 + size)
        features[f"{task}_label_ids"] = tf.constant([0, 1, 1, 0][:size])
    return features


def loss_of(model, features, mode=ModeKeys.EVAL):
    return model.loss(features, model.denominators(features), STEP, mode)


def test_variables_are_the_published_ones(build):
    names = {variable_name(variable): variable.shape.as_list() for variable in build().trainable_variables}
    assert names["electra/embeddings/word_embeddings"] == [19, 16]
    assert names["electra/encoder/layer_0/attention/self/query/kernel"] == [16, 16]
    assert names["task_specific/nsmc/classifier/kernel"] == [16, 2] and names["task_specific/nsmc/classifier/bias"] == [2]
    assert all(name.startswith(("electra/", "task_specific/nsmc/classifier/")) for name in names)


def test_outputs_do_not_depend_on_the_padding(build):
    model = build(max_seq_length=32)
    short, long = model.predict(batch(16)), model.predict(batch(32))
    np.testing.assert_allclose(short["nsmc/logits"], long["nsmc/logits"], atol=1e-6)
    np.testing.assert_allclose(loss_of(model, batch(16))[0], loss_of(model, batch(32))[0], atol=1e-6)


def test_loss_is_the_mean_or_as_in_the_original_the_sum(build):
    mean, sums = loss_of(build(), batch())
    total, _ = loss_of(build(loss_reduction="sum"), batch())
    losses = build().predict(batch())["nsmc/loss"].numpy()
    np.testing.assert_allclose(mean, losses.mean(), rtol=1e-6)
    np.testing.assert_allclose(total, losses.sum(), rtol=1e-6)
    np.testing.assert_allclose(build().summarize({name: value.numpy() for name, value in sums.items()})["loss"], losses.mean(), rtol=1e-6)


def test_rows_that_fill_up_a_batch_count_nothing(build):
    model, features = build(), batch()
    features["is_real"] = tf.constant([1.0, 1.0, 0.0, 0.0])
    losses = model.predict(batch())["nsmc/loss"].numpy()
    np.testing.assert_allclose(loss_of(model, features)[0], losses[:2].mean(), rtol=1e-6)


def test_dropout_is_a_function_of_seed_and_step(build):
    model, features = build(), batch()
    first = loss_of(model, features, ModeKeys.TRAIN)[0].numpy()
    assert first == loss_of(model, features, ModeKeys.TRAIN)[0].numpy()
    assert first != loss_of(model, features)[0].numpy()
    assert first != model.loss(features, model.denominators(features), STEP + 1, ModeKeys.TRAIN)[0].numpy()


def test_an_example_trains_the_layers_of_its_own_task_alone(build, twin):
    model, features = build(task_names=["nsmc", "twin"]), batch(tasks=("nsmc", "twin"))
    outputs = model.predict(features)
    mine = np.stack([outputs["nsmc/loss"], outputs["twin/loss"]])[[0, 1, 0, 1], range(4)]
    np.testing.assert_allclose(loss_of(model, features)[0], mine.mean(), rtol=1e-6)


def saved_encoder(folder, seed=9, **shape) -> str:
    values = {"vocab_size": 19, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(**values | {"max_position_embeddings": 32} | shape), 16, "electra", seed=seed)
    other = tf.Variable(1.0, name="discriminator_predictions/dense/bias")
    return checkpoint.save(str(folder), 5, [*model.trainable_variables, other], keep_max=1)


def test_the_encoder_comes_from_the_checkpoint_and_the_head_does_not(build, home):
    prefix, model = saved_encoder(home / "ckpt"), build()
    head = model.heads[0].classifier.kernel.numpy()
    model.load_encoder(prefix)
    for variable in model.encoder.trainable_variables:
        np.testing.assert_array_equal(variable, checkpoint.read(prefix, [variable_name(variable)])[variable_name(variable)])
    np.testing.assert_array_equal(model.heads[0].classifier.kernel, head)


def test_the_top_layers_start_anew_if_so_asked(build, home):
    deeper = {"num_hidden_layers": 3, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "max_position_embeddings": 32}
    prefix = saved_encoder(home / "ckpt", num_hidden_layers=3)
    new, model = (build(model_hparam_overrides=deeper, reinit_top_layers=2) for _ in range(2))
    model.load_encoder(prefix)
    for variable, start in zip(model.encoder.trainable_variables, new.encoder.trainable_variables, strict=True):
        name = variable_name(variable)
        top = name.startswith(("electra/encoder/layer_1/", "electra/encoder/layer_2/"))
        np.testing.assert_array_equal(variable, start if top else checkpoint.read(prefix, [name])[name], err_msg=name)
        if name.endswith("kernel"):
            assert not np.array_equal(start, checkpoint.read(prefix, [name])[name])
    other_seed = build(seed=2, model_hparam_overrides=deeper, reinit_top_layers=2)
    other_seed.load_encoder(prefix)
    kernels = [encoder.layers[2].query.kernel.numpy() for encoder in (model.encoder, other_seed.encoder)]
    assert not np.array_equal(*kernels), "the start values are those of the trial's seed"


def test_label_weights_count_where_they_are_asked_for(build, home):
    rows = ["id\tdocument\tlabel", *(f"{index}\t영화 {index}\t{int(index % 4 > 0)}" for index in range(300))]
    (home / "finetuning_data" / "nsmc" / "ratings_train.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    plain, weighted = build(), build(class_weights=True)
    rare, frequent = weighted.heads[0]._label_weights.numpy()[[0, 1]]
    assert rare > 1.5 > 1 > frequent > 0.5
    features = batch()
    label_of = features["nsmc_label_ids"].numpy()
    for label, weight in enumerate((rare, frequent)):
        features["is_real"] = tf.constant(label_of == label, tf.float32)
        losses = [loss_of(model, features, ModeKeys.TRAIN)[0].numpy() for model in (plain, weighted)]
        np.testing.assert_allclose(losses[1], weight * losses[0], rtol=1e-6)


def test_a_checkpoint_of_another_shape_is_refused_by_name(build, home):
    with pytest.raises(UserError, match=r"electra/embeddings/word_embeddings.*\[20, 16\].*\[19, 16\]"):
        build().load_encoder(saved_encoder(home / "ckpt", vocab_size=20))
    deeper = {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "max_position_embeddings": 32}
    with pytest.raises(UserError, match=r"lacks 'electra/encoder/layer_1/.*--init_checkpoint"):
        build(model_hparam_overrides=deeper).load_encoder(saved_encoder(home / "ckpt2"))
    wider = {**deeper, "num_hidden_layers": 1, "hidden_size": 32}  # with embeddings of 16 it has a projection, the checkpoint has none
    with pytest.raises(UserError, match=r"variable 'electra/.* has shape \[16.* but \[32"):
        build(model_hparam_overrides=wider, embedding_size=16).load_encoder(saved_encoder(home / "ckpt3"))


def test_a_checkpoint_of_the_original_loads_as_it_is(golden, build):
    heads = {"num_attention_heads": 2}
    model = build(init_checkpoint=str(golden / "small"), model_hparam_overrides=heads, embedding_size=None, tokenizer_type=None)
    prefix = checkpoint.resolve(str(golden / "small"))
    model.load_encoder(prefix)
    name = "electra/encoder/layer_1/output/dense/kernel"
    variables = {variable_name(variable): variable for variable in model.trainable_variables}
    np.testing.assert_array_equal(variables[name], checkpoint.read(prefix, [name])[name])


def test_the_mean_is_over_answers_of_which_a_sentence_to_be_tagged_has_one_for_each_word(build):
    model, features = build(task_names=["nsmc", "naver-ner"]), batch(tasks=("nsmc", "naver-ner"))
    tag_ids = np.full((4, 16), -1, np.int32)
    tag_ids[1, [1, 3, 4]], tag_ids[3, 2] = 5, 0
    features["naver-ner_tag_ids"] = tf.constant(tag_ids)
    outputs = model.predict(features)
    total = outputs["nsmc/loss"][0] + outputs["nsmc/loss"][2] + outputs["naver-ner/loss"][1] + outputs["naver-ner/loss"][3]
    assert model.denominators(features)["answers"].numpy() == 1 + 3 + 1 + 1
    np.testing.assert_allclose(loss_of(model, features)[0], total / 6, rtol=1e-6)


# --- folders of the transformers library ---------------------------------------------------------------------------------------------

NOTHING_ASKED = {"model_hparam_overrides": {}, "embedding_size": None, "tokenizer_type": None}


def bert_from(build, folder, **user):
    return build(init_checkpoint=str(folder), **NOTHING_ASKED, **user)


def test_the_encoder_comes_from_the_folder_and_the_head_starts_anew(build, make_transformers_folder, caplog):
    folder = make_transformers_folder("electra")
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    weights["classifier.out_proj.bias"] = np.ones(2, np.float32)
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    model = bert_from(build, folder, classifier_head="two_layer")
    with caplog.at_level("INFO", logger="absl"):
        model.load_encoder(str(folder))
    variables = {variable_name(variable): variable.numpy() for variable in model.encoder.trainable_variables}
    assert len(variables) == len(weights) - 1
    kernel = "encoder/layer_1/output/dense/kernel"
    np.testing.assert_array_equal(variables[f"electra/{kernel}"], weights["electra.encoder.layer.1.output.dense.weight"].T)
    np.testing.assert_array_equal(model.heads[0].classifier.bias, [0, 0])
    assert "left there: classifier.out_proj.bias" in caplog.text


@pytest.mark.parametrize(
    "tasks, head, has_pooler", [("nsmc", "two_layer", True), ("nsmc", "linear", False), ("naver-ner", "two_layer", False)]
)
def test_only_a_head_that_reads_the_pooler_brings_it(build, make_transformers_folder, tasks, head, has_pooler):
    folder = make_transformers_folder("bert")
    model = bert_from(build, folder, classifier_head=head, task_names=[tasks])
    names = {variable_name(variable) for variable in model.trainable_variables}
    assert ("electra/pooler/dense/kernel" in names) == has_pooler
    model.load_encoder(str(folder))
    if has_pooler:
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        np.testing.assert_array_equal(model.encoder.pooler.kernel, weights["bert.pooler.dense.weight"].T)


@pytest.mark.parametrize("kind", ["electra", "bert", "distilbert"])
@pytest.mark.parametrize("head", ["linear", "two_layer"])
def test_every_variable_learns_whatever_the_architecture(build, make_transformers_folder, kind, head):
    model, features = bert_from(build, make_transformers_folder(kind), classifier_head=head), batch()
    with tf.GradientTape() as tape:
        loss = model.loss(features, model.denominators(features), STEP, ModeKeys.TRAIN)[0]
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient is not None for gradient in gradients)


def test_a_pooler_that_is_not_there_starts_anew(build, make_transformers_folder, home):
    folder = make_transformers_folder("bert")
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    safetensors.numpy.save_file({name: value for name, value in weights.items() if "pooler" not in name}, folder / "model.safetensors")
    model = bert_from(build, folder, classifier_head="two_layer")
    before = model.encoder.pooler.kernel.numpy()
    model.load_encoder(str(folder))
    np.testing.assert_array_equal(model.encoder.pooler.kernel, before)
    # The same from a checkpoint of ours, which a run with another head left.
    linear = bert_from(build, folder, classifier_head="linear", seed=5)
    linear.load_encoder(checkpoint.save(str(home / "ours"), 5, linear.encoder.trainable_variables, keep_max=1))
    model.load_encoder(str(home / "ours" / "model.ckpt-5"))
    np.testing.assert_array_equal(model.encoder.get_embedding_table(), linear.encoder.get_embedding_table())
    np.testing.assert_array_equal(model.encoder.pooler.kernel, before)


def test_weights_of_another_shape_than_config_json_says_are_refused_by_name(build, make_transformers_folder):
    folder = make_transformers_folder("distilbert")
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    weights["distilbert.transformer.layer.0.ffn.lin1.weight"] = np.zeros([20, 8], np.float32)
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    model = bert_from(build, folder)
    before = [variable.numpy() for variable in model.trainable_variables]
    with pytest.raises(UserError, match=r"electra/encoder/layer_0/intermediate/dense/kernel' has shape \[8, 20\].*\[8, 12\] in this model"):
        model.load_encoder(str(folder))
    assert all(np.array_equal(*pair) for pair in zip(before, model.trainable_variables, strict=True)), "all or nothing"
