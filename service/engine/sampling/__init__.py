"""Sampling from the base: row i of a seed is one value, whatever rows are drawn with it."""
