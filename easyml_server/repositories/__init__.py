"""Rows and documents: the adapters of `ports.store`."""
