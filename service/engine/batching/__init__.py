"""Batches: the requests of many callers put together, in which order, and on which threads. Knows no HTTP."""
