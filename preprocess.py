"""Turns raw corpora into clean text for build_vocab.py and build_pretraining_dataset.py, with a report of what was done."""

from absl import logging

from model import command, hparams
from pretrain import corpus_builder
from pretrain.document_cleaner import PreprocessConfig


def main() -> None:
    """Reads the flags and runs, here or on Apache Beam."""
    logging.set_verbosity(logging.INFO)
    config = PreprocessConfig(**hparams.check(PreprocessConfig, hparams.collect(PreprocessConfig, None)))
    if config.runner == "local":
        corpus_builder.build(config)
    else:
        from pretrain import beam_pipelines  # an extra that needs not be there

        beam_pipelines.preprocess(config)


if __name__ == "__main__":
    hparams.define_flags(PreprocessConfig)
    command.run(main)
