"""The export of a flow in torch: the graphs of a bundle, and the gate that they must pass."""
