"""The model server: a model behind Predict, in a process of its own."""
