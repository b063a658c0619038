import numpy as np
import pytest
import tensorflow as tf

from finetune import model_runner, preprocessing
from finetune.finetuning_model import FinetuningModel
from finetune.model_runner import ModelRunner, create_optimizer
from finetune.preprocessing import Preprocessor
from finetune.starting_point import find_starting_point
from finetune.task_builder import get_tasks
from model import checkpoint
from model.command import UserError
from model.estimator import InputContext
from model.layers import variable_name
from model.modeling import BertConfig, BertModel


@pytest.fixture
def build(make_config):
    def make(trial_dir, seed=42, **user) -> ModelRunner:
        config = make_config(**user)
        tasks, start = get_tasks(config), find_starting_point(config)
        return ModelRunner(config, tasks, Preprocessor(config, tasks, start.tokenizer), start, str(trial_dir), seed)

    return make


def best_weights(runner):
    prefix = checkpoint.latest(runner._best_dir)
    return checkpoint.read(prefix, list(checkpoint.read_shapes(prefix)))


def assert_same_weights(first, second):
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_a_tiny_model_learns_from_random_weights(build, tmp_path):
    runner = build(tmp_path / "trial", num_train_epochs=8.0)
    before = runner.evaluate("dev")["nsmc"]
    runner.train()
    runner.load_best()
    after = runner.evaluate("test")["nsmc"]
    assert after["loss"] < 0.5 * before["loss"] and after["accuracy"] > 90.0
    assert [entry["step"] for entry in runner.history] == [runner.train_steps * epoch // 8 for epoch in range(1, 9)]
    weights = best_weights(runner)
    assert "task_specific/nsmc/classifier/kernel" in weights and not any("adam" in name for name in weights)


def test_a_trial_that_is_broken_off_ends_in_the_same_bits(build, tmp_path, monkeypatch):
    whole = build(tmp_path / "whole", save_checkpoints_steps=4)
    whole.train()

    def stop(self, step, path):
        if step == 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model_runner.TrialProgress, "after_save", stop)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "broken", save_checkpoints_steps=4).train()
    resumed = build(tmp_path / "broken", save_checkpoints_steps=4)
    assert len(resumed.history) == 1
    resumed.train()
    untimed = [[{**entry, "seconds": 0} for entry in runner.history] for runner in (whole, resumed)]
    assert untimed[0] == untimed[1]
    assert_same_weights(best_weights(whole), best_weights(resumed))
    ends = [checkpoint.latest(str(tmp_path / name)) for name in ("whole", "broken")]
    assert_same_weights(*(checkpoint.read(prefix, list(checkpoint.read_shapes(prefix))) for prefix in ends))


def test_pretrained_weights_are_taken(build, tmp_path):
    shape = BertConfig(19, 16, 1, 2, 32, max_position_embeddings=32)
    prefix = checkpoint.save(str(tmp_path / "start"), 1, BertModel(shape, seed=9).trainable_variables, keep_max=1)
    name = "electra/encoder/layer_0/output/dense/kernel"
    models = [build(tmp_path / "trial", init_checkpoint=start).estimator.model for start in (str(tmp_path / "start"), "none")]
    loaded, random = ({variable_name(variable): variable.numpy() for variable in model.trainable_variables}[name] for model in models)
    np.testing.assert_array_equal(loaded, checkpoint.read(prefix, [name])[name])
    assert not np.array_equal(random, loaded)


def test_batches_of_every_length_share_one_trace(build, tmp_path, monkeypatch):
    traced = []
    for name in ("loss", "predict"):
        plain = getattr(FinetuningModel, name)

        def noted(self, features, *arguments, name=name, plain=plain):
            traced.append((name, features["input_ids"].shape[1]))
            return plain(self, features, *arguments)

        monkeypatch.setattr(FinetuningModel, name, noted)
    runner = build(tmp_path / "trial", num_train_epochs=1.0)
    lengths = {batch["input_ids"].shape[1] for batch in runner._train_input_fn(InputContext(runner._config.train_batch_size))}
    runner.train()
    runner.evaluate("train")
    assert len(lengths) > 1 and [length for name, length in traced if name == "loss"] == [None]
    assert [length for name, length in traced if name == "predict"][1:] == [None]


