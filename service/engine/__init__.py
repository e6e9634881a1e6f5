"""The engine: flows that are served, their batches, runs, noise and paths. Knows no HTTP."""
