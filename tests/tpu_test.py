"""What a TPU will be asked to do, up to the device: static shapes, operations that XLA compiles, loops on the device, no host in a step.

No TPU is needed, and none was used: that TPUs take the steps is not shown here (docs/tpu.md).
"""

import json

import numpy as np
import pytest
import tensorflow as tf

from configure_pretraining import PretrainingConfig
from finetune.model_runner import ModelRunner
from finetune.preprocessing import Preprocessor
from finetune.starting_point import find_starting_point
from finetune.task_builder import get_tasks
from model import devices
from model.command import read_json
from model.estimator import InputContext, ModeKeys
from pretrain import pretraining_run
from tests.finetune.conftest import home, make_config, tiny  # noqa: F401 (fixtures)
from tests.model import tiny_training
from tests.pretraining_home import HELD_OUT, HPARAMS, make_home

# Their results are constants to XLA, which is why their shapes need not be.
COMPUTED_BY_THE_COMPILER = {"BroadcastGradientArgs"}
HOST_ONLY = ("PyFunc", "EagerPyFunc", "PyFuncStateless", "Print", "PrintV2", "Assert", "Where", "Unique", "UniqueV2", "Iterator")


def graphs_of(graph):
    """`graph` and those of all functions that it calls, by name."""
    found = {"": graph}

    def add(outer):
        for name, function in outer._functions.items():
            if name not in found:
                found[name] = function.graph
                add(function.graph)

    add(graph)
    return found


def assert_fit_for_tpu(step, features):
    """Shapes, types and operations of the graphs of `step`, and what TPUStrategy would make of it."""
    specification = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in features.items()}
    graphs = graphs_of(tf.function(step, autograph=False).get_concrete_function(specification).graph)
    operations = [operation for graph in graphs.values() for operation in graph.get_operations()]
    assert len(graphs) > 3 and len(operations) > 150
    for operation in operations:
        assert not operation.type.startswith(HOST_ONLY), operation.type
        for output in operation.outputs:
            assert output.dtype not in (tf.string, tf.variant, tf.float64), operation
            # What a loop's condition does not read, TensorFlow leaves without a shape.
            if operation.type not in COMPUTED_BY_THE_COMPILER and "redundant_placeholder" not in operation.name:
                assert output.shape.is_fully_defined(), operation
    names = sorted(specification)

    def replicated(features):
        def computation(*values):
            return tf.nest.flatten(step(dict(zip(names, values, strict=True))))

        return tf.compat.v1.tpu.rewrite(computation, [features[name] for name in names])

    # Raises NotImplementedError for operations that TensorFlow knows to be impossible on a TPU.
    graph = tf.function(replicated, autograph=False).get_concrete_function(specification).graph
    assert any(operation.type == "TPUReplicatedOutput" for operation in graph.get_operations())


def compiled(step):
    """`step` as one program of XLA, which refuses what it cannot compile."""
    return tf.function(step, jit_compile=True, autograph=False)


def test_a_step_that_is_not_fit_for_a_tpu_is_found(tmp_path):
    """The check checks: a shape that depends on values, and a call of Python."""
    estimator = tiny_training.pretraining_estimator(tmp_path)
    features = pretraining_batch(InputContext(8))
    for spoil in (lambda ids: tf.where(ids > 7), lambda ids: tf.numpy_function(np.sum, [ids], tf.int64)):

        def step(features, spoil=spoil):
            spoil(features["input_ids"])
            return estimator._replica_step(features)

        with pytest.raises(AssertionError):
            assert_fit_for_tpu(step, features)


def pretraining_batch(context):
    features = next(iter(tiny_training.pretraining_inputs(context)))
    if context.batch_size == 4:
        features["is_real"] = tf.constant([1.0, 1.0, 1.0, 0.0])
    return features


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2, "dtype": tf.bfloat16}], ids=["plain", "parts of bfloat16"])
def test_a_step_of_pretraining_is_fit_for_a_tpu(tmp_path, options):
    assert_fit_for_tpu(tiny_training.pretraining_estimator(tmp_path, **options)._replica_step, pretraining_batch(InputContext(8)))


@pytest.mark.slow
def test_xla_compiles_a_whole_step_with_its_update(tmp_path):
    """In parts; tests/model/estimator_test.py compares what compiled steps compute."""
    estimator = tiny_training.pretraining_estimator(tmp_path, gradient_accumulation_steps=2)
    features, step = pretraining_batch(InputContext(8)), compiled(estimator._replica_step)
    before = tiny_training.values_of(estimator)
    sums = [step(features) for _ in range(2)]  # the first has learning rate 0
    assert all(np.isfinite(value.numpy()).all() for found in sums for value in found.values())
    assert sums[0]["total_tokens"].numpy() == features["input_mask"].numpy().sum()
    unchanged = [name for name, value in tiny_training.values_of(estimator).items() if np.array_equal(value, before[name])]
    assert not unchanged and estimator.global_step.numpy() == 2


