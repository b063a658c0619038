"""Turns a text corpus into the TFRecord shards of examples that run_pretraining.py reads, with a manifest.json beside them."""

from absl import logging

from model import command, hparams
from pretrain.dataset_builder import DatasetConfig, build


def main() -> None:
    """Reads the flags and builds."""
    logging.set_verbosity(logging.INFO)
    config = DatasetConfig(**hparams.check(DatasetConfig, hparams.collect(DatasetConfig, None)))
    if config.runner == "local":
        build(config)
    else:
        from pretrain import beam_pipelines  # an extra that needs not be there

        beam_pipelines.build_dataset(config)


if __name__ == "__main__":
    hparams.define_flags(DatasetConfig)
    command.run(main)
