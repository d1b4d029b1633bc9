"""What a cell comes to without what refused every write of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Barred:
    """What a cell's attacks came to with what refused them switched off."""

    by: tuple[str, ...]
    """Names of the triggers and rules."""
    crossed: bool
    """They reached another tenant's rows."""
    alive: bool
    """They reached own rows."""
    sensitive: bool
    """With row security off as well they cross, so that the policies are what held."""
    proven: bool = False
    """The policies are proven to admit own rows only: far less is tried here than on other cells."""
