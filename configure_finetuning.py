"""FinetuningConfig: every knob of fine-tuning, its presets, and the one rule of precedence between them.

defaults < model size < recipe < task < debug < what the user asked for. Names and meanings are those of google-research/electra's
configure_finetuning.py; fields it does not have are marked "ours". A configuration never touches the disk.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from configure_pretraining import DEBUG_MODEL
from model import hparams
from model.command import UserError, check_name
from model.devices import PRECISIONS
from model.hparams import option
from model.tokenization import KOBERT, TOKENIZER_TYPES

RECIPES = ("google", "dialog")

# Clark et al. 2020, Table 7, as google-research/electra sets them (its learning rate for "small" is 1e-4, the paper's 3e-4).
SIZE_PRESETS: dict[str, dict[str, Any]] = {"small": {}, "base": {}, "large": {"learning_rate": 5e-5, "layerwise_lr_decay": 0.9}}

# "google" is what the field defaults spell out. "dialog" is what SKplanet/Dialog-KoELECTRA's published scores were made with.
RECIPE_PRESETS: dict[str, dict[str, Any]] = {
    "google": {},
    "dialog": {
        "learning_rate": 5e-5,
        "weight_decay_rate": 0.0,
        "layerwise_lr_decay": 0.0,
        "warmup_proportion": 0.0,
        "adam_epsilon": 1e-8,
        "adam_bias_correction": True,
        "num_train_epochs": 10.0,
        "eval_batch_size": 64,
        "predict_batch_size": 64,
        "eval_every_steps": 100,
        "classifier_head": "two_layer",
        "double_unordered": False,
    },
}

# (recipe, task) -> what the recipe does otherwise where that task is learned alone.
TASK_PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("google", "korsts"): {"num_train_epochs": 10.0},  # as google-research/electra has it for STS
    ("google", "klue-sts"): {"num_train_epochs": 10.0},
    ("dialog", "hate-speech"): {"learning_rate": 7e-5, "warmup_proportion": 0.1},
}

DEBUG_PRESET: dict[str, Any] = {
    "num_trials": 1,
    "train_batch_size": 32,
    "num_train_epochs": 3.0,
    "save_checkpoints_steps": 1_000_000,
    "iterations_per_loop": 1,
    "use_tfrecords_if_existing": False,
    "log_examples": True,
    "init_checkpoint": "none",
}


@dataclasses.dataclass(frozen=True)
class FinetuningConfig:
    """Hyper-parameters of fine-tuning. Make one with `FinetuningConfig.create`, which applies the presets."""

    model_name: str = option("", "name of the pre-trained model under data_dir/models")
    data_dir: str = option("", "folder of models, vocabulary and fine-tuning data")
    debug: bool = option(False, "a tiny model with random weights, for a quick look at whether things run")
    log_examples: bool = option(False, "log the first training examples as the model sees them")
    num_trials: int = option(1, "how often to train and score, with the seeds seed, seed + 1, ...")
    do_train: bool = option(True, "train; without it the trials trained before are scored")
    do_eval: bool = option(True, "score the selected weights on the test split")
    keep_all_models: bool = option(True, "keep the weights of every trial, not only of the last")
    seed: int = option(42, "seed of the first trial: new weights, data order, dropout (ours)")

    recipe: str = option("google", "preset of google-research/electra or of SKplanet/Dialog-KoELECTRA (ours)", RECIPES)
    model_size: str | None = option(None, "architecture, where no checkpoint tells it, and its presets; null: small", tuple(SIZE_PRESETS))
    task_names: list[str] = option(["nsmc"], "tasks to learn")
    multi_task: bool = option(True, "several tasks: one model for all; without it each task has a model and its recipe of its own (ours)")
    task_hparams: dict[str, Any] = option(
        {}, 'task -> settings for it alone, with --nomulti_task, such as {"nsmc": {"num_train_epochs": 1.0}} (ours)'
    )
    task_config: list[Any] = option([], "tasks of your own, as finetune.custom_task reads them from YAML files (ours)")
    task_module: str = option("", "Python file or module that registers tasks of your own (ours)")
    model_hparam_overrides: dict[str, Any] = option({}, "BertConfig values that override the model size's")
    embedding_size: int | None = option(None, "width of the embeddings; null: the checkpoint's, else 128 for small, or the hidden size")
    vocab_size: int | None = option(None, "rows of the embedding table; null: as the checkpoint's config.json or the vocabulary has it")
    do_lower_case: bool | None = option(None, "lower-case the text; null: as the checkpoint was trained, else not")
    strip_accents: bool | None = option(None, "strip accents; null: as the checkpoint was trained, else not (ours)")
    tokenizer_type: str | None = option(
        None, "tokenizer; null: the checkpoint's, wordpiece if it does not say; else mecab_wordpiece (ours)", (*TOKENIZER_TYPES, KOBERT)
    )
    analyzer: str | None = option(None, "morpheme analyser; null: the checkpoint's, else mecab (ours)")

    learning_rate: float = option(1e-4, "peak learning rate")
    weight_decay_rate: float = option(0.01, "decoupled weight decay, times the learning rate")
    layerwise_lr_decay: float = option(0.8, "factor on the learning rate from each layer to the one below; 0: one rate for all")
    layerwise_lr_decay_off_by_one: bool = option(False, "give the top layer decay squared, as google-research/electra does (ours)")
    num_train_epochs: float = option(3.0, "passes over the training examples")
    warmup_proportion: float = option(0.1, "share of the steps over which the learning rate rises to its peak")
    adam_epsilon: float = option(1e-6, "Adam's epsilon, added outside the root (ours)")
    adam_bias_correction: bool = option(False, "correct Adam's moments for their start at zero (ours)")
    clip_norm: float = option(1.0, "global gradient norm to clip to; 0: no clipping (ours)")
    loss_reduction: str = option("mean", "mean or, as in google-research/electra, sum over the batch (ours)", ("mean", "sum"))
    class_weights: bool = option(False, "classification: train rare labels with as much weight in all as frequent ones (ours)")
    gradient_accumulation_steps: int = option(1, "parts in which a batch is computed, to save memory (ours)")
    reinit_top_layers: int = option(0, "so many of the encoder's top layers start anew instead of from the checkpoint (ours)")
    classifier_head: str = option(
        "linear",
        "dropout + dense on [CLS], or dropout + dense + GELU + dropout + dense as in the transformers library (ours)",
        ("linear", "two_layer"),
    )
    save_checkpoints_steps: int = option(1000, "steps between checkpoints, from which a killed run goes on")
    iterations_per_loop: int = option(100, "steps per call into the accelerator")
    use_tfrecords_if_existing: bool = option(True, "reuse features of an earlier run over the same text, vocabulary and length")
    group_by_length: bool = option(True, "train on batches of similar length, several times faster on short texts (ours)")
    eval_every_steps: int = option(0, "steps between evaluations on dev, each a candidate for selection; 0: every epoch (ours)")
    early_stopping_patience: int = option(0, "stop after so many evaluations on dev in a row without a better one; 0: never (ours)")
    dev_fraction: float = option(0.05, "share of train held out as dev where a task has no dev file (ours)")
    dev_seed: int = option(0, "which share of train that is; the same for every trial (ours)")

    write_test_outputs: bool = option(False, "write the predictions on the test split as TSV and JSON lines")
    n_writes_test: int = option(5, "write test predictions for the first so many trials")

    max_seq_length: int = option(128, "pieces of an example, [CLS] and [SEP] included; longer texts are cut")
    train_batch_size: int = option(32, "examples per step")
    eval_batch_size: int = option(32, "examples per batch on dev")
    predict_batch_size: int = option(32, "examples per batch on test")
    double_unordered: bool = option(True, "train on both orders of a pair where the order has no meaning")

    mixed_precision: bool = option(False, "compute in half precision: bfloat16, or float16 on older GPUs (ours)")
    precision: str | None = option(None, "force a precision (ours)", PRECISIONS)
    jit_compile: bool | None = option(None, "compile with XLA; null: where it is faster (ours)")
    use_tpu: bool = option(False, "run on a TPU")
    num_tpu_cores: int = option(1, "TPU cores to use")
    tpu_job_name: str | None = option(None, "name of the TPU worker job")
    tpu_name: str | None = option(None, "Cloud TPU to use")
    tpu_zone: str | None = option(None, "zone of the Cloud TPU")
    gcp_project: str | None = option(None, "project of the Cloud TPU")

    raw_data_dir: str = option("", "folder that holds one folder per task; empty: data_dir/finetuning_data")
    vocab_file: str = option("", "vocabulary; empty: the one beside the checkpoint, else data_dir/vocab.txt")
    init_checkpoint: str = option(
        "", "folder or prefix of a checkpoint, or folder of transformers; empty: data_dir/models/model_name; none: random weights"
    )
    model_dir: str = option("", "folder for trained weights; empty: finetuning_models/TASKS_model in the model's folder")
    results_dir: str = option("", "folder for scores; empty: results in the model's folder (ours)")
    preprocessed_data_dir: str = option("", "folder for cached features; empty: finetuning_tfrecords/TASKS_tfrecords in the model's folder")

    @classmethod
    def create(cls, model_name: str, data_dir: str, values: Mapping[str, Any]) -> "FinetuningConfig":
        """Returns the resolved configuration: presets, then `values`; UserError on anything unknown, mistyped or impossible."""
        check_name(model_name, "model_name")
        user = hparams.check(cls, values)
        given, own = user.get("task_names", []), _names(user.get("task_config", []))
        if own:
            user["task_names"] = [*given, *(name for name in own if name not in given)]
        tasks = user.get("task_names", ["nsmc"])
        if len(tasks) == 1:
            user |= hparams.check(cls, _settings_of(str(tasks[0]), user.get("task_hparams", {})))
        size = user.get("model_size") or "small"
        recipe = user.get("recipe", "google")
        presets = {**SIZE_PRESETS[size], **RECIPE_PRESETS[recipe]}
        if len(tasks) == 1:
            presets |= TASK_PRESETS.get((recipe, str(tasks[0])), {})
        if user.get("debug"):
            presets |= DEBUG_PRESET
            user["model_hparam_overrides"] = {**DEBUG_MODEL, **user.get("model_hparam_overrides", {})}
        config = cls(**{**presets, **user, "model_name": model_name, "data_dir": data_dir})
        return dataclasses.replace(config, **config._default_paths())

    @classmethod
    def create_each(cls, model_name: str, data_dir: str, values: Mapping[str, Any]) -> "list[FinetuningConfig]":
        """The configurations that `values` ask for: one for all tasks together, or with multi_task=False one for each."""
        config = cls.create(model_name, data_dir, values)
        if len(config.task_names) == 1:
            return [config]
        if not config.multi_task:
            own = {name: [found for found in config.task_config if found["name"] == name] for name in config.task_names}
            return [cls.create(model_name, data_dir, {**values, "task_names": [name], "task_config": own[name]}) for name in own]
        if config.task_hparams:
            raise UserError(f"task_hparams={config.task_hparams} needs a model for each task (--nomulti_task)")
        return [config]

    def _default_paths(self) -> dict[str, Any]:
        """Paths that were not given, in the places where google-research/electra has them."""
        home = self.pretrained_model_dir
        tasks = ",".join(self.task_names)
        defaults = {
            "raw_data_dir": os.path.join(self.data_dir, "finetuning_data"),
            "init_checkpoint": home,
            "model_dir": os.path.join(home, "finetuning_models", f"{tasks}_model"),
            "results_dir": os.path.join(home, "results"),
            "preprocessed_data_dir": os.path.join(home, "finetuning_tfrecords", f"{tasks}_tfrecords"),
        }
        return {name: path for name, path in defaults.items() if not getattr(self, name)}

    @property
    def pretrained_model_dir(self) -> str:
        return os.path.join(self.data_dir, "models", self.model_name)

    @property
    def random_weights(self) -> bool:
        """Whether training starts from scratch instead of from a checkpoint."""
        return self.init_checkpoint.lower() == "none"

    def __post_init__(self) -> None:
        _check_counts(self)
        _check_ranges(self)
        if not self.task_names or not all(isinstance(name, str) for name in self.task_names):
            raise UserError(f"task_names must be a list of task names, got {self.task_names!r} (--task_names)")
        if len(set(self.task_names)) < len(self.task_names):
            raise UserError(f"task_names names a task twice: {', '.join(self.task_names)} (--task_names)")
        if self.train_batch_size % self.gradient_accumulation_steps:
            raise UserError(
                f"gradient_accumulation_steps={self.gradient_accumulation_steps} must divide train_batch_size={self.train_batch_size} "
                "(--gradient_accumulation_steps)"
            )


def _settings_of(task: str, task_hparams: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `task_hparams` has for `task`; UserError for what a task cannot have of its own."""
    settings = task_hparams.get(task, {})
    if not isinstance(settings, dict):
        raise UserError(f"task_hparams[{task!r}] must be an object of settings, got {settings!r} (--task_hparams)")
    for name in settings:
        if name in _NOT_IN_RESULT or name in ("task_names", "recipe", "model_size", "debug"):
            raise UserError(f"task_hparams[{task!r}] has {name!r}, which is the same for all tasks (--task_hparams)")
    return settings


