"""What the server has, as frozen dataclasses of plain Python values."""
