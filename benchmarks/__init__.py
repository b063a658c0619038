"""Commands that make the figures in docs/; not installed."""
