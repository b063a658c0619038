"""FeatureSpec: what a task feeds the network beside the text itself."""

from typing import Any, NamedTuple

import numpy as np


class FeatureSpec(NamedTuple):
    """One feature of every example.

    name: key in the batch.
    per_token: False: one value per example, [B] in a batch. True: one value per piece, [B, L].
    default: value for padding and for the examples of other tasks.
    dtype: np.int32, np.int64 or np.float32.
    """

    name: str
    per_token: bool = False
    default: float = 0
    dtype: Any = np.int32


# Every example has these, whatever its task; num_cut is how many pieces of it did not fit max_seq_length. The mask of real
# pieces follows from the length and is not stored.
COMMON_SPECS = (
    FeatureSpec("input_ids", per_token=True),
    FeatureSpec("segment_ids", per_token=True),
    FeatureSpec("task_id"),
    FeatureSpec("num_cut"),
)
