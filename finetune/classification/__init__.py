"""Classification and regression tasks beside their metrics."""
