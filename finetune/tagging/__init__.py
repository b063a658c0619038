"""Tasks with one tag for each word of a sentence."""