def test_a_step_of_evaluation_is_fit_for_a_tpu_also_in_a_batch_that_is_not_full(tmp_path):
    model = tiny_training.pretraining_estimator(tmp_path).model

    def step(features):
        return model.loss(features, model.denominators(features), tf.constant(0, tf.int64), ModeKeys.EVAL)[1]

    features = pretraining_batch(InputContext(4))
    assert_fit_for_tpu(step, features)
    found = compiled(step)(features)
    assert found["examples"].numpy() == 3 and found["total_tokens"].numpy() == features["input_mask"].numpy()[:3].sum()
    assert found["disc_fake_histogram"].numpy().sum() == found["disc_fake"].numpy()


def test_the_loop_on_the_device_fetches_batches_outside_of_the_step(tmp_path):
    estimator = tiny_training.toy_estimator(tmp_path, iterations_per_loop=3)
    traced = []
    original = tf.function

    def remember(*arguments, **options):
        traced.append(original(*arguments, **options))
        return traced[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf, "function", remember)
        estimator.train_steps  # noqa: B018 (made on the first use)
    (loop,) = traced
    batches = iter(tiny_training.toy_inputs()(InputContext(4)))
    graphs = graphs_of(loop.get_concrete_function(batches, tf.constant(3)).graph)
    kinds = {name: {operation.type for operation in graph.get_operations()} for name, graph in graphs.items()}
    assert "While" in kinds[""] and "IteratorGetNext" in kinds[""]
    (body,) = [name for name in kinds if "while_body" in name]
    assert "IteratorGetNext" in kinds[body]
    # The compiled parts know nothing of it.
    assert not any("IteratorGetNext" in types for name, types in kinds.items() if name not in ("", body)) and len(kinds) > 3


def test_loops_of_any_number_of_steps_share_one_graph(tmp_path):
    """On a TPU another graph is another compilation of minutes: here for 5, 4 (up to the checkpoint) and 2 steps."""
    estimator, calls = tiny_training.toy_estimator(tmp_path, iterations_per_loop=5, save_checkpoints_steps=9), []
    original = estimator._train_step
    estimator._train_step = lambda features: calls.append(1) or original(features)
    estimator.train(tiny_training.toy_inputs(), 11)
    assert len(calls) == 2  # the first step and the body of the loop


@pytest.mark.slow
def test_pretraining_lives_in_a_bucket_from_end_to_end(tmp_path):
    """TensorFlow's file system in memory stands for gs://: data, vocabulary, checkpoints, curves and results, and going on from them."""
    local, bucket = make_home(tmp_path / "home"), "ram://pretraining"
    for path in (path for path in local.rglob("*") if path.is_file()):
        copy = f"{bucket}/{path.relative_to(local)}"
        tf.io.gfile.makedirs(copy.rpartition("/")[0])
        tf.io.gfile.copy(str(path), copy)
    for steps in (4, 6):
        settings = {**HPARAMS, "num_train_steps": steps, "save_checkpoints_steps": 4, "do_eval": True}
        pretraining_run.run(PretrainingConfig.create("mini", bucket, settings))
    model_dir = f"{bucket}/models/mini"
    with tf.io.gfile.GFile(f"{model_dir}/train_metrics.jsonl") as file:
        assert [json.loads(line)["step"] for line in file.read().splitlines()] == [1, 2, 3, 4, 5, 6]
    results = read_json(f"{model_dir}/results/unsup_results.json", "results_txt")
    assert results["global_step"] == 6 and results["examples"] == HELD_OUT
    checkpoints = {f"model.ckpt-{step}.{suffix}" for step in (4, 6) for suffix in ("index", "data-00000-of-00001")}
    others = {"checkpoint", "config.json", "events", "loss_curve.png", "results", "train_metrics.jsonl"}
    assert others | checkpoints <= set(tf.io.gfile.listdir(model_dir))


def test_finetuning_is_fit_for_a_tpu(make_config, tmp_path, monkeypatch):  # noqa: F811
    """All batches have the longest shape there is, so that there is one compilation."""
    strategy = tf.distribute.get_strategy()
    monkeypatch.setattr(devices, "create_strategy", lambda *arguments: strategy)
    config = make_config(use_tpu=True, gradient_accumulation_steps=2)
    tasks, start = get_tasks(config), find_starting_point(config)
    preprocessor = Preprocessor(config, tasks, start.tokenizer)
    runner = ModelRunner(config, tasks, preprocessor, start, str(tmp_path), 1)
    estimator = runner.estimator
    assert estimator.config.iterations_per_loop == config.iterations_per_loop > 1
    training = runner._train_input_fn(InputContext(config.train_batch_size))
    prediction = preprocessor.prepare_predict(tasks, "dev")[0](InputContext(config.eval_batch_size))
    for dataset, step in ((training, estimator._replica_step), (prediction, estimator.model.predict)):
        assert all(spec.shape.is_fully_defined() for spec in dataset.element_spec.values())
        assert dataset.element_spec["input_ids"].shape[1] == config.max_seq_length
        assert_fit_for_tpu(step, next(iter(dataset)))
    outputs = compiled(estimator.model.predict)(next(iter(prediction)))
    assert all(value.shape.is_fully_defined() for value in outputs.values())
