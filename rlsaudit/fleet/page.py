"""The reports of a fleet, from the reports package, which nobody imports by name."""

from __future__ import annotations

import importlib
from collections.abc import Collection

from rlsaudit.fleet.result import Fleet

_MODULE = "rlsaudit.reports._fleet"


def html(fleet: Fleet, linked: Collection[str]) -> str:
    """The text of ``index.html``, with a link to each target of ``linked``, whose own page is there."""
    return str(importlib.import_module(_MODULE).page(fleet, linked))


def junit(fleet: Fleet) -> str:
    """The text of ``TEST-fleet.xml``."""
    return str(importlib.import_module(_MODULE).junit(fleet))


def summary(fleet: Fleet, width: int) -> str:
    """The summary for a terminal."""
    return str(importlib.import_module(_MODULE).summary(fleet, width))
