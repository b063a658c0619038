"""Takes a model out of a checkpoint, for other tools: as a folder of the transformers library, or as a checkpoint of TensorFlow.

    python export_checkpoint.py --checkpoint=DIR --part=discriminator --format=transformers --output_dir=exported

DIR holds a checkpoint of ours, of google-research/electra, KoELECTRA or Dialog-KoELECTRA, or a folder of the transformers library.
"""

from export.exporter import ExportConfig, export
from model import command, hparams


def main() -> None:
    export(ExportConfig.create(hparams.collect(ExportConfig, None)))


if __name__ == "__main__":
    hparams.define_flags(ExportConfig)
    command.run(main)
