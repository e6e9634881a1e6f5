"""The training by maximum likelihood: the fit, its checkpoints, the evaluation on held-out rows, and the report."""
