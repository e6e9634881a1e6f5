"""Metrics: the counts of one process, and of all workers of a server. Knows no HTTP."""
