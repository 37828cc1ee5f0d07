"""What the clients send: two rows of the mixed table that the tests train on, as name, datatype and values."""

from __future__ import annotations

import numpy as np

COLUMNS = {
    "size": ("FP64", np.array([[1.5], [2.5]])),
    "age": ("INT64", np.array([[42], [43]])),
    "city": ("BYTES", np.array([["Rome"], ["Łódź"]], dtype=object)),
    "member": ("BOOL", np.array([[True], [False]])),
    "since": ("BYTES", np.array([["2024-02-29T12:00:00Z"], ["2024-02-29T12:00:00Z"]], dtype=object)),
}
