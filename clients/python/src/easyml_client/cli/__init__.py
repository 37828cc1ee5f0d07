"""The command `easyml`."""
