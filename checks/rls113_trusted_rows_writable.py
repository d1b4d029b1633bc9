"""Policies that trust rows which sessions write themselves."""

from __future__ import annotations

from collections.abc import Iterator

from rlsaudit.checks._fixes import in_order, listed, policy_name, revoke, several
from rlsaudit.checks._openings import loose_writes
from rlsaudit.checks._trusts import Trust, trusts

from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.finding import SEVERITIES

_USERS = """\
CREATE ROLE app LOGIN;
CREATE FUNCTION me() RETURNS int LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('app.user_id', true), '')::int $$;
CREATE TABLE orgs (id int PRIMARY KEY, name text, partner_id int REFERENCES orgs);
CREATE TABLE members (user_id int, org_id int REFERENCES orgs, PRIMARY KEY (user_id, org_id));
CREATE TABLE projects (id int PRIMARY KEY, org_id int NOT NULL REFERENCES orgs, title text);
ALTER TABLE orgs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE members ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE projects ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON members FOR SELECT USING (user_id = me());
CREATE POLICY mine ON orgs USING (id IN (SELECT org_id FROM members WHERE user_id = me()));
CREATE POLICY member ON projects USING (org_id IN (SELECT org_id FROM members WHERE user_id = me()));
GRANT SELECT ON orgs, members TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON projects TO app;
"""
_ADMIN = """\
CREATE TABLE users (id int PRIMARY KEY, name text, is_admin boolean NOT NULL DEFAULT false);
ALTER TABLE users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY self ON users USING (id = me());
CREATE FUNCTION is_admin() RETURNS boolean LANGUAGE sql STABLE
  AS $$ SELECT EXISTS (SELECT 1 FROM public.users u WHERE u.id = public.me() AND u.is_admin) $$;
CREATE POLICY admins ON projects FOR SELECT USING (is_admin());
"""
_SHARES = """\
CREATE ROLE app LOGIN;
CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;
CREATE TABLE documents (id int PRIMARY KEY, tenant_id int NOT NULL, UNIQUE (tenant_id, id));
ALTER TABLE documents ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE TABLE shares (tenant_id int NOT NULL, document_id int NOT NULL REFERENCES documents, shared_with int NOT NULL);
ALTER TABLE shares ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON documents USING (tenant_id = tenant());
CREATE POLICY tenant ON shares USING (tenant_id = tenant() OR shared_with = tenant())
  WITH CHECK (tenant_id = tenant());
CREATE POLICY shared ON documents FOR SELECT USING (EXISTS (
  SELECT FROM shares s WHERE s.document_id = documents.id AND s.shared_with = tenant()));
GRANT SELECT ON documents TO app;
GRANT SELECT, INSERT ON shares TO app;
"""


@check(
    "RLS113",
    title="A policy trusts rows that a session may write itself",
    severity="critical",
    rationale=(
        "A policy that looks something up is only as good as the policies of the table that it looks it up in. Who may"
        " write its own membership, its own role, or a share of somebody else's row decides by itself what it sees."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-6", "CWE-639", "CWE-269"),
    examples=(
        Example(
            setup=_USERS + _ADMIN,
            bad="GRANT SELECT, UPDATE ON users TO app;",
            good="GRANT SELECT, UPDATE (name) ON users TO app;",
        ),
        Example(
            setup=_USERS,
            bad=(
                "GRANT UPDATE ON orgs TO app;\n"
                "CREATE POLICY partner ON projects FOR SELECT USING (org_id IN (SELECT partner_id FROM orgs));"
            ),
            good=(
                "GRANT UPDATE (name) ON orgs TO app;\n"
                "CREATE POLICY partner ON projects FOR SELECT USING (org_id IN (SELECT partner_id FROM orgs));"
            ),
        ),
        Example(
            setup=_SHARES,
            bad="ALTER TABLE shares ADD note text;",
            good="ALTER TABLE shares ADD FOREIGN KEY (tenant_id, document_id) REFERENCES documents (tenant_id, id);",
        ),
    ),
)
def trusted_rows_writable(subject: Subject) -> Iterator[Hit]:
    found: dict[int, list[Trust]] = {}
    for one in trusts(subject):
        found.setdefault(one.trusted.relation, []).append(one)
    for oid, group in found.items():
        if _said_elsewhere(subject, subject.catalog.relation(oid)):
            continue
        worst = min(group, key=lambda one: SEVERITIES.index(one.severity))
        yield _hit(subject, subject.catalog.relation(oid), [t for t in group if t.severity == worst.severity], worst)


def _said_elsewhere(subject: Subject, relation: Relation) -> bool:
    """Whether the finding would only repeat that the relation is open, or that its key may be forged."""
    if subject.tenancy.of(relation.oid).kind not in ("tenant", "membership"):
        return False
    if not relation.rls_enabled:
        return True
    openings = (*loose_writes(subject, "INSERT"), *loose_writes(subject, "UPDATE"))
    return any(one.use.relation.oid == relation.oid and one.severity in ("critical", "high") for one in openings)


def _hit(subject: Subject, relation: Relation, group: list[Trust], worst: Trust) -> Hit:
    roles = list(dict.fromkeys((one.use.role.oid, one.use.role.name) for one in group))
    commands = in_order({one.forgery.command for one in group})
    columns = sorted({name for one in group for name in one.forgery.columns})
    by = {one.trusted.function for one in group} - {0}
    through = [f.qualified for oid in sorted(by) if (f := subject.catalog.function(oid))]
    policies = several(policy_name(one.use.policy, one.use.relation) for one in group)
    whose = {"any": "any row", "person": "its own row", "tenant": "its tenant's rows"}[worst.forgery.whose]
    detail = (
        f"{listed(name for _, name in roles)} may {' and '.join(commands)} {', '.join(columns)} of {relation.qualified}"
        f" ({whose}), and {policies} believe{'s' if len({t.use.policy.oid for t in group}) == 1 else ''} what it says"
    )
    detail += f" (read by {several(through)}): " if through else ": "
    detail += {
        "info": f"only the trigger {worst.forgery.guard} may stop a session from deciding what it may see.",
        "medium": "a user can give itself rights that it was not given, inside its own tenant.",
    }.get(worst.severity, "a session can let itself in to rows of other tenants.")
    return Hit(
        relation.qualified,
        detail,
        _fix(subject, relation, roles, group),
        worst.severity,
        relation=relation.qualified,
        command=listed(commands),
        role=listed(name for _, name in roles),
    )


def _fix(subject: Subject, relation: Relation, roles: list[tuple[int, str]], group: list[Trust]) -> str:
    """The privilege goes; of UPDATE the columns that nothing trusts stay."""
    lines = []
    for oid, name in roles:
        mine = [one for one in group if one.use.role.oid == oid]
        commands = in_order({one.forgery.command for one in mine})
        forged = {column for one in mine if one.forgery.command == "UPDATE" for column in one.forgery.columns}
        kept = [c for c in subject.visibility.columns(oid, relation, "UPDATE") if c not in forged] if forged else []
        lines.append(revoke(subject, relation, oid, commands))
        if kept:
            lines.append(
                f"GRANT UPDATE ({', '.join(map(quote, kept))}) ON TABLE {relation.qualified} TO {quote(name)};"
            )
    return "\n".join(dict.fromkeys(line for line in lines if line))
