"""What a run did, as numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from cep.pipeline.accounting import Accounting

if TYPE_CHECKING:
    from cep.pipeline.accounting import Counts


@dataclass(slots=True)
class Summary:
    """What a run did, counted since the pipeline first started.

    ``windows`` says of each group of windows how many events it holds, and, since
    this process started, how many left early by its limits and how many keys were
    forgotten. ``trimmed`` is how many dead letters had to go for newer ones.
    """

    pipeline: str
    streams: dict[str, Counts]
    outputs: dict[str, dict[str, int]]
    commits: int
    seconds: float
    held_back_by: str | None = None
    ended: bool = False
    trimmed: int = 0
    windows: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def total(self) -> Counts:
        """The counts of all streams together."""
        return Accounting({k: asdict(v) for k, v in self.streams.items()}).total()
