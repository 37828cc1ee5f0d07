"""The words of the business: frozen dataclasses, states, errors. Imports nothing but the standard library."""
