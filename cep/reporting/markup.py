"""HTML whose text cannot become markup.

`element` escapes every child and every attribute unless it is `Markup`, which only
this module makes. Characters that a browser does not show, among them those that
turn the direction of writing, are shown as escapes.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

from cep.style import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

_VOID: Final = frozenset({"br", "meta"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: object) -> Markup:
    r"""Return text as HTML that shows it as it is.

    >>> escaped("<b>\u202e")
    '&lt;b&gt;\\u202e'
    """
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(visible(text)))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element; None among children or attributes counts for nothing.

    An attribute's name loses its last underscore, and others become hyphens.

    >>> element("p", "a < b", element("b", "c"), class_="x")
    '<p class="x">a &lt; b<b>c</b></p>'
    """
    opening = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{opening}>")
    return Markup(f"<{tag}{opening}>{joined(children)}</{tag}>")


def joined(parts: Iterable[object], between: str = "") -> Markup:
    """Return parts one after the other."""
    return Markup(between.join(escaped(part) for part in parts if part is not None))
