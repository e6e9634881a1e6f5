"""The processes of a server and their signals: one server, or several workers and their supervisor."""
