"""The types beyond plain scikit-learn, NumPy and SciPy that a stored pipeline may hold.

The list belongs to EasyML and never to the file: a file that asks for anything else is not loaded. It is what the
algorithms of the catalogue need, which a test holds it to; loading one of these runs no code of the file's choosing.
"""

from __future__ import annotations

from typing import Final

TRUSTED_TYPES: Final[tuple[str, ...]] = ()
