"""Known holes of the server that let a session past row security, with the release of each branch that closes them.

Sources: the project's advisories, ``https://www.postgresql.org/support/security/CVE-…/``; releases known up to
``KNOWN_UNTIL``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

KNOWN_UNTIL = "2026-08-13"
LATEST: Mapping[int, int] = {14: 24, 15: 19, 16: 15, 17: 11, 18: 6}
"""Major version → its newest minor release known here."""

SUPPORT_ENDS: Mapping[int, str] = {
    13: "2025-11-13", 14: "2026-11-12", 15: "2027-11-11", 16: "2028-11-09", 17: "2029-11-08", 18: "2030-11-14",
}  # fmt: skip

Needs = Literal[
    "policies of several roles", "changing roles", "the setting role", "merge", "children", "statistics", "expressions",
    "upsert", "create in database", "create in schema", "any session",
]  # fmt: skip
"""What a schema must have, or a role must be allowed, for the hole to matter."""


@dataclass(frozen=True, slots=True)
class Advisory:
    cve: str
    fixed: tuple[str, ...]
    """The first release of each branch that has the fix."""
    needs: Needs
    what: str
    """What a session can do without the fix, to follow "a session"."""
    since: str = "9.5"
    """The first version that has the hole."""

    @property
    def url(self) -> str:
        return f"https://www.postgresql.org/support/security/{self.cve}/"

    def mended_in(self, version_num: int) -> str | None:
        """The release to upgrade to, or None when this server does not have the hole."""
        if version_num < number(self.since):
            return None
        branch = next((one for one in self.fixed if _branch(number(one)) == _branch(version_num)), None)
        if branch is not None:
            return branch if version_num < number(branch) else None
        oldest = min(self.fixed, key=number)
        return oldest if version_num < number(oldest) else None


def number(version: str) -> int:
    """``server_version_num`` of ``16.5``, ``9.5.2`` or ``15``."""
    parts = [int(part) for part in version.split(".")]
    if parts[0] >= 10:
        return parts[0] * 10000 + (parts[1] if len(parts) > 1 else 0)
    return parts[0] * 10000 + parts[1] * 100 + (parts[2] if len(parts) > 2 else 0)


def _branch(version_num: int) -> int:
    return version_num // 10000 if version_num >= 100000 else version_num // 100


ADVISORIES: tuple[Advisory, ...] = (
    Advisory(
        "CVE-2016-2193", ("9.5.2",), "policies of several roles",
        "that changes its role can run a cached plan that still carries the first role's policies",
    ),
    Advisory(
        "CVE-2023-2455", ("11.20", "12.15", "13.11", "14.8", "15.3"), "policies of several roles",
        "that changes its role can run a plan with an inlined SQL function that still carries the first role's policies",
    ),
    Advisory(
        "CVE-2024-10976", ("12.21", "13.17", "14.14", "15.9", "16.5", "17.1"), "policies of several roles",
        "that changes its role can run a plan whose tables stand below a subquery, WITH, an invoker view or an SQL function"
        " under the first role's policies",
    ),
    Advisory(
        "CVE-2026-14666", ("14.24", "15.19", "16.15", "17.11", "18.6"), "changing roles",
        "keeps the policies of a membership or a role attribute in its cached plans after it was taken away",
    ),
    Advisory(
        "CVE-2024-10978", ("12.21", "13.17", "14.14", "15.9", "16.5", "17.1"), "the setting role",
        "can find current_setting('role') or its user reset to another one, in a parallel worker or after a rollback",
    ),
    Advisory(
        "CVE-2023-39418", ("15.4",), "merge",
        "can store rows by MERGE that the policies for UPDATE and SELECT forbid, when those for INSERT allow them",
        since="15",
    ),
    Advisory(
        "CVE-2017-15099", ("9.5.10", "9.6.6", "10.1"), "upsert",
        "can read rows that policies hide by INSERT … ON CONFLICT DO UPDATE",
    ),
    Advisory(
        "CVE-2019-10130", ("9.5.17", "9.6.13", "10.8", "11.3"), "statistics",
        "can read values of hidden rows out of the planner's statistics, through an operator of its own",
    ),
    Advisory(
        "CVE-2025-8713", ("13.22", "14.19", "15.14", "16.10", "17.6"), "children",
        "can read values of hidden rows out of the statistics of partitions and child tables, through an operator of its own",
    ),
    Advisory(
        "CVE-2024-4317", ("14.12", "15.7", "16.3"), "expressions",
        "can read the most common values of expressions over hidden rows in pg_stats_ext_exprs; a cluster that was made"
        " before the fix keeps the open view until share/fix-CVE-2024-4317.sql is run in every database",
        since="14",
    ),
    Advisory(
        "CVE-2023-2454", ("11.20", "12.15", "13.11", "14.8", "15.3"), "create in database",
        "that may create schemas can become superuser by CREATE SCHEMA with elements",
    ),
    Advisory(
        "CVE-2024-0985", ("12.18", "13.14", "14.11", "15.6", "16.2"), "create in schema",
        "that may create objects can run its code as whoever refreshes its materialized view CONCURRENTLY",
    ),
    Advisory(
        "CVE-2024-7348", ("12.20", "13.16", "14.13", "15.8", "16.4"), "create in schema",
        "that may create objects can run its code as the superuser whose pg_dump reads them",
    ),
    Advisory(
        "CVE-2023-5869", ("11.22", "12.17", "13.13", "14.10", "15.5", "16.1"), "any session",
        "can write the server's memory, and so run its own code, by an overflow in array subscripts",
    ),
    Advisory(
        "CVE-2026-2006", ("14.21", "15.16", "16.12", "17.8", "18.2"), "any session",
        "can run its own code in the server by an overrun with invalid multibyte text",
    ),
    Advisory(
        "CVE-2026-6473", ("14.23", "15.18", "16.14", "17.10", "18.4"), "any session",
        "can run its own code in the server by an allocation that is too small",
    ),
    Advisory(
        "CVE-2026-14680", ("14.24", "15.19", "16.15", "17.11", "18.6"), "any session",
        "can run its own code in the server by functions with arguments of type internal",
    ),
    Advisory(
        "CVE-2026-16239", ("14.24", "15.19", "16.15", "17.11", "18.6"), "any session",
        "can run its own code in the server by a cursor that is made anew with other types",
    ),
)  # fmt: skip
