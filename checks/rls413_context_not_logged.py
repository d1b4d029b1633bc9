"""Context switches that nobody can look up afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from rlsaudit.checks._context import context_settings
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import several
from rlsaudit.checks._openings import tenant_settings
from rlsaudit.checks._routines import reached, tokens
from rlsaudit.checks._setters import setters

from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.identifiers import quote
from rlsaudit.check import Example, Hit, Subject, check

_AUDITED = frozenset({"all", "misc", "misc_set", "function", "read"})
_LOGGED = """\
CREATE TABLE switches (tenant text, login name DEFAULT session_user, at timestamptz DEFAULT now());
CREATE FUNCTION act_for(wanted int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('app.tenant_id', wanted::text, true);
  INSERT INTO public.switches (tenant) VALUES (wanted);
END $$;"""


@check(
    "RLS413",
    title="Nothing records for whom a session acted",
    severity="info",
    rationale=(
        "All tenants share one login, so the log of connections does not say who did what. An auditor asks for a trail of"
        " context switches: written by the context function, by pgaudit, or by statement logging."
    ),
    standards=("SOC 2 CC7.2", "ISO 27001 A.8.15", "NIST 800-53 AU-2", "CWE-778"),
    examples=(
        Example(setup=SOUND, bad="SELECT 'SET LOCAL app.tenant_id is all there is';", good=_LOGGED),
        Example(setup=SOUND, bad="ALTER ROLE app SET log_statement = 'mod';", good="ALTER ROLE app SET log_statement = 'all';"),
    ),
)  # fmt: skip
def context_not_logged(subject: Subject) -> Iterator[Hit]:
    names = sorted(tenant_settings(subject) & context_settings(subject))
    statements = subject.catalog.parameter("log_statement")
    libraries = subject.catalog.parameter("shared_preload_libraries")
    if not subject.live or not names or statements is None or libraries is None or _written(subject, frozenset(names)):
        return
    silent = [role.name for role in subject.tenancy.roles if not _logged(subject, role.oid)]
    if not silent:
        return
    audited = "pgaudit" in libraries
    fixes = [
        f"ALTER ROLE {quote(name)} SET pgaudit.log = 'misc_set, function';"
        if audited
        else f"ALTER ROLE {quote(name)} SET log_statement = 'all';"
        for name in silent
    ]
    yield Hit(
        f"setting {names[0]}",
        f"As this server is configured (log_statement = {statements}, {'pgaudit is loaded' if audited else 'no pgaudit'}), no"
        f" trail says when a session of {several(silent)} set {several(names)}, and no function that sets it writes one.",
        "\n".join(fixes),
    )


def _logged(subject: Subject, role: int) -> bool:
    """Whether statements of the role's sessions that switch the context are logged."""
    if _value(subject, role, "log_statement") == "all" or _value(subject, role, "log_min_duration_statement") == "0":
        return True
    if "pgaudit" not in (subject.catalog.parameter("shared_preload_libraries") or ""):
        return False
    classes = {one.strip() for one in (_value(subject, role, "pgaudit.log") or "").lower().split(",")}
    return bool(classes & _AUDITED) and not {"-misc", "-misc_set"} & classes


def _value(subject: Subject, role: int, name: str) -> str | None:
    """What the role's sessions begin with: its own stored value before everyone's and the server's."""
    for wanted in (role, PUBLIC):
        for setting in subject.catalog.settings:
            if setting.role == wanted and setting.name.lower() == name:
                return setting.value.lower()
    return subject.catalog.parameter(name)


def _written(subject: Subject, names: frozenset[str]) -> bool:
    """Whether a function that sets the context leaves a row or a line of the log."""
    for setter in setters(subject):
        if setter.setting not in names:
            continue
        for one in reached(subject, setter.function.oid):
            found = tokens(one.source)
            pairs = list(pairwise(found))
            if any(a.is_word("insert") and b.is_word("into") for a, b in pairs):
                return True
            if any(a.is_word("raise") and b.is_word("log") for a, b in pairs):
                return True
    return False
