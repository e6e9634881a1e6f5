"""Latents by position: row i of a seed is one value, whatever rows are drawn with it."""
