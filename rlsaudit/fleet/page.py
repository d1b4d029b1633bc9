"""The reports of a fleet, from the reports package, which nobody imports by name."""

from __future__ import annotations

import importlib

from rlsaudit.fleet.result import Fleet

_MODULE = "rlsaudit.reports._fleet"


def html(fleet: Fleet) -> str:
    """The text of ``index.html``."""
    return str(importlib.import_module(_MODULE).page(fleet))


def junit(fleet: Fleet) -> str:
    """The text of ``TEST-fleet.xml``."""
    return str(importlib.import_module(_MODULE).junit(fleet))


def summary(fleet: Fleet, width: int) -> str:
    """The summary for a terminal."""
    return str(importlib.import_module(_MODULE).summary(fleet, width))
