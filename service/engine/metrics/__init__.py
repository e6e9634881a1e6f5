"""What a server counts about itself, in one process and in all of its workers. Knows no HTTP."""
