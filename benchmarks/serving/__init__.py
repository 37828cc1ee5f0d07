"""`make bench-serving`: the model server beside a bare echo and the Python servers that people know."""
