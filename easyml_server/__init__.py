"""EasyML server: one typed contract from a table of data to a prediction."""

__version__ = "0.1.0"
