"""Rewrites of an exported graph that keep its meaning and drop nodes."""
