"""Tokens, keys and passwords: the adapters of `ports.security`."""
