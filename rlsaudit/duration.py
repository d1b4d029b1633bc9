"""Lengths of time as people write them: ``30``, ``30s``, ``5m``, ``2h``, ``1h30m``."""

from __future__ import annotations

import math
import re

from rlsaudit.errors import UsageError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_WRITTEN = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?")


def seconds(given: str | float) -> float:
    """The number of seconds, 0 or more.

    Raises UsageError for what is no length of time.
    """
    found = _WRITTEN.fullmatch(given.strip().lower()) if isinstance(given, str) else None
    if found is not None and any(found.groups()):
        return sum(float(number) * _UNITS[unit] for unit, number in found.groupdict().items() if number)
    if isinstance(given, str) or not math.isfinite(given) or given < 0:
        raise UsageError(f"budget {given}: give seconds or a length of time like 30s, 5m or 2h")
    return float(given)
