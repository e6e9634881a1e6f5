"""Fits of a flow to a density that can only be evaluated: targets, objectives, evidence and verdicts."""