@pytest.mark.slow
def test_padding_has_no_part_in_training(build, tmp_path, monkeypatch):
    # Dropout is off in the encoder: which bits it draws depends on the padded length.
    shape = find_starting_point(build(tmp_path / "any")._config).bert_config.to_dict()
    still = {name: value for name, value in shape.items() if name != "vocab_size"} | {
        "hidden_dropout_prob": 0,
        "attention_probs_dropout_prob": 0,
    }
    weights = []
    for name, lengths in (("trimmed", [16, 32]), ("padded", [32])):
        monkeypatch.setattr(preprocessing, "padded_lengths", lambda max_length, lengths=lengths: lengths)
        runner = build(tmp_path / name, max_seq_length=32, model_hparam_overrides=still)
        runner.train()
        weights.append(best_weights(runner))
    for name in weights[0]:
        np.testing.assert_allclose(weights[0][name], weights[1][name], atol=2e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "user", [{"mixed_precision": True}, {"precision": "float16"}, {"jit_compile": True}, {"gradient_accumulation_steps": 4}]
)
def test_scores_and_tags_are_learned_however_they_are_computed(build, tmp_path, several, user):
    runner = build(tmp_path / "trial", task_names=several, num_train_epochs=4.0, **user)
    runner.train()
    runner.load_best()
    scores = runner.evaluate("test")
    assert scores["naver-ner"]["f1"] > 80 and scores["korsts"]["spearman"] > 50


@pytest.mark.slow
def test_accumulated_parts_give_the_same_training(build, tmp_path):
    runners = [build(tmp_path / str(parts), gradient_accumulation_steps=parts, num_train_epochs=1.0) for parts in (1, 4)]
    for runner in runners:
        runner.train()
    first, second = map(best_weights, runners)
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=2e-4, err_msg=name)


def test_the_first_of_the_best_dev_scores_is_selected(build, tmp_path, monkeypatch):
    scores = iter([50.0, 70.0, 60.0, 70.0])
    runner = build(tmp_path / "trial", eval_every_steps=7, num_train_epochs=28 * 16 / 240)
    monkeypatch.setattr(runner, "evaluate", lambda split: {"nsmc": {"accuracy": next(scores), "loss": 1.0}})
    runner.train()
    assert [entry["step"] for entry in runner.history] == [7, 14, 21, runner.train_steps]
    assert runner.load_best()["step"] == 14
    assert [path.rpartition("-")[2] for path in checkpoint.checkpoints(runner._best_dir)] == ["14"]


def pretend(runner, monkeypatch, scores, num_steps=42) -> list[int]:
    """Lets `runner` train in no time, with these scores on dev; returns the steps it trains to."""
    trained, scores = [], iter(scores)
    monkeypatch.setattr(runner, "train_steps", num_steps)
    monkeypatch.setattr(runner, "evaluate", lambda split: {"nsmc": {"accuracy": next(scores), "loss": 1.0}})
    monkeypatch.setattr(runner.estimator, "train", lambda input_fn, max_steps, hooks: trained.append(max_steps))
    return trained


@pytest.mark.parametrize("patience, last", [(0, 42), (1, 21), (2, 42), (3, 42)])
def test_training_stops_when_dev_has_not_improved_for_so_long(build, tmp_path, monkeypatch, patience, last):
    runner = build(tmp_path / "trial", early_stopping_patience=patience, eval_every_steps=7)
    trained = pretend(runner, monkeypatch, [50.0, 70.0, 60.0, 71.0, 71.0, 70.0])
    runner.train()
    assert trained == list(range(7, last + 1, 7)) and runner.is_trained


def test_equal_scores_do_not_put_off_the_early_stop(build, tmp_path):
    runner = build(tmp_path / "trial", early_stopping_patience=2, eval_every_steps=7)
    runner.history = [{"step": 7 * count, "score": score} for count, score in enumerate([60.0, 60.0, 60.0], 1)]
    assert runner.is_trained and runner.train_steps > 21


@pytest.mark.slow
def test_a_trial_killed_before_or_after_its_early_stop_ends_the_same(build, tmp_path, monkeypatch):
    user = {"early_stopping_patience": 1, "save_checkpoints_steps": 4, "eval_every_steps": 4, "learning_rate": 1e-6}
    whole = build(tmp_path / "whole", **user)
    whole.train()
    stopped_at = whole.history[-1]["step"]
    assert 4 < stopped_at < whole.train_steps, "what dev says of a model that hardly learns does not always improve"

    def stop(self, step, path):
        if step == stopped_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model_runner.TrialProgress, "after_save", stop)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "broken", **user).train()
    before = build(tmp_path / "broken", **user)
    assert not before.is_trained
    with pytest.raises(UserError, match="no finished trial"):
        before.load_best()
    before.train()
    after = build(tmp_path / "broken", **user)
    monkeypatch.setattr(after.estimator, "train", None)
    after.train()
    assert [entry["score"] for entry in after.history] == [entry["score"] for entry in whole.history]
    assert after.load_best()["step"] == whole.load_best()["step"]
    assert_same_weights(best_weights(whole), best_weights(after))


