"""Known holes of this very server version, judged by what this database uses."""

from collections.abc import Iterator

from rlsaudit.checks._advisories import ADVISORIES, KNOWN_UNTIL, LATEST, SUPPORT_ENDS, Advisory
from rlsaudit.checks._exposure import exposure
from rlsaudit.checks._fixes import listed, several

from rlsaudit.check import Hit, Subject, check
from rlsaudit.finding import SEVERITIES, Severity

_FAR_BEHIND = 4
"""Minor releases of a year."""

_VIEW = (
    "REVOKE SELECT ON pg_catalog.pg_stats_ext_exprs FROM PUBLIC;\n"
    "-- then run fix-CVE-2024-4317.sql of the server's share directory in every database"
)


@check(
    "RLS701",
    title="The server's version has known holes in row security",
    severity="medium",
    rationale=(
        "Policies hold only as far as the server enforces them, and releases of PostgreSQL have had holes there. What is"
        " reported depends on the exact version and on what this database uses: a hole that needs policies of several"
        " roles says little where there is one. SQL files have no server, so nothing is said of them."
    ),
    standards=("SOC 2 CC7.1", "ISO 27001 A.8.8", "NIST 800-53 SI-2", "CWE-1395"),
    covers=(
        f"{one.cve}: a session {one.what}. Fixed in {', '.join(reversed(one.fixed))}; {one.url}" for one in ADVISORIES
    ),
)  # fmt: skip
def server_version(subject: Subject) -> Iterator[Hit]:
    server = subject.catalog.server
    elsewhere: list[str] = []
    if not subject.live:
        return
    for advisory in ADVISORIES:
        mended = advisory.mended_in(server.version_num)
        open_view = advisory.needs == "expressions" and not server.statistics_guarded
        if mended is None and not open_view:
            continue
        found = exposure(subject, advisory.needs)
        if found is None or advisory.needs == "any session":
            elsewhere.append(advisory.cve)
            continue
        yield Hit(
            f"server, {advisory.cve}",
            f"On PostgreSQL {_plain(server.version)} a session {advisory.what} ({advisory.url}). Here {found.why}.",
            _fix(advisory, mended, open_view),
            found.severity,
        )
    yield from _behind(subject, elsewhere)


def _fix(advisory: Advisory, mended: str | None, open_view: bool) -> str:
    parts = [f"-- upgrade to {mended} or later ({advisory.cve})"] if mended else []
    return "\n".join([*parts, _VIEW] if open_view else parts)


def _behind(subject: Subject, elsewhere: list[str]) -> Iterator[Hit]:
    """One word on a server that is old, with the holes that this schema does not lie open to."""
    server = subject.catalog.server
    said: list[str] = []
    severity: Severity = "info"
    ends = SUPPORT_ENDS.get(server.major)
    latest = LATEST.get(server.major)
    running = server.version_num % 10000
    fix = "-- upgrade to the newest minor release"
    if ends is not None and server.clock[:10] > ends:
        said.append(f"PostgreSQL {server.major} has had no fixes since {ends}")
        severity, fix = "low", "-- upgrade to a major version that is supported"
    if latest is not None and running < latest:
        said.append(
            f"PostgreSQL {_plain(server.version)} lacks the fixes of {latest - running} minor release(s), {server.major}.{latest}"
            f" being the newest of {KNOWN_UNTIL}"
        )
        fix = f"-- upgrade to {server.major}.{latest} or later" if severity == "info" else fix
        severity = min(severity, "low" if latest - running >= _FAR_BEHIND else "info", key=SEVERITIES.index)
    by_cve = {one.cve: one for one in ADVISORIES}
    everybody = [cve for cve in elsewhere if by_cve[cve].needs == "any session"]
    unused = [cve for cve in elsewhere if cve not in everybody]
    if everybody:
        severity = min(severity, "low", key=SEVERITIES.index)
        said.append(f"any session that runs SQL of its own can run code in the server ({listed(everybody)})")
    if unused:
        said.append(f"{several(unused)} touch what nothing here uses")
    if said:
        text = "; ".join(said)
        yield Hit("server", f"{text[0].upper()}{text[1:]}.", fix, severity)


def _plain(version: str) -> str:
    """``15.18`` of ``15.18 (Debian 15.18-0+deb12u1)``."""
    return version.partition(" ")[0]
