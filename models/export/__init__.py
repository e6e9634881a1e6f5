"""From a flow in torch to the graphs of a bundle, and the gate that they must pass."""
