"""Fits by maximum likelihood: the loop, its checkpoints, the evaluation on held-out rows, and the report."""
