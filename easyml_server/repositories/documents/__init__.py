"""Documents: what belongs to a row and has a shape of its own."""
