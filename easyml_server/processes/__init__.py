"""Processes of the server's own that stay and are asked one thing at a time, for libraries that must not live in it."""
