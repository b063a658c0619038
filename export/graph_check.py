"""Whether what was exported computes what the network computes: the same ids through both."""

from collections.abc import Callable, Mapping

import numpy as np

from export.served_model import ServedModel
from model.command import DataError

TOLERANCE = 1e-4
Run = Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]


def example(served: ServedModel, batch: int = 2, length: int = 12) -> dict[str, np.ndarray]:
    """Random ids, always the same, the last text shorter than the others, int32 [batch, length]."""
    config, random = served.model.config, np.random.default_rng(0)
    length = min(length, config.max_position_embeddings)
    mask = np.ones((batch, length), np.int32)
    mask[-1, length // 2 :] = 0
    ids = random.integers(0, config.vocab_size, (batch, length)).astype(np.int32) * mask
    segments = (np.arange(length) >= length // 2).astype(np.int32) * mask
    return {"input_ids": ids, "input_mask": mask, "segment_ids": segments}


def check(served: ServedModel, name: str, run: Run, what: str, **shape: int) -> None:
    """Raises DataError where `run`, the exported function `name`, gives another output than ours by more than TOLERANCE."""
    features = example(served, **shape)
    expected = getattr(served, name)(**features)
    found = run(features)
    for output, values in expected.items():
        difference = float(np.max(np.abs(np.asarray(found[output], np.float64) - values.numpy())))
        if not difference <= TOLERANCE:
            raise DataError(
                f"{what}: {output} of {name} differs by {difference:g} from the checkpoint's, more than {TOLERANCE:g} (--format)"
            )
