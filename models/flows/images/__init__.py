"""Image flows: layers that move, scale and mix pixels, couplings of channels, and families by name."""
