"""Views and materialized views that show what policies hide."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, revoke, said, users_of
from rlsaudit.checks._openings import tenant_settings

from rlsaudit.catalog.model import Relation
from rlsaudit.catalog.policies import settings_read
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity


@check(
    "RLS301",
    title="A view shows rows that policies hide",
    severity="critical",
    rationale=(
        "A view reads its tables with the rights of its owner unless it is security_invoker; when no policy binds the"
        " owner, none binds the view. A materialized view is a copy that row security cannot protect at all."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-284"),
    examples=(
        Example(
            setup=SOUND,
            bad="CREATE VIEW totals AS SELECT tenant_id, amount FROM invoices;\nGRANT SELECT ON totals TO app;",
            good=(
                "CREATE VIEW totals WITH (security_invoker = true) AS SELECT tenant_id, amount FROM invoices;\n"
                "GRANT SELECT ON totals TO app;"
            ),
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE MATERIALIZED VIEW totals AS SELECT tenant_id, sum(amount) FROM invoices GROUP BY 1;\n"
                "GRANT SELECT ON totals TO app;"
            ),
            good="CREATE MATERIALIZED VIEW totals AS SELECT tenant_id, sum(amount) FROM invoices GROUP BY 1;",
        ),
    ),
)
def view_bypasses(subject: Subject) -> Iterator[Hit]:
    for view in subject.catalog.relations:
        if view.kind not in ("view", "materialized view"):
            continue
        who = users_of(subject, view)
        exposed = _exposed(subject, view, frozenset()) if who else []
        if not exposed:
            continue
        tables = listed(relation.qualified for relation, _ in exposed)
        if view.kind == "materialized view":
            detail = (
                f"{view.qualified} is a stored copy of {tables}, which row security cannot protect: {said(who)} sees"
                " the rows of every tenant."
            )
            fix = "\n".join(revoke(subject, view, role.oid, commands) for role, commands in who)
            yield Hit(view.qualified, detail, fix, _severity(subject, exposed), relation=view.qualified)
            continue
        detail = (
            f"{view.qualified} reads {tables} with the rights of {subject.catalog.role_name(view.owner)}, whom no policy"
            f" binds there ({exposed[0][1]}): {said(who)} sees the rows of every tenant."
        )
        severity = _severity(subject, exposed)
        fix = f"ALTER VIEW {view.qualified} SET (security_invoker = true);"
        if _compares_context(subject, view):
            detail, severity, fix = _filtered(view, detail, fix)
        yield Hit(view.qualified, detail, fix, severity, relation=view.qualified)


def _severity(subject: Subject, exposed: list[tuple[Relation, str]]) -> Severity:
    kinds = {subject.tenancy.of(relation.oid).kind for relation, _ in exposed}
    return "high" if kinds <= {"registry", "principal"} else "critical"


def _filtered(view: Relation, detail: str, fix: str) -> tuple[str, Severity, str]:
    start = detail.partition(": ")[0]
    if view.security_barrier:
        return f"{start}; only its own WHERE, which reads the context, keeps tenants apart.", "low", fix
    return (
        f"{start}; its WHERE reads the context, but it is no security_barrier, so a function in the caller's query sees"
        " the rows before they are left out.",
        "high",
        fix,
    )


def _exposed(subject: Subject, view: Relation, seen: frozenset[int]) -> list[tuple[Relation, str]]:
    """Tenant relations that the view reads past their policies, and why; those of the views under it too.

    A security_invoker view below is read as the session's own role again, so it exposes nothing more.
    """
    if view.oid in seen or view.security_invoker:
        return []
    found: list[tuple[Relation, str]] = []
    for oid in subject.catalog.mentions("relation", view.oid, "relation"):
        relation = subject.catalog.find_relation(oid)
        if relation is None:
            continue
        if relation.kind in ("view", "materialized view"):
            found += _exposed(subject, relation, seen | {view.oid})
        elif subject.tenancy.of(oid).tenant_data and relation.holds_rows:
            why = subject.visibility.exempt(view.owner, relation)
            if view.kind == "materialized view":
                found.append((relation, why or "stored"))
            elif why is not None:
                found.append((relation, why))
    return found


def _compares_context(subject: Subject, view: Relation) -> bool:
    """Whether the view, or a function that it calls, reads the setting that tenants are told apart by."""
    names = tenant_settings(subject)
    text = (view.definition or "").lower()
    if any(f"'{name}'" in text for name in names):
        return True
    called = subject.catalog.mentions("relation", view.oid, "function")
    return any(settings_read(subject.catalog, oid) & names for oid in called)
