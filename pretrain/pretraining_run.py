"""One pre-training run from its configuration: checks the data, trains, evaluates, and writes down what it did."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from configure_pretraining import PretrainingConfig
from model import checkpoint, devices
from model.command import DataError, UserError, locked, make_folder, read_json, write_atomically, write_json
from model.estimator import Estimator, RunConfig, check_divides
from model.hooks import HISTORY, HistoryHook, ProgressHook, SummaryHook, draw_curves, read_history
from model.optimization import AdamWeightDecayOptimizer
from model.tokenization import FullTokenizer, check_provenance
from pretrain.input_streams import choose_streams
from pretrain.pretrain_data import RecordSet, SpecialTokens, eval_input_fn, explained, find_records, train_input_fn
from pretrain.pretraining_model import PretrainingModel, get_generator_config, get_model_config

CONFIG, LOCK = "config.json", ".lock"
# Together with the shapes of the networks, what the variables of a checkpoint mean.
OBJECTIVE = (
    *("electra_objective", "electric_objective", "uniform_generator", "two_tower_generator"),
    *("untied_generator", "untied_generator_embeddings"),
)
PROGRESS = ("loss", "masked_lm_loss", "masked_lm_accuracy", "disc_loss", "disc_recall", "learning_rate")
PANELS = {
    "loss": ("loss",),
    "generator": ("masked_lm_accuracy", "sampled_masked_lm_accuracy"),
    "discriminator": ("disc_accuracy", "disc_precision", "disc_recall"),
    "generator's loss": ("masked_lm_loss",),
    "discriminator's loss": ("disc_loss",),
}


@devices.lost_workers_explained()
def run(config: PretrainingConfig) -> dict[str, float]:
    """Trains and evaluates as `config` says; returns the evaluation's metrics ({} without do_eval).

    Nothing is written before the data, the vocabulary and the checkpoints of earlier runs have been found to fit. Raises UserError
    while another run is training in the same model_dir; evaluation may go on beside it.
    """
    records = find_records(config.pretrain_tfrecords, "pretrain_tfrecords", config.max_seq_length) if config.do_train else None
    held_out = find_records(config.eval_tfrecords, "eval_tfrecords", config.max_seq_length) if config.do_eval else None
    vocabulary = read_vocabulary(config, [found for found in (records, held_out) if found])
    config = dataclasses.replace(config, vocab_size=vocabulary.size)
    description = describe(config, vocabulary)
    check_earlier_run(config, description)
    estimator = make_estimator(config, vocabulary)
    newest = checkpoint.latest(config.model_dir)
    estimator.restore_or_initialize()
    if records:
        streams = choose_streams(records.counts, config.train_batch_size, devices.num_workers(estimator.strategy), config.input_streams)
        with _training_alone(config, estimator, newest):
            if estimator.writes_files:
                write_json(os.path.join(config.model_dir, CONFIG), description)
            train(config, estimator, records, streams)
    return evaluate(config, estimator, held_out) if held_out else {}


@contextlib.contextmanager
def _training_alone(config: PretrainingConfig, estimator: Estimator, newest: str | None) -> Iterator[None]:
    """Keeps other runs from model_dir, where `newest` was the checkpoint to go on from. Of several workers the first does it for all."""
    if not estimator.writes_files:
        yield
        return
    busy = f"another run is training in {config.model_dir!r}: wait for it or stop it, or choose another --model_name or --model_dir"
    make_folder(config.model_dir, "model_dir")
    with locked(os.path.join(config.model_dir, LOCK), busy):
        if checkpoint.latest(config.model_dir) != newest:
            raise UserError(busy)  # it has begun and ended since
        yield


class Vocabulary(NamedTuple):
    """What the network must know of the text."""

    special: SpecialTokens
    size: int  # rows of the embedding table
    tokenizer: dict[str, Any]  # how text became ids, as far as that is known


def read_vocabulary(config: PretrainingConfig, data_sets: Sequence[RecordSet]) -> Vocabulary:
    """Reads the vocabulary; refuses TFRecords that were built with another one or with another tokenizer."""
    built: dict[str, Any] = next((records.tokenizer for records in data_sets if records.tokenizer), {})
    kind = built.get("tokenizer_type") or config.tokenizer_type or "wordpiece"
    # No text is split here, so the analyser that the TFRecords were built with need not be installed.
    tokenizer = FullTokenizer(config.vocab_file, tokenizer_type=kind, analyzer="none")
    own = {name: tokenizer.provenance()[name] for name in ("vocab_sha256", "vocab_size")}
    asked = {"tokenizer_type": config.tokenizer_type, "do_lower_case": config.do_lower_case, **own}
    for records in data_sets:
        made_with = {name: records.tokenizer[name] for name, value in asked.items() if value is not None and name in records.tokenizer}
        check_provenance(made_with, asked, f"the TFRecords in {os.path.dirname(records.files[0])}")
    size = tokenizer.vocab_size if config.vocab_size is None else config.vocab_size
    highest_id = max(records.highest_id for records in data_sets)
    if size < tokenizer.vocab_size:
        raise UserError(f"vocab_size {size} is less than the {tokenizer.vocab_size} entries of {config.vocab_file!r} (--vocab_size)")
    if highest_id >= size:
        raise UserError(
            f"the TFRecords hold the id {highest_id}, but {config.vocab_file!r} makes a model of {size} ids: name the vocabulary they "
            "were built with (--vocab_file)"
        )
    return Vocabulary(SpecialTokens(tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id), size, {**own, **built})


def make_estimator(config: PretrainingConfig, vocabulary: Vocabulary) -> Estimator:
    """The network, its optimizer and the device they run on. An optimizer, and its part of a checkpoint, only for training."""
    kind = devices.device_kind(config.use_tpu)
    strategy = devices.create_strategy(config.use_tpu, config.tpu_name, config.tpu_zone, config.gcp_project)
    if config.use_tpu and config.num_tpu_cores not in (1, strategy.num_replicas_in_sync):
        raise UserError(f"num_tpu_cores is {config.num_tpu_cores} but the TPU has {strategy.num_replicas_in_sync} (--num_tpu_cores)")
    if config.do_eval:
        check_divides(config.eval_batch_size, strategy.num_replicas_in_sync)
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
        loss_scaling=config.do_train and dtype == tf.float16,
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
        lambda: PretrainingModel(config, vocabulary.size, vocabulary.special, dtype),
        run_config,
        optimizer_fn if config.do_train else None,
        strategy,
        config.init_checkpoint,
        config.init_scope,
    )


def describe(config: PretrainingConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """What config.json holds: the resolved settings, the shapes of both networks, and how the text became ids."""
    bert_config = get_model_config(config, vocabulary.size)
    return {
        "pretraining": dataclasses.asdict(config),
        "bert_config": bert_config.to_dict(),
        "generator_config": get_generator_config(config, bert_config).to_dict() if config.has_own_generator else None,
        "embedding_size": config.embedding_size or bert_config.hidden_size,
        "max_predictions_per_seq": config.max_predictions_per_seq,
        "tokenizer": vocabulary.tokenizer,
        "tensorflow": tf.__version__,
    }


def check_earlier_run(config: PretrainingConfig, description: Mapping[str, Any]) -> None:
    """Refuses to go on from checkpoints of another network, objective or tokenizer; logs what else is set otherwise than before.

    Variables of equal shapes can mean different things, and a smaller network would silently drop what it does not know.
    """
    if checkpoint.latest(config.model_dir) is None:
        if not config.do_train and not config.init_checkpoint:
            raise UserError(f"there is no checkpoint in {config.model_dir!r} to evaluate (--model_name, --model_dir or --init_checkpoint)")
        return
    path = os.path.join(config.model_dir, CONFIG)
    recorded = read_json(path, "model_dir") if tf.io.gfile.exists(path) else {}
    if not isinstance(recorded, dict) or "pretraining" not in recorded:
        return  # a checkpoint of another project: names and shapes are checked when it is loaded
    parts = [recorded.get(part) for part in ("pretraining", "tokenizer", "bert_config")] + [recorded.get("generator_config") or {}]
    if not all(isinstance(part, dict) for part in parts):
        raise DataError(f"{path} is damaged: choose another folder, or put it back as it was (--model_dir)")
    tokenizer = {name: value for name, value in recorded["tokenizer"].items() if name in description["tokenizer"]}
    check_provenance(tokenizer, description["tokenizer"], f"the checkpoints in {config.model_dir}")
    for name, before, now in _differences(_fixed_settings(recorded), _fixed_settings(description)):
        raise UserError(
            f"{config.model_dir} holds checkpoints of a run with {name} {before!r}, but this run has {now!r}: "
            "choose another --model_name or --model_dir, or set it as it was"
        )
    for name, before, now in _differences(recorded["pretraining"], description["pretraining"]):
        if name not in ("do_train", "do_eval"):
            logging.warning("Going on with another %s than before: %r, it was %r", name, now, before)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            yield name, before.get(name), now.get(name)


def _fixed_settings(description: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a config.json that say what the variables of its checkpoints mean."""
    settings = {name: description["pretraining"].get(name) for name in OBJECTIVE}
    settings["embedding_size"] = description.get("embedding_size")
    for network in ("bert_config", "generator_config"):
        for name, value in (description.get(network) or {}).items():
            if not name.endswith("dropout_prob") and name != "initializer_range":
                settings[f"{network} {name}"] = value
    return settings


