"""The configuration of a pre-training run, under google-research/electra's names."""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

from model.command import UserError, check_name
from model.devices import PRECISIONS
from model.hparams import check, option
from model.modeling import EMBEDDING_SIZES, SIZES, get_bert_config

DEBUG = {"train_batch_size": 8, "num_train_steps": 20, "eval_batch_size": 4, "num_eval_steps": 2}
DEBUG_MODEL = {"hidden_size": 144, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 576}

_AT_LEAST_1 = (
    *("train_batch_size", "eval_batch_size", "num_train_steps", "save_checkpoints_steps", "iterations_per_loop", "log_steps"),
    *("gradient_accumulation_steps", "num_tpu_cores", "embedding_size", "vocab_size", "input_streams"),
)
_NOT_NEGATIVE = (
    *("seed", "num_warmup_steps", "keep_checkpoint_max", "num_eval_steps", "weight_decay_rate", "lr_decay_power"),
    *("gen_weight", "disc_weight", "generator_layers"),
)
_POSITIVE = ("learning_rate", "temperature", "generator_hidden_size")


@dataclasses.dataclass(frozen=True)
class PretrainingConfig:
    """All settings of one run. Make it with `PretrainingConfig.create`, which applies presets and checks names and types."""

    model_name: str = option("", "name of the model: its files go to DATA_DIR/models/MODEL_NAME")
    data_dir: str = option("", "folder with vocab.txt and pretrain_tfrecords/")

    debug: bool = option(False, "tiny model, 20 steps: to see whether everything runs")
    do_train: bool = option(True, "pre-train")
    do_eval: bool = option(False, "evaluate on the held-out examples (after training, if both)")
    seed: int = option(42, "seed of start weights, data order and all noise")

    # Objective (Clark et al. 2020, section 2; Clark et al. 2020b for Electric)
    electra_objective: bool = option(True, "replaced-token detection; false: masked language modelling only, as BERT does")
    electric_objective: bool = option(False, "Electric: energy-based cloze model (implies two_tower_generator)")
    gen_weight: float = option(1.0, "weight of the generator's loss")
    disc_weight: float = option(50.0, "weight of the discriminator's loss")
    mask_prob: float = option(0.15, "share of tokens that the generator replaces")
    masking: str = option("unique", "'original' draws positions with replacement, as google-research/electra does", ("unique", "original"))

    # Optimization
    learning_rate: float = option(5e-4, "peak learning rate")
    lr_decay_power: float = option(1.0, "power of the polynomial decay; 1 is linear")
    weight_decay_rate: float = option(0.01, "decoupled weight decay")
    num_warmup_steps: int = option(10000, "steps of linear warm-up")
    gradient_accumulation_steps: int = option(1, "parts that a batch is computed in, one after the other, to fit into memory")

    # Training
    iterations_per_loop: int = option(200, "TPU only: steps between two visits of the host")
    save_checkpoints_steps: int = option(1000, "steps between checkpoints")
    keep_checkpoint_max: int = option(5, "newest checkpoints to keep; 0 keeps all")
    num_train_steps: int = option(1000000, "updates in all")
    num_eval_steps: int = option(100, "batches to evaluate on; 0 takes all held-out examples")
    log_steps: int = option(100, "steps between progress lines and TensorBoard points")
    init_checkpoint: str | None = option(None, "folder or prefix of a checkpoint whose weights to start from (also of other projects)")
    init_scope: str = option("", "take only variables of init_checkpoint whose names begin with this, such as electra/")

    # Model
    model_size: str = option("small", "size table of the paper", tuple(SIZES))
    model_hparam_overrides: dict = option({}, "JSON object with fields of BertConfig to change")
    embedding_size: int | None = option(None, "width of the embeddings (small: 128, else the hidden size)")
    vocab_size: int | None = option(None, "rows of the embedding table (default: read from the vocabulary)")
    uniform_generator: bool = option(False, "replacements are drawn uniformly, without a generator network")
    two_tower_generator: bool = option(False, "generator of two directional transformers, as Electric needs it")
    untied_generator_embeddings: bool = option(False, "the generator has token embeddings of its own")
    untied_generator: bool = option(True, "generator and discriminator are two networks; false: one network does both")
    generator_layers: float = option(1.0, "generator's number of layers as a fraction of the discriminator's")
    generator_hidden_size: float = option(0.25, "generator's hidden size as a fraction of the discriminator's")
    disallow_correct: bool = option(False, "never sample the original token")
    temperature: float = option(1.0, "temperature of the generator's samples")

    # Batches
    max_seq_length: int = option(128, "tokens per example; must be that of the TFRecords")
    train_batch_size: int = option(128, "examples per update, over all devices and accumulated parts")
    eval_batch_size: int = option(128, "examples per evaluation batch")
    input_streams: int | None = option(None, "streams of shards that a batch is read from, shared out to the workers (default: one each)")

    # Text (checked against what the TFRecords were built with)
    tokenizer_type: str | None = option(None, "tokenizer the TFRecords must have been built with (default: whatever it was)")
    do_lower_case: bool | None = option(None, "lower-casing the TFRecords must have been built with (default: whatever it was)")

    # Devices
    mixed_precision: bool = option(False, "bfloat16 (float16 on GPUs without it) in matrix products; weights and losses stay float32")
    precision: str | None = option(None, "forces the type of matrix products", PRECISIONS)
    jit_compile: bool | None = option(None, "XLA compiles forward and backward pass whole (default: yes on GPU and TPU)")
    use_tpu: bool = option(False, "train on a Cloud TPU")
    num_tpu_cores: int = option(1, "TPU cores to expect; checked against what the TPU has if given")
    tpu_job_name: str | None = option(None, "name of the TPU worker job")
    tpu_name: str | None = option(None, "Cloud TPU to use; 'local' on a TPU VM")
    tpu_zone: str | None = option(None, "zone of the TPU")
    gcp_project: str | None = option(None, "project of the TPU")

    # Files (defaults under data_dir)
    pretrain_tfrecords: str = option("", "file pattern of the training examples")
    eval_tfrecords: str = option("", "file pattern of the held-out examples")
    vocab_file: str = option("", "vocabulary")
    model_dir: str = option("", "folder for checkpoints, config, events and results")
    results_txt: str = option("", "evaluation results as text; the JSON lies beside it")

    @classmethod
    def create(cls, model_name: str, data_dir: str, values: Mapping[str, Any]) -> "PretrainingConfig":
        """Applies defaults < size < debug < `values` and fills in the paths; UserError on anything unknown, mistyped or impossible."""
        check_name(model_name, "model_name")
        user = check(cls, values)
        size = user.get("model_size", "small")
        presets: dict[str, Any] = {"embedding_size": EMBEDDING_SIZES[size]}
        if user.get("debug"):
            presets |= DEBUG
            user["model_hparam_overrides"] = {**DEBUG_MODEL, **user.get("model_hparam_overrides", {})}
        if user.get("electric_objective"):
            presets["two_tower_generator"] = True
        config = cls(**{**_paths(model_name, data_dir, user), **presets, **user, "model_name": model_name, "data_dir": data_dir})
        config.validate()
        return config

    @property
    def max_predictions_per_seq(self) -> int:
        """Masked slots per example. Unlike in Dialog-KoELECTRA, derived after every override."""
        return min(int((self.mask_prob + 0.005) * self.max_seq_length), self.max_seq_length)

    @property
    def has_discriminator(self) -> bool:
        """Whether a second loss tells real tokens from replaced ones; otherwise this is masked language modelling alone."""
        return self.electra_objective or self.electric_objective

    @property
    def has_own_generator(self) -> bool:
        """Whether the generator is a network apart from the encoder."""
        return self.has_discriminator and self.untied_generator and not self.uniform_generator

    def validate(self) -> None:
        """Raises UserError for values that no run can have."""
        for names, lowest, allowed in (
            (_AT_LEAST_1, 1, "at least 1"),
            (_NOT_NEGATIVE, 0, "finite and not negative"),
            (_POSITIVE, math.ulp(0.0), "finite and positive"),
        ):
            for name in names:
                value = getattr(self, name)
                _require(value is None or lowest <= value < math.inf, name, value, allowed)
        _require(self.seed < 2**62, "seed", self.seed, "less than 2^62")
        _require(0.0 < self.mask_prob < 1.0, "mask_prob", self.mask_prob, "between 0 and 1")
        _require(self.max_predictions_per_seq >= 1, "max_seq_length", self.max_seq_length, "long enough for one masked token")
        self._validate_model()
        if self.init_scope and not self.init_checkpoint:
            raise UserError(f"init_scope {self.init_scope!r} without a checkpoint to take variables from (--init_checkpoint, --init_scope)")
        if not (self.do_train or self.do_eval):
            raise UserError("there is nothing to do: do_train and do_eval are both false (--do_train, --do_eval)")

    def _validate_model(self) -> None:
        if "vocab_size" in self.model_hparam_overrides:
            raise UserError("vocab_size in model_hparam_overrides: set --vocab_size instead, or leave it to the vocabulary")
        positions = get_bert_config(self.model_size, self.vocab_size or 1, self.model_hparam_overrides).max_position_embeddings
        if self.max_seq_length > positions:
            raise UserError(
                f"max_seq_length {self.max_seq_length} is beyond max_position_embeddings {positions}: lower --max_seq_length "
                "or raise max_position_embeddings in --model_hparam_overrides"
            )
        if self.electric_objective and not self.two_tower_generator:
            raise UserError("electric_objective needs the two-tower generator (--two_tower_generator)")
        if self.two_tower_generator and not self.has_own_generator:
            raise UserError(
                "two_tower_generator needs networks of its own and a discriminator "
                "(--untied_generator, --nouniform_generator, --electra_objective)"
            )
        if self.uniform_generator and not self.has_discriminator:
            raise UserError("uniform_generator without a discriminator has nothing to learn (--uniform_generator, --electra_objective)")


def _require(condition: bool, name: str, value: Any, allowed: str) -> None:
    if not condition:
        raise UserError(f"{name} must be {allowed}, got {value} (--{name})")


def _paths(model_name: str, data_dir: str, user: Mapping[str, Any]) -> dict[str, str]:
    """The original's places under data_dir."""
    records = os.path.join(data_dir, "pretrain_tfrecords")
    model_dir = user.get("model_dir") or os.path.join(data_dir, "models", model_name)
    return {
        "pretrain_tfrecords": os.path.join(records, "pretrain_data.tfrecord*"),
        "eval_tfrecords": os.path.join(records, "eval_data.tfrecord*"),
        "vocab_file": os.path.join(data_dir, "vocab.txt"),
        "model_dir": model_dir,
        "results_txt": os.path.join(model_dir, "results", "unsup_results.txt"),
    }
