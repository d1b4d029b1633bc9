"""Writes through views that leave the view's own conditions behind."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._openings import tenant_settings
from rlsaudit.checks._views import bound_by, exemption, reader_of, reading_of

from rlsaudit.catalog.policies import settings_read, view_branches
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.viewtree import Branch, Read
from rlsaudit.check import Example, Hit, Subject, check


@check(
    "RLS303",
    title="A view lets rows of other tenants be written",
    severity="critical",
    rationale=(
        "An updatable view writes with the rights of its owner unless it is security_invoker. Its WHERE says which rows"
        " are seen, not which may be written: without WITH CHECK OPTION a new row may name any tenant."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-284"),
    examples=(
        Example(
            setup=SOUND,
            bad=(
                "CREATE VIEW mine WITH (security_barrier = true) AS SELECT * FROM invoices\n"
                "  WHERE tenant_id = current_setting('app.tenant_id', true)::int;\n"
                "GRANT SELECT, INSERT ON mine TO app;"
            ),
            good=(
                "CREATE VIEW mine WITH (security_barrier = true) AS SELECT * FROM invoices\n"
                "  WHERE tenant_id = current_setting('app.tenant_id', true)::int WITH CASCADED CHECK OPTION;\n"
                "GRANT SELECT, INSERT ON mine TO app;"
            ),
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE VIEW mine WITH (security_barrier = true) AS SELECT id AS no, tenant_id AS whose FROM invoices\n"
                "  WHERE tenant_id = current_setting('app.tenant_id', true)::int;\n"
                "GRANT SELECT, UPDATE ON mine TO app;"
            ),
            good=(
                "CREATE VIEW mine WITH (security_barrier = true) AS SELECT id AS no, tenant_id AS whose FROM invoices\n"
                "  WHERE tenant_id = current_setting('app.tenant_id', true)::int;\n"
                "GRANT SELECT, UPDATE (no) ON mine TO app;"
            ),
        ),
    ),
)
def view_without_check_option(subject: Subject) -> Iterator[Hit]:
    for view in subject.catalog.relations:
        written = _written(subject, view) if view.kind == "view" else None
        if written is None:
            continue
        base = subject.catalog.relation(written.read.relation)
        found: dict[str, list[str]] = {}
        for command in ("INSERT", "UPDATE"):
            if _taken_over(subject, view, command) or _guarded(subject, base, command):
                continue
            for role in subject.tenancy.roles:
                columns = subject.visibility.columns(role.oid, view, command)
                if written.key in columns and subject.visibility.may_use_schema(role.oid, view.schema):
                    found.setdefault(role.name, []).append(command)
        if not found:
            continue
        commands = listed(sorted({one for ones in found.values() for one in ones}))
        yield Hit(
            view.qualified,
            f"{listed(found)} may {commands} through {view.qualified}, which writes {base.qualified} with the rights of"
            f" {subject.catalog.role_name(written.reader)}, whom no policy binds there ({written.why}), and no CHECK"
            f" OPTION holds {written.key} of a new row against the session's tenant.",
            _fix(subject, view, written),
            relation=base.qualified,
            command=commands,
        )


@dataclass(frozen=True)
class _Written:
    branch: Branch
    read: Read
    reader: int
    why: str
    key: str
    """Name of the view's column that is the tenant key."""


def _written(subject: Subject, view: Relation) -> _Written | None:
    """The tenant relation that a view writes past row security without holding new rows against the tenant."""
    if not any(
        subject.visibility.may(role.oid, view, c) for role in subject.tenancy.roles for c in ("INSERT", "UPDATE")
    ):
        return None
    branches = view_branches(subject.catalog, view) or ()
    if len(branches) != 1 or not branches[0].simple or len(branches[0].reads) != 1:
        return None
    branch, read = branches[0], branches[0].reads[0]
    relation, reader = subject.catalog.find_relation(read.relation), reader_of(subject, read)
    if relation is None or reader is None or not relation.holds_rows:
        return None
    why, key = exemption(subject, reader, relation), _key(subject, view, branch, relation)
    if (
        why is None
        or key is None
        or bound_by(subject, reading_of(subject, branch, read, reader, _checked(subject, read)))
    ):
        return None
    visible = bound_by(subject, reading_of(subject, branch, read, reader))
    only_insert = not any(subject.visibility.may(role.oid, view, "SELECT") for role in subject.tenancy.roles)
    # A view that shows every tenant's rows anyway is reported for that.
    return _Written(branch, read, reader, why, key) if visible or only_insert else None


def _key(subject: Subject, view: Relation, branch: Branch, relation: Relation) -> str | None:
    """The view's column that says whose the row is."""
    classified = subject.tenancy.of(relation.oid)
    names = classified.path[0].columns if classified.path else (classified.key,)
    for column in view.columns:
        origin = branch.origin(column.number)
        if origin is not None and origin[1] in names:
            return column.name
    return None


def _checked(subject: Subject, read: Read) -> Callable[[int], bool]:
    """Of which views on the way the conditions hold for new rows."""
    options = [_check_option(subject.catalog.find_relation(oid)) for oid in read.chain]
    cascaded = next((at for at, option in enumerate(options) if option == "cascaded"), len(options))
    return lambda position: position >= cascaded or options[position] == "local"


def _check_option(view: Relation | None) -> str:
    options = (option.partition("=") for option in (view.options if view else ()))
    return next((value.lower() for name, _, value in options if name.lower() == "check_option"), "")


def _taken_over(subject: Subject, view: Relation, command: str) -> bool:
    """Whether a trigger or a rule does something else instead."""
    triggers = subject.catalog.triggers_of(view.oid)
    rules = (rule for rule in subject.catalog.rules if rule.relation == view.oid)
    return any(one.timing == "INSTEAD OF" and command in one.events for one in triggers) or any(
        rule.instead and rule.event == command for rule in rules
    )


def _guarded(subject: Subject, base: Relation, command: str) -> bool:
    """Whether a trigger of the table reads the context before a row is written."""
    names = tenant_settings(subject)
    return any(
        one.timing == "BEFORE"
        and one.row_level
        and command in one.events
        and one.enabled in ("origin", "always")
        and settings_read(subject.catalog, one.function) & names
        for one in subject.catalog.triggers_of(base.oid)
    )


def _fix(subject: Subject, view: Relation, written: _Written) -> str:
    everything = reading_of(subject, written.branch, written.read, written.reader)
    if bound_by(subject, everything):
        return f"ALTER VIEW {view.qualified} SET (check_option = cascaded);"
    return f"ALTER VIEW {view.qualified} SET (security_invoker = true);"
