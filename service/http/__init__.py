"""Bytes on a socket to exchanges and back: the connection, heads of requests, hot calls."""
