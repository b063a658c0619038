"""A checkpoint under the original's variable names, for whatever reads those of google-research/electra, and for run_finetuning.py.

A folder of the transformers library becomes one too: its tensors keep every bit.
"""

import os
import re
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from export.exported_model import ExportedModel
from model import checkpoint
from model.command import UserError

_SLOTS = ("adam_m", "adam_v")  # Adam's moments, as google-research/electra calls them, and ours


def write(model: ExportedModel, folder: str, everything: bool = False, with_optimizer: bool = False) -> None:
    """Writes model.ckpt-N, `checkpoint`, config.json and the vocabulary into `folder`, which exists.

    everything: not the part alone but all that the checkpoint holds. with_optimizer: the slots of Adam, too.
    """
    prefix = model.start.prefix
    assert prefix is not None
    if tf.io.gfile.isdir(prefix):
        if everything or with_optimizer:
            raise UserError(
                f"{prefix} is a folder of the transformers library, which holds its {model.part} alone (--everything, --with_optimizer)"
            )
        values, step = {name: variable.numpy() for name, variable in model.variables_by_name.items()}, 0
    else:
        values = checkpoint.read(prefix, _names(model, prefix, everything, with_optimizer))
        step = int(found[1]) if (found := re.search(r"-(\d+)$", prefix)) else 0
    save(os.path.join(folder, f"{checkpoint.PREFIX}-{step}"), values)
    model.write_companions(folder, with_config=True)


def _names(model: ExportedModel, prefix: str, everything: bool, with_optimizer: bool) -> list[str]:
    """The names of what is copied."""
    stored = set(checkpoint.read_shapes(prefix))
    names = {name for name in stored if not _is_slot(name)} if everything else set(model.stored_names.values())
    if with_optimizer:
        names |= {name for name in stored if name == "global_step" or (_is_slot(name) and name.rpartition("/")[0] in names)}
    return sorted(names)


def _is_slot(name: str) -> bool:
    return name.endswith(_SLOTS)


def save(prefix: str, values: Mapping[str, np.ndarray]) -> None:
    """A checkpoint of `values` and the state file that names it."""
    names = sorted(values)
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=[values[name] for name in names])
    tf.compat.v1.train.update_checkpoint_state(os.path.dirname(prefix), os.path.basename(prefix))
