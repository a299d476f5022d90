"""Packed words of many entries at once: literals, and holes that columns fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cep.bus.kernels.rows import (
    HEAD_BYTES,
    HOLE,
    LITERAL,
    WORD,
    write_rows,
    write_timestamps,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from numpy.typing import NDArray


class Texts(NamedTuple):
    """A text for each row: where it lies in a block of bytes.

    ``spans`` has shape ``(n, 2)``: offset and length.
    """

    data: NDArray[np.uint8]
    spans: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Self:
        """Return given texts.

        >>> Texts.of([b"ab", b"", b"c"]).spans.tolist()
        [[0, 2], [2, 0], [2, 1]]
        """
        spans = np.empty((len(texts), 2), np.int64)
        spans[:, 1] = np.fromiter(map(len, texts), np.int64, len(texts))
        np.cumsum(spans[:, 1], out=spans[:, 0])
        spans[:, 0] -= spans[:, 1]
        return cls(np.frombuffer(b"".join(texts), np.uint8), spans)

    @classmethod
    def of_equal_length(cls, letters: NDArray[np.uint8]) -> Self:
        """Return the rows of a table of bytes, shape ``(n, length)``."""
        n, length = letters.shape
        spans = np.empty((n, 2), np.int64)
        spans[:, 0] = np.arange(n) * length
        spans[:, 1] = length
        return cls(np.ascontiguousarray(letters).reshape(-1), spans)

    @classmethod
    def between_commas(cls, text: bytes) -> Self:
        """Return the items of a JSON array of which none holds a comma.

        >>> Texts.between_commas(b"[1,2.5]").spans.tolist()
        [[1, 1], [3, 3]]
        """
        data = np.frombuffer(text, np.uint8)
        if len(data) < 3:
            return cls(data, np.zeros((0, 2), np.int64))
        commas = (data == ord(",")).nonzero()[0]
        spans = np.empty((len(commas) + 1, 2), np.int64)
        spans[0, 0], spans[1:, 0] = 1, commas + 1
        spans[:-1, 1], spans[-1, 1] = commas, len(data) - 1
        spans[:, 1] -= spans[:, 0]
        return cls(data, spans)

    @classmethod
    def of_times(cls, time_ms: NDArray[np.int64]) -> Self:
        """Return times from 1970 to 9999 as ``2023-11-14T22:13:20.000Z``.

        >>> Texts.of_times(np.zeros(1, np.int64)).data.tobytes()
        b'1970-01-01T00:00:00.000Z'
        """
        letters = np.empty((len(time_ms), 24), np.uint8)
        write_timestamps(letters, time_ms)
        return cls.of_equal_length(letters)

    def take(self, rows: NDArray[np.int64]) -> Texts:
        """Return the texts of these rows, which may repeat."""
        return Texts(self.data, self.spans[rows])


class Hole(str):
    """The name of what goes between two literals."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class RowTemplate:
    """Words of which each is literals and holes, in turn."""

    literals: NDArray[np.uint8]
    program: NDArray[np.int64]
    holes: tuple[str, ...]
    times: NDArray[np.int64]  # that each hole occurs
    row_bytes: int  # of a row whose holes are empty, at most

    @classmethod
    def of(cls, words: Sequence[Sequence[bytes | Hole]], head: bytes = b"") -> Self:
        r"""Return a template of words given by their parts; rows begin with ``head``.

        >>> template = RowTemplate.of([[b"id"], [b"<", Hole("x"), b">"]])
        >>> template.fill({"x": Texts.of([b"", b"one"])})[0]
        b'$2\r\nid\r\n$2\r\n<>\r\n$2\r\nid\r\n$5\r\n<one>\r\n'
        """
        literals, holes = bytearray(), list[str]()
        program: list[tuple[int, int, int]] = []
        constant = head  # all that stands before the next hole's word

        def write(text: bytes) -> None:
            program.append((LITERAL, len(literals), len(text)))
            literals.extend(text)

        for word in words:
            text = b"".join(part for part in word if isinstance(part, bytes))
            if not any(isinstance(part, Hole) for part in word):
                constant += b"$%d\r\n%b\r\n" % (len(text), text)
                continue
            write(constant)
            program.append((WORD, len(program) + 1 + len(word), len(text)))
            for part in word:
                if isinstance(part, bytes):
                    write(part)
                    continue
                if part not in holes:
                    holes.append(part)
                program.append((HOLE, holes.index(part), 0))
            constant = b"\r\n"
        write(constant)
        row_bytes = sum(b for kind, _, b in program if kind == LITERAL)
        return cls(
            np.frombuffer(literals, np.uint8),
            np.array(program, np.int64).reshape(-1, 3),
            tuple(holes),
            np.array([sum(w.count(hole) for w in words) for hole in holes], np.int64),
            row_bytes + HEAD_BYTES * len(words),
        )

    def fill(self, texts: Mapping[str, Texts]) -> tuple[bytes, NDArray[np.int64]]:
        """Return all rows, one after the other, and where each ends.

        ``texts`` must have those of each hole, as many of each; at least one hole.
        """
        n = len(texts[self.holes[0]].spans)
        spans = np.empty((len(self.holes), n, 2), np.int64)
        blocks, offset = [self.literals], len(self.literals)
        offsets: dict[int, int] = {}  # of the blocks, which texts may share
        for number, name in enumerate(self.holes):
            found = texts[name]
            if id(found.data) not in offsets:
                offsets[id(found.data)] = offset
                blocks.append(found.data)
                offset += len(found.data)
            spans[number] = found.spans
            spans[number, :, 0] += offsets[id(found.data)]
        size = int(spans[:, :, 1].sum(axis=1) @ self.times)
        out = np.empty(n * self.row_bytes + size, np.uint8)
        ends = np.zeros(n, np.int64)
        write_rows(out, ends, np.concatenate(blocks), self.program, spans)
        return out[: ends[-1] if n else 0].tobytes(), ends