def train(config: PretrainingConfig, estimator: Estimator, records: RecordSet, streams: int = 1) -> None:
    """Trains to config.num_train_steps, with progress, TensorBoard, history, and loss_curve.png at the end."""
    parameters = sum(int(tf.size(variable)) for variable in estimator.model.trainable_variables)
    logging.info("Training %s: %s parameters, %s examples", config.model_name, f"{parameters:,}", f"{records.total:,}")
    hooks = [ProgressHook(PROGRESS), HistoryHook(config.model_dir), SummaryHook(os.path.join(config.model_dir, "events"))]
    with explained(records, config.max_seq_length, config.vocab_size):
        estimator.train(train_input_fn(records, config.max_seq_length, config.seed, streams), config.num_train_steps, hooks)
    if not estimator.writes_files:
        return
    history = read_history(os.path.join(config.model_dir, HISTORY))
    panels = {title: [name for name in names if any(name in row for row in history)] for title, names in PANELS.items()}
    draw_curves(history, {title: names for title, names in panels.items() if names}, os.path.join(config.model_dir, "loss_curve.png"))


def evaluate(config: PretrainingConfig, estimator: Estimator, records: RecordSet) -> dict[str, float]:
    """Metrics over the held-out examples, written as text and JSON."""
    step = estimator.restore_or_initialize()
    with explained(records, config.max_seq_length, config.vocab_size):
        metrics = estimator.evaluate(eval_input_fn(records, config.max_seq_length), config.num_eval_steps or None)
    if not estimator.writes_files:
        return metrics
    results = {"global_step": step, "held_out_examples": records.total, **metrics}
    make_folder(os.path.dirname(config.results_txt), "results_txt")
    write_atomically(config.results_txt, "".join(f"{name}: {value}\n" for name, value in results.items()))
    write_json(os.path.splitext(config.results_txt)[0] + ".json", results)
    for name, value in results.items():
        logging.info("%s = %s", name, value)
    return metrics
