"""The seed of tests that name none; `cep.testing.plugin` sets it."""

from __future__ import annotations

DEFAULTS: dict[str, int] = {"seed": 0}
