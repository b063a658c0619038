"""One pre-training run from its configuration: checks the data, trains, evaluates, and writes down what it did."""

import dataclasses
import os
from typing import Any

import tensorflow as tf
from absl import logging

from configure_pretraining import PretrainingConfig
from model import devices
from model.command import UserError, write_atomically, write_json
from model.estimator import Estimator, RunConfig
from model.hooks import HISTORY, HistoryHook, ProgressHook, SummaryHook, draw_curves, read_history
from model.optimization import AdamWeightDecayOptimizer
from model.tokenization import FullTokenizer, check_provenance
from pretrain.pretrain_data import RecordSet, SpecialTokens, eval_input_fn, explained, find_records, train_input_fn
from pretrain.pretraining_model import PretrainingModel, get_generator_config, get_model_config

PROGRESS = ("loss", "masked_lm_loss", "masked_lm_accuracy", "disc_loss", "disc_recall", "learning_rate")
PANELS = {
    "loss": ("loss",),
    "generator": ("masked_lm_accuracy", "sampled_masked_lm_accuracy"),
    "discriminator": ("disc_accuracy", "disc_precision", "disc_recall"),
    "loss of each network": ("masked_lm_loss", "disc_loss"),
}


def run(config: PretrainingConfig) -> dict[str, float]:
    """Trains and evaluates as `config` says; returns the evaluation's metrics ({} without do_eval)."""
    records = find_records(config.pretrain_tfrecords, "pretrain_tfrecords", config.max_seq_length)
    held_out = find_records(config.eval_tfrecords, "eval_tfrecords", config.max_seq_length) if config.do_eval else None
    special, vocab_size = read_vocabulary(config, records)
    config = dataclasses.replace(config, vocab_size=vocab_size)
    estimator = make_estimator(config, special)
    write_config(config, records.manifest.get("tokenizer", {}))
    if config.do_train:
        train(config, estimator, records)
    return evaluate(config, estimator, held_out) if held_out else {}


def read_vocabulary(config: PretrainingConfig, records: RecordSet) -> tuple[SpecialTokens, int]:
    """The ids that are never masked and the rows of the embedding table; refuses TFRecords of another vocabulary or tokenizer."""
    built = records.manifest.get("tokenizer", {})
    # No text is split here, so the analyser that the TFRecords were built with need not be installed.
    tokenizer = FullTokenizer(config.vocab_file, tokenizer_type=built.get("tokenizer_type", "wordpiece"), analyzer="none")
    asked = {"tokenizer_type": config.tokenizer_type, "do_lower_case": config.do_lower_case}
    asked["vocab_sha256"] = tokenizer.provenance()["vocab_sha256"]
    made_with = {name: built[name] for name, value in asked.items() if value is not None and name in built}
    check_provenance(made_with, asked, f"the TFRecords {config.pretrain_tfrecords}")
    if config.vocab_size is not None and config.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"vocab_size {config.vocab_size} is less than the {tokenizer.vocab_size} ids of {config.vocab_file!r} (--vocab_size)"
        )
    return SpecialTokens(tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id), config.vocab_size or tokenizer.vocab_size


