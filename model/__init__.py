"""The network, its optimizer, tokenization, checkpoints and the training loop: everything both halves of the project share."""
