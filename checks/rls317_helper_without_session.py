"""Functions that policies ask and that answer without looking at the session."""

from collections.abc import Iterator

from rlsaudit.checks._bodies import reading
from rlsaudit.checks._examples import PROTECTED
from rlsaudit.checks._fixes import narrow, policy_name
from rlsaudit.checks._known import READABLE
from rlsaudit.checks._reading import uses_of

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.outcome import Way
from rlsaudit.check import Example, Hit, Subject, check

_POLICY = """\
CREATE FUNCTION may_see(tenant int, amount int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN
  {first}RETURN tenant = NULLIF(current_setting('app.tenant_id', true), '')::int;
  EXCEPTION WHEN others THEN RETURN false; END $$;
CREATE POLICY tenant ON invoices USING (may_see(tenant_id, amount));"""


@check(
    "RLS317",
    title="A policy's function says yes without looking at the session",
    severity="high",
    rationale=(
        "A policy that asks a function is as good as the function's body. A branch that returns true by values of the row"
        " alone opens those rows to every tenant."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-863"),
    examples=(
        Example(
            setup=PROTECTED,
            bad=_POLICY.format(first="IF amount > 1000 THEN RETURN true; END IF; "),
            good=_POLICY.format(first="IF amount > 1000 THEN RETURN false; END IF; "),
        ),
    ),
)
def helper_without_session(subject: Subject) -> Iterator[Hit]:
    seen: set[tuple[int, int]] = set()
    for use in uses_of(subject, "undecided"):
        for way, reach in use.reaches:
            if reach.kind != "undecided":
                continue
            for oid in _asked(way):
                function = subject.catalog.function(oid)
                if function is None or (use.policy.oid, oid) in seen or function.language not in READABLE:
                    continue
                seen.add((use.policy.oid, oid))
                if reading(subject, function).answers:
                    name = policy_name(use.policy, use.relation)
                    yield Hit(
                        f"{name}",
                        f"{name} asks {function.signature}, which returns true on a branch that does not depend on the"
                        f" session: {use.role.name} gets rows of other tenants that meet it.",
                        narrow(subject, use.relation, use.classified, use.policy, using=True, check=True),
                        relation=use.relation.qualified,
                        role=use.role.name,
                    )


def _asked(way: Way) -> Iterator[int]:
    """Functions that a way asks about the row and whose body is not followed."""
    for condition in way:
        for part in e.walk(condition.atom):
            if isinstance(part, e.Call) and part.user and part.inlined is None and e.depends_on_row(part):
                yield part.function
