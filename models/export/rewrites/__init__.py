"""The rewrites of an exported graph: fewer nodes, sums as products, and loops, with the same meaning."""
