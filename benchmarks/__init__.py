"""What `make bench` measures: the budgets of docs/architecture.md, as ratios in one run."""
