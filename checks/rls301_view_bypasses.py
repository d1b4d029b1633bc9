"""Views and materialized views that show what policies hide."""

from collections.abc import Iterator, Sequence

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, revoke, said, users_of
from rlsaudit.checks._openings import in_words
from rlsaudit.checks._views import Shown, shown

from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import SEVERITIES, Severity
from rlsaudit.tenancy.model import ApplicationRole


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
        Example(
            setup=SOUND,
            bad=(
                "CREATE VIEW mine WITH (security_barrier = true) AS SELECT * FROM invoices\n"
                "  WHERE tenant_id = current_setting('app.tenant_id', true)::int OR current_setting('app.role', true) = 'support';\n"
                "GRANT SELECT ON mine TO app;"
            ),
            good=(
                "CREATE VIEW mine WITH (security_barrier = true) AS SELECT * FROM invoices\n"
                "  WHERE tenant_id = current_setting('app.tenant_id', true)::int;\n"
                "GRANT SELECT ON mine TO app;"
            ),
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE VIEW mine AS SELECT id, amount FROM invoices WHERE tenant_id = current_setting('app.tenant_id', true)::int;\n"
                "GRANT SELECT ON mine TO app;"
            ),
            good=(
                "CREATE VIEW mine WITH (security_barrier = true) AS SELECT c.name, i.amount\n"
                "  FROM invoices i JOIN customers c USING (tenant_id) WHERE tenant_id = current_setting('app.tenant_id', true)::int;\n"
                "GRANT SELECT ON mine TO app;"
            ),
        ),
    ),
)
def view_bypasses(subject: Subject) -> Iterator[Hit]:
    for view in subject.catalog.relations:
        if view.kind not in ("view", "materialized view"):
            continue
        # Who may only INSERT sees nothing; what may be inserted is another check's.
        who = [(role, commands) for role, commands in users_of(subject, view) if set(commands) != {"INSERT"}]
        if view.kind == "materialized view":  # nobody can write to one, whatever was granted
            who = [(role, ("SELECT",)) for role, commands in who if "SELECT" in commands]
        exposed = shown(subject, view) if who else ()
        if not exposed:
            continue
        open_ones = [one for one in exposed if one.severity is not None]
        if view.kind == "materialized view":
            yield _copy(subject, view, exposed, who)
        elif open_ones:
            yield _open(subject, view, open_ones, who)
        else:
            yield _filtered(subject, view, exposed, who)


Who = list[tuple[ApplicationRole, tuple[str, ...]]]


def _see(who: Who) -> str:
    return "see" if len(who) > 1 else "sees"


def _copy(subject: Subject, view: Relation, exposed: Sequence[Shown], who: Who) -> Hit:
    detail = (
        f"{view.qualified} is a stored copy of {_tables(exposed)}, which row security cannot protect: {said(who)} {_see(who)}"
        " the rows of every tenant."
    )
    fix = "\n".join(revoke(subject, view, role.oid, commands) for role, commands in who)
    return Hit(view.qualified, detail, fix, _worst(exposed), relation=view.qualified)


def _open(subject: Subject, view: Relation, exposed: Sequence[Shown], who: Who) -> Hit:
    severity = _worst(exposed)
    worst = next(one for one in exposed if one.severity == severity)
    sees = f"{said(who)} {_see(who)} the rows of every tenant."
    if worst.reach.kind not in ("open", "shared", "tenant"):
        sees = _partly(worst, said(who))
    detail = f"{_reads(subject, view, exposed)}: {sees}"
    fix = _fix(subject, view, exposed, who)
    return Hit(view.qualified, detail, fix, severity, relation=view.qualified)


def _partly(worst: Shown, who: str) -> str:
    if worst.reach.kind == "undecided":
        why = f" ({worst.reach.detail})" if worst.reach.detail else ""
        return f"whether its own conditions keep tenants apart for {who} cannot be told{why}."
    return f"to {in_words(worst.reach)} it shows rows of other tenants ({who})."


def _filtered(subject: Subject, view: Relation, exposed: Sequence[Shown], who: Who) -> Hit:
    start = _reads(subject, view, exposed)
    if all(one.sealed for one in exposed):
        detail = f"{start}; only its own conditions keep tenants apart."
        fix = f"ALTER VIEW {view.qualified} SET (security_invoker = true);"
        return Hit(view.qualified, detail, fix, "info", relation=exposed[0].relation.qualified)
    detail = (
        f"{start}; its own conditions keep tenants apart, but it is no security_barrier, so a function or a failing"
        f" cast in the query of {listed(role.name for role, _ in who)} sees the rows before they are left out."
    )
    fix = f"ALTER VIEW {view.qualified} SET (security_barrier = true);"
    return Hit(view.qualified, detail, fix, "high", relation=view.qualified)


def _fix(subject: Subject, view: Relation, exposed: Sequence[Shown], who: Who) -> str:
    """An invoker view where that helps: not above a stored copy, nor above another view that reads by itself."""
    direct = set(subject.catalog.mentions("relation", view.oid, "relation"))
    if not view.security_invoker and all(one.relation.holds_rows and one.relation.oid in direct for one in exposed):
        return f"ALTER VIEW {view.qualified} SET (security_invoker = true);"
    return "\n".join(revoke(subject, view, role.oid, commands) for role, commands in who)


def _reads(subject: Subject, view: Relation, exposed: Sequence[Shown]) -> str:
    readers = listed(subject.catalog.role_name(one.reader) for one in exposed)
    return (
        f"{view.qualified} reads {_tables(exposed)} with the rights of {readers}, whom no policy binds there"
        f" ({exposed[0].why})"
    )


def _tables(exposed: Sequence[Shown]) -> str:
    return listed(sorted({one.relation.qualified for one in exposed}))


def _worst(exposed: Sequence[Shown]) -> Severity:
    return min((one.severity or "info" for one in exposed), key=SEVERITIES.index)
