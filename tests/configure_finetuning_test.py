import dataclasses

import pytest

from configure_finetuning import FinetuningConfig, result_values
from model.command import UserError


def create(**user):
    return FinetuningConfig.create("mini", "/data", user)


# (recipe, size) -> lr, layer-wise decay, weight decay, warm-up, epochs, epsilon, bias correction, head, dev evaluation, eval batch
PRESETS = {
    ("google", "small"): (1e-4, 0.8, 0.01, 0.1, 3.0, 1e-6, False, "linear", 0, 32),
    ("google", "base"): (1e-4, 0.8, 0.01, 0.1, 3.0, 1e-6, False, "linear", 0, 32),
    ("google", "large"): (5e-5, 0.9, 0.01, 0.1, 3.0, 1e-6, False, "linear", 0, 32),
    ("dialog", "small"): (5e-5, 0.0, 0.0, 0.0, 10.0, 1e-8, True, "two_layer", 100, 64),
    ("dialog", "large"): (5e-5, 0.0, 0.0, 0.0, 10.0, 1e-8, True, "two_layer", 100, 64),
}


@pytest.mark.parametrize("recipe, size", PRESETS)
def test_presets_are_the_published_ones(recipe, size):
    config = create(recipe=recipe, model_size=size)
    found = (
        config.learning_rate,
        config.layerwise_lr_decay,
        config.weight_decay_rate,
        config.warmup_proportion,
        config.num_train_epochs,
        config.adam_epsilon,
        config.adam_bias_correction,
        config.classifier_head,
        config.eval_every_steps,
        config.eval_batch_size,
    )
    assert found == PRESETS[recipe, size]
    assert (config.train_batch_size, config.max_seq_length, config.clip_norm, config.seed) == (32, 128, 1.0, 42)
    assert config.gradient_accumulation_steps == 1 and config.loss_reduction == "mean" and not config.layerwise_lr_decay_off_by_one
    assert config.embedding_size is None and create().model_size is None, "what was not asked for is not known to contradict a checkpoint"


def test_a_recipe_has_numbers_of_its_own_for_a_task_learned_alone():
    assert create(task_names=["korsts"]).num_train_epochs == 10.0 and create(task_names=["korsts", "nsmc"]).num_train_epochs == 3.0
    hate = create(recipe="dialog", task_names=["hate-speech"])
    assert (hate.learning_rate, hate.warmup_proportion) == (7e-5, 0.1)
    assert create(recipe="dialog", task_names=["hate-speech"], learning_rate=1e-4).learning_rate == 1e-4
    assert create(recipe="google", task_names=["hate-speech"]).learning_rate == 1e-4
    assert create(task_names=["question-pair"]).double_unordered and not create(recipe="dialog").double_unordered


def test_the_user_overrides_debug_which_overrides_the_recipe():
    assert create(recipe="dialog", debug=True).num_train_epochs == 3.0
    assert create(recipe="dialog", debug=True).learning_rate == 5e-5
    assert create(recipe="dialog", debug=True, num_train_epochs=7).num_train_epochs == 7.0
    assert create(debug=True).random_weights and not create().random_weights


def test_paths_are_the_originals_and_can_be_given():
    config = create(task_names=["nsmc"])
    assert config.init_checkpoint == "/data/models/mini"
    assert config.raw_data_dir == "/data/finetuning_data"
    assert config.model_dir == "/data/models/mini/finetuning_models/nsmc_model"
    assert config.results_dir == "/data/models/mini/results"
    assert config.preprocessed_data_dir == "/data/models/mini/finetuning_tfrecords/nsmc_tfrecords"
    assert create(raw_data_dir="/raw").raw_data_dir == "/raw"


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        create().learning_rate = 1.0


@pytest.mark.parametrize(
    "user, words",
    [
        ({"learning_rat": 1e-4}, ["unknown", "learning_rat", "did you mean 'learning_rate'"]),
        ({"do_train": "False"}, ["do_train", "bool", "'False'"]),
        ({"max_seq_length": "4"}, ["max_seq_length", "int", "'4'"]),
        ({"recipe": "googel"}, ["recipe", "google, dialog", "'googel'"]),
        ({"num_trials": 0}, ["num_trials", "at least 1", "0"]),
        ({"learning_rate": 0}, ["learning_rate", "above 0"]),
        ({"dev_fraction": 1.0}, ["dev_fraction", "between 0 and 1", "1.0"]),
        ({"reinit_top_layers": -1}, ["reinit_top_layers", "not be negative", "-1"]),
        ({"early_stopping_patience": -1}, ["early_stopping_patience", "not be negative", "-1"]),
        ({"warmup_proportion": 1}, ["warmup_proportion", "--warmup_proportion"]),
        ({"max_seq_length": 4}, ["max_seq_length", "at least 5"]),
        ({"task_names": []}, ["task_names", "list"]),
        ({"task_names": ["nsmc", "nsmc"]}, ["twice", "--task_names"]),
        ({"train_batch_size": 32, "gradient_accumulation_steps": 5}, ["gradient_accumulation_steps=5", "32"]),
    ],
)
def test_bad_values_are_named(user, words):
    with pytest.raises(UserError) as error:
        create(**user)
    assert all(word in str(error.value) for word in words), error.value


def test_result_values_leave_out_what_no_score_depends_on():
    base = result_values(create())
    same = create(num_trials=3, do_eval=False, raw_data_dir="/elsewhere", save_checkpoints_steps=7, write_test_outputs=True)
    assert result_values(same) == base
    changed = [{"learning_rate": 2e-4}, {"dev_seed": 1}, {"recipe": "dialog"}, {"loss_reduction": "sum"}]
    for user in (*changed, {"reinit_top_layers": 1}, {"early_stopping_patience": 1}):
        assert result_values(create(**user)) != base
