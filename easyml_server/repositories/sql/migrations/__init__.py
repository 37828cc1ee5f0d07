"""The history of the schema, applied by `easyml-server migrate` and at start in embedded mode."""
