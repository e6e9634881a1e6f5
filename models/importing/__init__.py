"""Flows of other libraries as bundles: one module for each library."""
