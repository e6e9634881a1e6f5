"""Processes and signals: one server, or several workers and their supervisor."""
