"""One servicer per service: translates and decides nothing."""
