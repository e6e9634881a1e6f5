"""Isolation: graphs of a flow in processes of their own, which are replaced when they crash or hang. Knows no HTTP."""
