"""Entries of a commit: many of one shape share what they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from cep.bus.link import Words


@dataclass(frozen=True, slots=True)
class Shape:
    """What entries have in common: the number of words, and some of them.

    ``mask`` has a letter for each word: ``c`` for one that is the same in all,
    which are in ``constants``, ``v`` for one that each entry brings.
    """

    mask: bytes
    constants: Words

    @staticmethod
    @cache
    def plain(length: int) -> Shape:
        """Return the shape of entries that have nothing in common."""
        return Shape(b"v" * length, Words.of([]))


class Block(NamedTuple):
    """Entries of one stream, one after the other: what they do not have in common."""

    stream: str
    shape: Shape
    entries: int
    data: bytes

    @classmethod
    def of_one(cls, stream: str, words: list[bytes] | Words) -> Block:
        """Return one entry, given by its fields: name, value, name, value..."""
        packed = words if isinstance(words, Words) else Words.of(words)
        return cls(stream, Shape.plain(packed.length), 1, packed.data)