def make_estimator(config: PretrainingConfig, special: SpecialTokens) -> Estimator:
    """The network, its optimizer and the device they run on. `config.vocab_size` must be known."""
    assert config.vocab_size is not None, "read_vocabulary has settled it"
    vocab_size, kind = config.vocab_size, devices.device_kind(config.use_tpu)
    strategy = devices.create_strategy(config.use_tpu, config.tpu_name, config.tpu_zone, config.gcp_project)
    if config.use_tpu and config.num_tpu_cores not in (1, strategy.num_replicas_in_sync):
        raise UserError(f"num_tpu_cores is {config.num_tpu_cores} but the TPU has {strategy.num_replicas_in_sync} (--num_tpu_cores)")
    dtype = devices.compute_dtype(config.mixed_precision, config.precision, kind)
    devices.make_deterministic()
    run_config = RunConfig(
        model_dir=config.model_dir,
        train_batch_size=config.train_batch_size,
        eval_batch_size=config.eval_batch_size,
        save_checkpoints_steps=config.save_checkpoints_steps,
        keep_checkpoint_max=config.keep_checkpoint_max,
        iterations_per_loop=config.iterations_per_loop if config.use_tpu else 1,
        log_steps=config.log_steps,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        loss_scaling=dtype == tf.float16,
        jit_compile=devices.jit_by_default(kind) if config.jit_compile is None else config.jit_compile,
    )
    logging.info("Device %s, %d replica(s), matrix products in %s", kind, strategy.num_replicas_in_sync, dtype.name)

    def optimizer_fn(variables: Any) -> AdamWeightDecayOptimizer:
        return AdamWeightDecayOptimizer(
            variables,
            config.learning_rate,
            config.num_train_steps,
            config.num_warmup_steps,
            config.lr_decay_power,
            config.weight_decay_rate,
        )

    return Estimator(
        lambda: PretrainingModel(config, vocab_size, special, dtype), run_config, optimizer_fn, strategy, config.init_checkpoint
    )


def write_config(config: PretrainingConfig, provenance: dict[str, Any]) -> None:
    """config.json beside the checkpoints: the resolved settings, the shapes of both networks, and how the text became ids."""
    assert config.vocab_size is not None, "read_vocabulary has settled it"
    bert_config = get_model_config(config, config.vocab_size)
    value = {
        "pretraining": dataclasses.asdict(config),
        "bert_config": bert_config.to_dict(),
        "generator_config": get_generator_config(config, bert_config).to_dict(),
        "embedding_size": config.embedding_size or bert_config.hidden_size,
        "max_predictions_per_seq": config.max_predictions_per_seq,
        "tokenizer": provenance,
        "tensorflow": tf.__version__,
    }
    tf.io.gfile.makedirs(config.model_dir)
    write_json(os.path.join(config.model_dir, "config.json"), value)


def train(config: PretrainingConfig, estimator: Estimator, records: RecordSet) -> None:
    """Trains to config.num_train_steps, with progress, TensorBoard, history, and loss_curve.png at the end."""
    parameters = sum(int(tf.size(variable)) for variable in estimator.model.trainable_variables)
    logging.info("Training %s: %s parameters, %s examples", config.model_name, f"{parameters:,}", f"{records.total:,}")
    hooks = [ProgressHook(PROGRESS), HistoryHook(config.model_dir), SummaryHook(os.path.join(config.model_dir, "events"))]
    with explained(records, config.max_seq_length):
        estimator.train(train_input_fn(records, config.max_seq_length, config.seed), config.num_train_steps, hooks)
    history = read_history(os.path.join(config.model_dir, HISTORY))
    panels = {title: [name for name in names if any(name in row for row in history)] for title, names in PANELS.items()}
    draw_curves(history, {title: names for title, names in panels.items() if names}, os.path.join(config.model_dir, "loss_curve.png"))


def evaluate(config: PretrainingConfig, estimator: Estimator, records: RecordSet) -> dict[str, float]:
    """Metrics over the held-out examples, written as text and JSON."""
    step = estimator.restore_or_initialize()
    with explained(records, config.max_seq_length):
        metrics = estimator.evaluate(eval_input_fn(records, config.max_seq_length), config.num_eval_steps or None)
    results = {"global_step": step, "held_out_examples": records.total, **metrics}
    tf.io.gfile.makedirs(os.path.dirname(config.results_txt))
    write_atomically(config.results_txt, "".join(f"{name}: {value}\n" for name, value in results.items()))
    write_json(os.path.splitext(config.results_txt)[0] + ".json", results)
    for name, value in results.items():
        logging.info("%s = %s", name, value)
    return metrics
