"""What the verbs mean, in NumPy: log_prob, sample, interpolate, edit, trace, weights. Each is a plan of runs."""
