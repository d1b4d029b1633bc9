"""What a restore may leave out when the scratch server lacks an extension, a language or a provider.

Only statements that fail for the lack of something, and never silently: the copy is held against the target's catalog
afterwards, and whatever is not as it is there is not covered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LACKING = {
    "extension": re.compile(r'extension "([^"]+)" is not available|control file ".*/([^"/]+)\.control"'),
    "language": re.compile(r'language "([^"]+)" does not exist\Z'),
    "security label provider": re.compile(r'security label provider "([^"]+)" is not loaded\Z'),
    "library": re.compile(r'could not (?:access|load)(?: file| library) "([^"]+)"'),
    "parameter": re.compile(r'unrecognized configuration parameter "([^"]+)"\Z'),
    "collation provider": re.compile(r"\A(ICU) is not supported in this build\Z"),
    "locale": re.compile(r'could not create locale "([^"]+)"'),
}
"""Kind of thing → what the server says when it is not there."""

_NO_ROLE = re.compile(r'role "(.*)" does not exist\Z', re.DOTALL)

_UNDEFINED = frozenset({"42704", "42883", "42P01", "3F000", "42703", "42809"})
"""Errors of a statement that refers to what has been left out before it."""


@dataclass
class Leaving:
    """What has been left out of one restore."""

    roles_fixed: bool = False
    """The roles are the user's: none is made for a privilege of one that is gone."""
    lacking: dict[str, None] = field(default_factory=dict)
    """``extension "vector"`` and the like, in order of appearance."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Statement in short → the server's reason."""

    def excuse(self, shown: str, words: tuple[str, ...], sqlstate: str, message: str) -> bool:
        """Whether the failed statement may be left out; it is remembered then.

        ``shown`` is the statement in short, ``words`` its first keywords and ``message`` all that the server said.
        """
        if self.roles_fixed and _NO_ROLE.search(message):
            self.left_out[shown] = message
            return True
        for kind, pattern in _LACKING.items():
            if found := pattern.search(message):
                name = next(group for group in found.groups() if group)
                if kind != "extension" or words[:2] == ("create", "extension"):
                    self.lacking[f'{kind} "{name}"'] = None
                self.left_out[shown] = message
                return True
        if self.lacking and sqlstate in _UNDEFINED:
            self.left_out[shown] = message
            return True
        return False
