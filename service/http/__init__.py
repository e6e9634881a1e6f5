"""Bytes on a socket to requests and back: the connection, and the heads of HTTP messages."""
