"""What a platform's databases hold before the first migration, as SQL files: ``NAME.sql`` beside this file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files

from rlsaudit.errors import UsageError
from rlsaudit.source.files import SqlFile

EXTENSIONS = {
    "supabase": frozenset(
        "pg_net pg_cron pgjwt supabase_vault pgsodium pg_graphql http wrappers index_advisor hypopg pgaudit pg_repack "
        "plpgsql_check pgtap supabase-dbdev pg_tle pg_stat_monitor pg_jsonschema".split()
    )
}
"""Extensions that the platform offers; what migrations use of the common ones is in the preset itself."""

_SIGNS = {
    "supabase": re.compile(
        r'schema "(?:auth|storage|extensions|realtime|vault|net|cron|graphql_public|supabase_functions)" does not exist'
        r'|relation "(?:auth|storage|realtime|vault|cron)\.\w+" does not exist'
        r"|function (?:auth|storage|realtime|vault|net|cron)\.\w+\(.*\) does not exist"
        r'|role "(?:anon|authenticated|service_role|supabase_\w+)" does not exist'
        r'|publication "supabase_realtime" does not exist'
    )
}
"""What the server says of SQL that expects the platform."""


def names() -> tuple[str, ...]:
    """The presets there are."""
    found = (one.name for one in files(__name__).iterdir() if one.name.endswith(".sql"))
    return tuple(sorted(name.removesuffix(".sql") for name in found))


def known(name: str) -> str:
    """``name`` again.  Raises UsageError for one that is neither a preset nor empty."""
    if name and name not in names():
        raise UsageError(f"unknown preset {name!r}: choose from {', '.join(names())}")
    return name


def preset(name: str) -> SqlFile:
    """The SQL of a preset.  Raises UsageError for a name that is none."""
    text = (files(__name__) / f"{known(name)}.sql").read_text(encoding="utf-8")
    return SqlFile(text, f"preset {name}")


def notes(name: str, missing_roles: Iterable[str]) -> tuple[str, ...]:
    """What a report says of the preset, or of one that is probably missing; ``missing_roles`` had to be made up."""
    if name:
        return (
            f"Before the SQL, preset {name} was loaded: the platform's schemas, roles and grants, without its services.",
        )
    roles = [role for role in missing_roles if expected_by(f'role "{role}" does not exist')]
    if not roles:
        return ()
    which = expected_by(f'role "{roles[0]}" does not exist')
    return (f"Roles {', '.join(roles)} are those of a platform; --preset {which} gives them what they have there.",)


def expected_by(message: str, file: str = "") -> str:
    """The preset that would have what an error message misses in that file; empty for none."""
    missing = message.endswith(" does not exist")
    return next(
        (name for name, sign in _SIGNS.items() if sign.search(message) or (missing and name in file.lower())), ""
    )
