"""Flows at work: batches, runs, noise, paths. Knows no HTTP."""
