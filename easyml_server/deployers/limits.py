"""What model servers are told of the limits of calls."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class ModelServerLimits:
    """Each value's setting is EASYML_ and its name in capitals."""

    max_predict_rows: int
    max_predict_cells: int
    max_arrow_bytes: int
    max_message_bytes: int
    max_predictions: int
    default_deadline_seconds: float

    def arguments(self) -> list[str]:
        """As options of the command, which have the same names."""
        return [f"--{name.replace('_', '-')}={value}" for name, value in asdict(self).items()]
