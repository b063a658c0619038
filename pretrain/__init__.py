"""Pre-training: from a Korean corpus to examples, and from examples to a replaced-token-detection model."""
