"""From a model and recordings to scores: batches, windows, parts that survive a kill, and the score file."""
