"""The network, its optimizer, tokenization, checkpoints and the training loop: everything both halves of the project share."""

import os

# TensorFlow's start-up notes would bury our own lines; errors still show. Read when TensorFlow is imported, so set before it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
