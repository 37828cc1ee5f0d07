"""Rows in SQLite or PostgreSQL through SQLAlchemy: one set of models for both."""
