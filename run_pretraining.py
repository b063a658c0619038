"""Pre-trains an ELECTRA model: TFRecords in, checkpoints, curves and held-out metrics out.

    python run_pretraining.py --data_dir=DIR --model_name=NAME --hparams=configs/electra_small.json --do_eval

Settings come from --hparams (JSON or a file) and from one flag per field of PretrainingConfig, which wins.
"""

from absl import flags

from configure_pretraining import PretrainingConfig
from model import command, hparams
from pretrain import pretraining_run

_SCRIPT_FLAGS = ("model_name", "data_dir")


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "folder with vocab.txt and pretrain_tfrecords/; models/MODEL_NAME is written there")
    flags.DEFINE_string("model_name", None, "name of the model")
    flags.DEFINE_string("hparams", None, "JSON object or JSON file with settings")
    hparams.define_flags(PretrainingConfig, skip=_SCRIPT_FLAGS)


def main() -> None:
    values = hparams.collect(PretrainingConfig, flags.FLAGS.hparams, skip=_SCRIPT_FLAGS)
    config = PretrainingConfig.create(command.required("model_name"), command.required("data_dir"), values)
    pretraining_run.run(config)


if __name__ == "__main__":
    define_flags()
    command.run(main)
