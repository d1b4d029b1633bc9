"""What every page of ours is made with: the parts beside this file, their hashes, and text without power."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from pathlib import Path

from markupsafe import Markup

from ._text import visible

HERE = Path(__file__).parent


def part(name: str) -> str:
    """Text of a file beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def script_hash(text: str) -> str:
    """SHA-256 of a script or style as a content security policy names it."""
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()


def finalize(value: object) -> object:
    """Every expression of the template passes here: plain text loses its power before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def shown_time(text: str) -> str:
    """``2026-11-21 02:00:07 UTC`` of an ISO 8601 time in UTC, anything else as it is."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(\+00:00|Z)", text)
    return f"{match[1]} {match[2]} UTC" if match else text