def _names(descriptions: list[Any]) -> list[str]:
    """The names of the tasks in task_config."""
    for description in descriptions:
        if not isinstance(description, dict) or not isinstance(description.get("name"), str):
            raise UserError(f"task_config must hold what finetune.custom_task reads from YAML files, got {description!r} (--task_config)")
    return [description["name"] for description in descriptions]


_AT_LEAST_ONE = (
    "num_trials",
    "gradient_accumulation_steps",
    "save_checkpoints_steps",
    "iterations_per_loop",
    "train_batch_size",
    "eval_batch_size",
    "predict_batch_size",
    "num_tpu_cores",
)
_NOT_NEGATIVE = (
    "weight_decay_rate",
    "adam_epsilon",
    "clip_norm",
    "reinit_top_layers",
    "eval_every_steps",
    "early_stopping_patience",
    "n_writes_test",
    "seed",
    "dev_seed",
)


def _check_counts(config: FinetuningConfig) -> None:
    for name in _AT_LEAST_ONE:
        if getattr(config, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(config, name)} (--{name})")
    for name in _NOT_NEGATIVE:
        if getattr(config, name) < 0:
            raise UserError(f"{name} must not be negative, got {getattr(config, name)} (--{name})")


def _check_ranges(config: FinetuningConfig) -> None:
    ranges = [
        ("learning_rate", config.learning_rate > 0, "above 0"),
        ("num_train_epochs", config.num_train_epochs > 0, "above 0"),
        ("layerwise_lr_decay", 0 <= config.layerwise_lr_decay <= 1, "from 0 to 1"),
        ("warmup_proportion", 0 <= config.warmup_proportion < 1, "from 0 to below 1"),
        ("dev_fraction", 0 < config.dev_fraction < 1, "between 0 and 1"),
        # [CLS], one piece, [SEP], and a second text with its [SEP].
        ("max_seq_length", config.max_seq_length >= 5, "at least 5"),
    ]
    for name, holds, allowed in ranges:
        if not holds:
            raise UserError(f"{name} must be {allowed}, got {getattr(config, name)} (--{name})")