def test_every_score_on_dev_is_told_also_those_of_an_earlier_run(build, tmp_path, monkeypatch):
    told = []

    def break_off(count, score):
        told.append((count, score))
        if count == 2:
            raise KeyboardInterrupt

    first, second = (build(tmp_path / "trial", eval_every_steps=7) for _ in range(2))
    pretend(first, monkeypatch, [50.0, 70.0], num_steps=28)
    with pytest.raises(KeyboardInterrupt):
        first.train(break_off)
    second.history = first.history
    pretend(second, monkeypatch, [60.0, 80.0], num_steps=28)
    second.train(lambda count, score: told.append((count, score)))
    assert told == [(1, 50.0), (2, 70.0), (1, 50.0), (2, 70.0), (3, 60.0), (4, 80.0)]


def test_without_a_finished_trial_there_is_nothing_to_score(build, tmp_path):
    with pytest.raises(UserError, match="no finished trial.*--do_train"):
        build(tmp_path / "trial").load_best()


def test_seeds_give_different_starts_and_orders(build, tmp_path):
    first, second = (build(tmp_path / str(seed), seed=seed).estimator.model for seed in (1, 2))
    assert not np.array_equal(first.heads[0].classifier.kernel, second.heads[0].classifier.kernel)


NAMES = [
    "electra/embeddings/word_embeddings",
    "electra/embeddings_project/kernel",
    "electra/encoder/layer_0/output/dense/kernel",
    "electra/encoder/layer_1/output/dense/kernel",
    "electra/encoder/layer_2/output/dense/kernel",
    "task_specific/nsmc/classifier/kernel",
]


def step_sizes(config, steps=10):
    """How far one update moves each variable whose gradient is 1 in all its elements, in units of the head's."""
    variables = [tf.Variable(tf.zeros([1]), name=name) for name in NAMES]
    optimizer = create_optimizer(config, variables, steps, num_layers=3)
    optimizer.apply_gradients([tf.ones([1])] * len(variables), tf.constant(5, tf.int64))
    moved = np.array([-variable.numpy()[0] for variable in variables])
    return moved / moved[-1], [variable_name(variable) for variable in variables]


def test_each_layer_learns_more_slowly_than_the_one_above(make_config):
    ratios, _ = step_sizes(make_config(layerwise_lr_decay=0.8))
    np.testing.assert_allclose(ratios, [0.8**4, 0.8**4, 0.8**3, 0.8**2, 0.8, 1.0], rtol=1e-5)


def test_layerwise_decay_off_by_one_as_in_the_original(make_config):
    ratios, _ = step_sizes(make_config(layerwise_lr_decay=0.8, layerwise_lr_decay_off_by_one=True))
    np.testing.assert_allclose(ratios, [0.8**5, 0.8**5, 0.8**4, 0.8**3, 0.8**2, 1.0], rtol=1e-5)


def test_the_dialog_recipe_has_one_rate_and_no_warmup(make_config):
    ratios, _ = step_sizes(make_config(recipe="dialog", layerwise_lr_decay=0.0))
    np.testing.assert_allclose(ratios, np.ones(6), rtol=1e-6)
    config = make_config(recipe="dialog", learning_rate=5e-5)
    optimizer = create_optimizer(config, [tf.Variable([0.0], name="x")], 100, 3)
    np.testing.assert_allclose([optimizer.learning_rate(step) for step in (0, 50)], [5e-5, 2.5e-5], rtol=1e-6)


def test_the_google_recipe_warms_up_over_a_tenth(make_config):
    optimizer = create_optimizer(make_config(learning_rate=1e-4), [tf.Variable([0.0], name="x")], 100, 3)
    expected = [0.0, 1e-4 * 0.95 * 0.5, 1e-4 * 0.9, 1e-4 * 0.5]
    np.testing.assert_allclose([optimizer.learning_rate(step) for step in (0, 5, 10, 50)], expected, rtol=1e-6)
