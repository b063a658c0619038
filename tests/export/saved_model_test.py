"""SavedModels as TensorFlow Serving would call them: by their signatures, from ids and from text."""

import numpy as np
import pytest
import tensorflow as tf

from export import saved_model
from export.exported_model import load_model
from export.exporter import ExportConfig, export
from finetune.finetuning_run import FinetuningRun
from finetune.prediction import Predictor
from model.command import DataError

pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed (export extra)")
TOLERANCE = {"rtol": 0, "atol": 1e-4}


@pytest.fixture
def export_to(tmp_path):
    """export_to(field=value, ...) -> the signatures of what was exported."""

    def run(**fields):
        fields = {"format": "saved_model", "output_dir": str(tmp_path / "model" / "1"), **fields}
        export(ExportConfig.create(fields))
        return tf.saved_model.load(fields["output_dir"]).signatures

    return run


def arrays(numbers, names):
    return [tf.constant(numbers[name].astype(np.int32)) for name in names]


def test_the_discriminator_says_what_the_original_said(export_to, golden, original, tmp_path):
    signatures = export_to(**original)
    assert set(signatures) == {"encode", "discriminate", "serving_default", "from_morphemes"}
    numbers = np.load(golden / "small" / "outputs.npz")
    ids, mask, segments = arrays(numbers, ("fake_input_ids", "input_mask", "segment_ids"))
    real = numbers["input_mask"].astype(bool)
    output = signatures["discriminate"](input_ids=ids, input_mask=mask, segment_ids=segments)
    np.testing.assert_allclose(output["probabilities"].numpy()[real], numbers["disc_probs"][real], **TOLERANCE)
    encoded = signatures["encode"](input_ids=ids, input_mask=mask, segment_ids=segments)
    np.testing.assert_allclose(encoded["sequence_output"].numpy()[real], numbers["disc_sequence_output"][real], **TOLERANCE)
    np.testing.assert_array_equal(encoded["pooled_output"], encoded["sequence_output"][:, 0])
    # Sizes are free: one text of another length.
    one = signatures["discriminate"](input_ids=ids[:1, :9], input_mask=mask[:1, :9], segment_ids=segments[:1, :9])
    assert one["logits"].shape == (1, 9)
    assert (tmp_path / "model" / "1" / "assets.extra" / "vocab.txt").exists()
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError)):
        signatures["encode"](input_ids=tf.constant(["영화"]), input_mask=mask, segment_ids=segments)


def test_the_generator_fills_masks(export_to, golden, original):
    numbers = np.load(golden / "small" / "outputs.npz")
    names = ("masked_input_ids", "input_mask", "segment_ids")
    features = dict(zip(("input_ids", "input_mask", "segment_ids"), arrays(numbers, names), strict=True))
    logits = export_to(**original, part="generator")["fill_mask"](**features)["logits"].numpy()
    picked = np.take_along_axis(logits, numbers["masked_lm_positions"].astype(np.int64)[..., None], 1)
    weights = numbers["masked_lm_weights"] > 0
    np.testing.assert_allclose(picked[weights], numbers["mlm_logits"][weights], **TOLERANCE)


@pytest.mark.parametrize("head", ["linear", "two_layer"])
def test_text_in_and_probabilities_out(export_to, make_config, home, head):
    FinetuningRun(make_config(num_train_epochs=1.0, classifier_head=head)).run()
    signatures = export_to(checkpoint=str(home / "models"), part="finetuned")
    texts = ["영화 좋다", "지루 최악 배우 화면 " * 8, "없는말"]
    output = signatures["serving_default"](texts=tf.constant(texts))
    ours = Predictor(str(home / "models")).predict(texts)
    expected = [[*found["probabilities"].values()] for found in ours]
    np.testing.assert_allclose(output["probabilities"].numpy(), expected, **TOLERANCE)
    assert output["input_ids"].shape[1] == 16, "cut as in training"
    nothing = signatures["serving_default"](texts=tf.constant([], tf.string))
    assert nothing["probabilities"].shape == (0, 2)
    morphemes = signatures["from_morphemes"](texts=tf.constant(["영화 좋다"]))
    np.testing.assert_allclose(morphemes["probabilities"].numpy()[0], expected[0], **TOLERANCE)


def test_pairs_and_tags(export_to, make_config, several, home, tmp_path):
    FinetuningRun(make_config(task_names=several, num_train_epochs=1.0)).run()
    fields = {"checkpoint": str(home / "models"), "part": "finetuned"}
    pairs = [("영화", "좋다"), ("배우 영화", "최악")]
    first, second = zip(*pairs, strict=True)
    scores = export_to(**fields, task_name="korsts")["serving_default"](text_a=tf.constant(first), text_b=tf.constant(second))["score"]
    ours = [found["score"] for found in Predictor(str(home / "models"), "korsts").predict(pairs)]
    np.testing.assert_allclose(scores.numpy(), ours, **TOLERANCE)

    words = ["좋다", "영화", "감동"]
    tags = export_to(**fields, task_name="naver-ner", output_dir=str(tmp_path / "tags"))["serving_default"](
        texts=tf.constant([" ".join(words)])
    )
    predictor = Predictor(str(home / "models"), "naver-ner")
    names = [predictor.task.tags[index] for index in tags["tags"].numpy()[0, 1:-1]]
    entities = predictor.predict([" ".join(words)])[0]["entities"]
    assert [entity["text"] for entity in entities] == [word for word, name in zip(words, names, strict=True) if name.endswith("-B")]


def test_an_export_that_computes_something_else_is_refused(export_to, original, tmp_path, wrong_logits):
    with pytest.raises(DataError, match="the SavedModel: logits of discriminate differs by 0.001"):
        export_to(**original)
    assert not list((tmp_path / "model").glob("*"))


def test_models_are_served_without_xla(golden, original, tmp_path):
    model = load_model(original["checkpoint"], "discriminator", {"model_hparam_overrides": {"num_attention_heads": 2}})
    (tmp_path / "out").mkdir()
    saved_model.write(model, str(tmp_path / "out"))
    assert b"_XlaMustCompile" not in (tmp_path / "out" / "saved_model.pb").read_bytes()