# What has no part in a result: where things lie, how many trials there are, and what is shown or kept of them.
_NOT_IN_RESULT = (
    "multi_task",
    "task_hparams",  # what they hold for a task is among its settings
    "model_name",
    "data_dir",
    "log_examples",
    "num_trials",
    "do_train",
    "do_eval",
    "keep_all_models",
    "seed",
    "save_checkpoints_steps",
    "iterations_per_loop",
    "use_tfrecords_if_existing",
    "write_test_outputs",
    "n_writes_test",
    "eval_batch_size",
    "predict_batch_size",
    "tpu_job_name",
    "tpu_name",
    "tpu_zone",
    "gcp_project",
    "task_module",
    "raw_data_dir",
    "vocab_file",
    "init_checkpoint",
    "model_dir",
    "results_dir",
    "preprocessed_data_dir",
)


def result_values(config: FinetuningConfig) -> Mapping[str, Any]:
    """The values of `config` that a score depends on; the files' contents and the trial's seed are accounted for by the runner."""
    values = {name: value for name, value in dataclasses.asdict(config).items() if name not in _NOT_IN_RESULT}
    return values | {"task_config": [definition(description) for description in config.task_config]}


def definition(description: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of task_config without where its files lie: what a score depends on, beside their contents."""
    return {key: value for key, value in description.items() if key not in ("path", "files")}
