"""Use cases: check the rule, change the state, save."""
