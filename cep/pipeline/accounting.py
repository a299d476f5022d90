"""Where every entry that was read has gone.

``read = processed + late + quarantined + duplicate + buffered``, and entries
that were lost before they could be read are ``gaps``. The identity is checked
at every commit; a pipeline that cannot account for its input stops.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cep.errors import CepError

if TYPE_CHECKING:
    from collections.abc import Mapping


class AccountingError(CepError, RuntimeError):
    """The counts of a stream do not add up: a bug, and nothing was committed."""

    def __init__(self, stream: str, counts: str) -> None:
        super().__init__(stream, counts)
        self.stream, self.counts = stream, counts

    def __str__(self) -> str:
        return (
            f"The counts of {self.stream} do not add up: {self.counts}. Nothing was "
            "committed; please report this with the pipeline's rules."
        )


@dataclass(slots=True)
class Counts:
    """Entries of one stream by what became of them."""

    read: int = 0
    processed: int = 0
    late: int = 0
    quarantined: int = 0
    duplicate: int = 0
    buffered: int = 0
    gaps: int = 0

    def check(self, stream: str) -> None:
        """Raise AccountingError unless every entry is accounted for."""
        there = (
            self.processed
            + self.late
            + self.quarantined
            + self.duplicate
            + self.buffered
        )
        if there != self.read:
            raise AccountingError(stream, str(self))

    def __str__(self) -> str:
        text = (
            f"read {self.read:,} = processed {self.processed:,} + late {self.late:,}"
            f" + quarantined {self.quarantined:,} + duplicate {self.duplicate:,}"
            f" + buffered {self.buffered:,}"
        )
        return f"{text}; lost before reading {self.gaps:,}" if self.gaps else text


class Accounting:
    """The counts of every input stream."""

    def __init__(self, streams: Mapping[str, Mapping[str, int]]) -> None:
        self.streams = {name: Counts(**counts) for name, counts in streams.items()}

    def __getitem__(self, stream: str) -> Counts:
        return self.streams[stream]

    def total(self) -> Counts:
        """Return the sum over all streams."""
        total = Counts()
        for counts in self.streams.values():
            for name, value in asdict(counts).items():
                setattr(total, name, getattr(total, name) + value)
        return total

    def check(self) -> None:
        """Raise AccountingError unless every entry of every stream is accounted for."""
        for name, counts in self.streams.items():
            counts.check(name)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Return plain numbers by stream."""
        return {name: asdict(counts) for name, counts in self.streams.items()}
