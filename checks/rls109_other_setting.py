"""A policy that takes the tenant from another setting than the rest of the schema."""

from collections.abc import Iterator

from rlsaudit.checks._binding import Reach
from rlsaudit.checks._examples import PROTECTED, TENANT
from rlsaudit.checks._fixes import narrow, policy_name
from rlsaudit.checks._openings import Opening, grouped
from rlsaudit.checks._reading import Shape, Side, Use, uses_of
from rlsaudit.checks._settings import Source, alternatives, key_values, sources, usual

from rlsaudit.catalog.outcome import Way
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity
from rlsaudit.tenancy import words
from rlsaudit.tenancy.context import set_by

_SOUND = PROTECTED + (
    "CREATE TABLE payments (id int PRIMARY KEY, tenant_id int NOT NULL, amount int);\n"
    "ALTER TABLE payments ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;\n"
    f"CREATE POLICY tenant ON payments USING ({TENANT});\n"
    "GRANT SELECT ON payments TO app;\n"
)
_OTHER = "tenant_id = NULLIF(current_setting('{}', true), '')::int"


@check(
    "RLS109",
    title="A policy takes the tenant from another setting",
    severity="critical",
    rationale=(
        "The application sets one setting after it has checked who acts for which tenant. A policy that reads another"
        " one is not guarded by that: the setting may come straight from a request, name a user instead of a tenant,"
        " or be left over from someone else on a pooled connection."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-639"),
    examples=(
        Example(
            setup=_SOUND,
            bad=f"CREATE POLICY tenant ON invoices USING ({_OTHER.format('app.requested_tenant')});",
            good=(f"CREATE POLICY tenant ON invoices USING ({TENANT}\n  AND {_OTHER.format('app.requested_tenant')});"),
        ),
        Example(
            setup=_SOUND,
            bad=f"CREATE POLICY tenant ON invoices USING ({_OTHER.format('app.user_id')});",
            good=f"CREATE POLICY tenant ON invoices USING ({TENANT});",
        ),
    ),
)
def other_setting(subject: Subject) -> Iterator[Hit]:
    openings = []
    odd: dict[int, tuple[Source, Source, int]] = {}
    known: dict[tuple[int, Shape, Side, frozenset[str]], list[tuple[Source, Source, int]]] = {}
    for use in uses_of(subject, "tenant"):
        alike = (use.role.oid, use.reading.shape, use.side, use.place.parties)
        if alike not in known:
            held = (way for way, reach in use.reaches if reach.kind == "tenant")
            known[alike] = [found for way in held if (found := _odd(subject, use, way)) is not None]
        for found in known[alike]:
            odd.setdefault(use.policy.oid, found)
            openings.append(Opening(use, Reach("setting", found[0].setting), _severity(subject, use, found[0])))
    for group in grouped(openings):
        relation, use = group.relation, group.first.use
        source, main, count = odd[group.policy.oid]
        whose = "which names a user" if _of_user(use, source) else "which nothing else holds a tenant against"
        yield Hit(
            policy_name(group.policy, relation),
            f"The policy takes the tenant of {relation.qualified} from {source}, {whose}; {count} other"
            f" table{'s take' if count > 1 else ' takes'} it from {main}. Whoever sets {source.setting} chooses the"
            f" tenant ({group.commands} as {group.roles}).",
            narrow(subject, relation, use.classified, group.policy, using=True, check=group.policy.check is not None),
            group.first.severity,
            relation=relation.qualified,
            command=group.commands,
            role=group.roles,
        )


def _odd(subject: Subject, use: Use, way: Way) -> tuple[Source, Source, int] | None:
    """The source that the way holds the key against, where most tables of the role use another one, and how many."""
    counted = usual(subject).get(use.role.oid)
    if not counted:
        return None
    main, count = counted.most_common(1)[0]
    strange: list[Source] = []
    for value in key_values(way, use):
        arms = [list(sources(subject, arm)) for arm in alternatives(value)]
        others = [arm[0] for arm in arms if arm and not any(one.like(main) for one in arm)]
        if not others:
            return None
        strange += others
    for one in strange:
        # The server's own settings, such as application_name, are no context at all, and another check's.  What several
        # tables read is another way to say the tenant, or another kind of tenant.
        often = max(number for source, number in counted.items() if source.setting == one.setting)
        if "." in one.setting and count >= 2 * often:
            return one, main, count
    return None


def _of_user(use: Use, source: Source) -> bool:
    return (
        words.user_like(source.name) and not words.tenant_like(source.name) and not words.user_like(use.place.key or "")
    )


def _severity(subject: Subject, use: Use, source: Source) -> Severity:
    if any(source.setting in set_by(function) for function in subject.catalog.functions):
        return "medium"
    return "high" if use.classified.kind in ("registry", "principal") else "critical"
