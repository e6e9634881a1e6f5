"""Batching: the queues of runs, the batches they are packed into, and the threads that compute them. Knows no HTTP."""
