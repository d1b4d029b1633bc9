"""Rewrite rules that act with the rights of a relation's owner."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._openings import tenant_settings
from rlsaudit.checks._routines import tokens
from rlsaudit.checks._views import exemption

from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.policies import settings_read
from rlsaudit.catalog.relations import Relation, Rule
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity


@check(
    "RLS304",
    title="A rule reaches tenant data past row security",
    severity="high",
    rationale=(
        "What a rule adds to a statement runs with the rights of the owner of the relation that the rule is on, not of"
        " the caller. When no policy binds that owner, the rule reads and writes the rows of every tenant."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-284"),
    examples=(
        Example(
            setup=SOUND,
            bad=(
                "CREATE VIEW entry AS SELECT 0 AS id, 0 AS tenant_id, 0 AS amount;\n"
                "CREATE RULE entry AS ON INSERT TO entry DO INSTEAD\n"
                "  INSERT INTO invoices VALUES (NEW.id, NEW.tenant_id, NEW.amount);\n"
                "GRANT INSERT ON entry TO app;"
            ),
            good=(
                "CREATE VIEW entry AS SELECT 0 AS id, 0 AS amount;\n"
                "CREATE RULE entry AS ON INSERT TO entry DO INSTEAD\n"
                "  INSERT INTO invoices VALUES (NEW.id, current_setting('app.tenant_id')::int, NEW.amount);\n"
                "GRANT INSERT ON entry TO app;"
            ),
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE RULE moved AS ON UPDATE TO customers DO ALSO\n"
                "  UPDATE invoices SET amount = 0 WHERE id = NEW.id;"
            ),
            good=(
                "CREATE RULE moved AS ON UPDATE TO customers DO ALSO\n"
                "  UPDATE invoices SET amount = 0 WHERE id = NEW.id AND tenant_id = NEW.tenant_id;"
            ),
        ),
    ),
)
def rule_past_row_security(subject: Subject) -> Iterator[Hit]:
    catalog = subject.catalog
    for rule in catalog.rules:
        relation = catalog.find_relation(rule.relation)
        if relation is None or relation.extension:
            continue
        who = [r.name for r in subject.tenancy.roles if subject.visibility.may(r.oid, relation, rule.event)]
        reached = _reached(subject, rule, relation)
        if not who or not reached:
            continue
        names, run = listed(one.qualified for one, _ in reached), "run" if len(who) > 1 else "runs"
        severity, how = _judged(subject, rule, relation)
        yield Hit(
            f"rule {quote(rule.name)} on {relation.qualified}",
            f"When {listed(who)} {run} {rule.event} on {relation.qualified}, rule {rule.name} reaches {names} with the"
            f" rights of {catalog.role_name(relation.owner)}, whom no policy binds there ({reached[0][1]}); {how}.",
            f"DROP RULE {quote(rule.name)} ON {relation.qualified};",
            severity,
            relation=reached[0][0].qualified,
            command=rule.event,
        )


def _reached(subject: Subject, rule: Rule, relation: Relation) -> list[tuple[Relation, str]]:
    found = (subject.catalog.find_relation(oid) for oid in subject.catalog.mentions("rule", rule.oid, "relation"))
    others = (one for one in found if one is not None and one.oid != relation.oid)
    reasons = ((one, exemption(subject, relation.owner, one)) for one in others)
    return [(one, why) for one, why in reasons if why is not None]


def _judged(subject: Subject, rule: Rule, relation: Relation) -> tuple[Severity, str]:
    """The rule's text tells whether it looks at the session, or at the key of a row that policies have checked."""
    if _looks(subject, rule):
        return "low", "it reads the session's context, so its own conditions may keep tenants apart"
    classified = subject.tenancy.of(relation.oid)
    checked = not rule.instead and relation.rls_enabled and relation.holds_rows
    key = classified.path[0].columns[0] if classified.path else classified.key
    if checked and key is not None and _row_key(rule, key):
        return "low", f"it goes by {key} of a row that the policies of {relation.qualified} have admitted"
    return "high", "nothing in it holds their rows against the session's tenant"


def _looks(subject: Subject, rule: Rule) -> bool:
    names = tenant_settings(subject)
    if any(token.kind == "string" and token.text.lower() in names for token in tokens(rule.definition)):
        return True
    called = subject.catalog.mentions("rule", rule.oid, "function")
    return any(settings_read(subject.catalog, oid) & names for oid in called)


def _row_key(rule: Rule, key: str) -> bool:
    """Whether the text says ``new.key`` or ``old.key``."""
    said = tokens(rule.definition)
    return any(
        token.is_word("new", "old") and said[at + 1].is_symbol(".") and said[at + 2].text == key
        for at, token in enumerate(said[:-2])
    )
