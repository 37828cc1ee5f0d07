"""Budgets of full mode: on PostgreSQL, MongoDB and two servers, which are started for them."""
