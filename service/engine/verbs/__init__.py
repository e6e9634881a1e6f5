"""The verbs in NumPy: log_prob, sample, interpolate, edit, trace and weights. Each is a plan of runs."""
