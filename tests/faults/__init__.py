"""Faults: what is done to a running server on purpose, and what must hold meanwhile. Run by `make faults`."""
