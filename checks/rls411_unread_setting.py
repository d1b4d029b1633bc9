"""A function that sets another setting than policies read."""

from collections.abc import Iterator

from rlsaudit.checks._context import context_settings, tenant_relations
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, several
from rlsaudit.checks._openings import tenant_settings
from rlsaudit.checks._routines import rewrite
from rlsaudit.checks._setters import callers, setters

from rlsaudit.catalog.policies import settings_read
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.tenancy import words

_SET = """\
CREATE FUNCTION set_tenant(wanted int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('{}', wanted::text, true);
END $$;"""


@check(
    "RLS411",
    title="The context function sets what no policy reads",
    severity="low",
    rationale=(
        "A function and the policies that disagree about the name of a setting leave every session without context: it"
        " sees nothing, until somebody opens the policy to make it work, or sets the right one by hand and for too long."
    ),
    standards=("SOC 2 CC8.1", "ISO 27001 A.8.9", "NIST 800-53 CM-6", "CWE-1108"),
    examples=(Example(setup=SOUND, bad=_SET.format("app.tenant"), good=_SET.format("app.tenant_id")),),
)
def unread_setting(subject: Subject) -> Iterator[Hit]:
    read = context_settings(subject)
    wanted = sorted(tenant_settings(subject) & read)
    used = [one for one in setters(subject) if callers(subject, one.function)] if wanted else []
    if not wanted or any(one.setting in read for one in used):
        return
    elsewhere = frozenset[str]().union(*(settings_read(subject.catalog, f.oid) for f in subject.catalog.functions))
    for one in used:
        if one.setting in elsewhere or not words.tenant_like(one.setting):
            continue
        tables = several(relation.qualified for relation in tenant_relations(subject))
        yield Hit(
            one.function.signature,
            f"{one.function.signature}, which {listed(callers(subject, one.function))} may call, sets {one.setting}, but"
            f" policies of {tables} read {several(wanted)} and nothing sets that.",
            rewrite(one.function, [(one.old, one.old.replace(one.setting, wanted[0]))]),
        )
