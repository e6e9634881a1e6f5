"""Media types, one codec each: bytes to arguments, answers to bytes. They know neither a flow nor HTTP."""
