"""HTTP only, thin: bytes to arrays and back, verbs, problems."""
