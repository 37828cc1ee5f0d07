"""What looks like a secret: API keys, tokens, and passwords in addresses. None of them belongs in a log."""

from __future__ import annotations

import re
from typing import Final

SECRET: Final = re.compile(
    r"eml_[A-Za-z0-9_-]{8,}|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
REDACTED: Final = "[redacted]"


def redacted(text: str) -> str:
    """The text without what looks like a secret."""
    return SECRET.sub(REDACTED, text)
