"""Python client of EasyML."""

__version__ = "0.1.0"
