"""Flows in torch: bijections, the networks that parametrize them, bases, and the families that a recipe names."""
