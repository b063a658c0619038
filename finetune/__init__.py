"""Fine-tuning: Korean tasks, their metrics, and the model that scores them."""
