"""Statements of an application, which the probe runs as they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnStatement:
    """One statement of the application, with ``$1``, ``$2``, … where its parameters stand."""

    label: str
    """What reports call it: ``queries.sql:12 get_invoice``."""
    text: str
    parameters: tuple[str, ...] = ()
    """Name of each parameter as far as it is known: its own, or the column that it is compared with; '' otherwise."""
