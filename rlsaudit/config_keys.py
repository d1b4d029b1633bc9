"""The keys of rlsaudit.toml, each with its type and meaning: what is not here is an error, and docs/configuration.md
is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a configuration file."""

    kind: str
    meaning: str = ""
    """Empty where the option of the same name says it."""
    default: str = ""


KEYS: Mapping[str, Mapping[str, Key]] = {
    "": {
        "roles": Key("list of strings"),
        "fail_on": Key("string"),
        "seed": Key("integer, or table"),
        "budget": Key("number of seconds, or string"),
        "jobs": Key("integer"),
        "database": Key("string"),
        "detector": Key("string"),
        "formats": Key("list of strings"),
        "output_dir": Key("string"),
        "pg_bin": Key("string"),
        "preset": Key("string"),
        "context": Key("table", "How a session says for whom it acts.", "inferred"),
        "tenancy": Key("table", "What tells one tenant's rows from another's.", "inferred"),
        "relations": Key("tables by `schema.name`", "What single relations hold.", "inferred"),
        "allow": Key("list of tables", "Findings of checks that you live with; they stay in the report, marked."),
    },
    "tenancy": {
        "key": Key("list of strings", "Names of the columns that hold the tenant's key.", "inferred"),
    },
    "context": {
        "statements": Key(
            "list of strings", "What a session runs to act for `:tenant` and `:user`: the first persona."
        ),
        "personas": Key("list of tables", "Every way to act for a tenant. Only these are tried."),
        "reset": Key("list of strings", "What the connection pool runs at check-in.", "nothing"),
    },
    "context.personas": {
        "name": Key("string", "How reports call it.", "persona 1, 2 …"),
        "statements": Key("list of strings", "What it runs; `:tenant` and `:user` become quoted values."),
        "login": Key(
            "string", "Role to log in as, `tenant_:tenant` say; the same for all.", "the application role itself"
        ),
        "opening": Key(
            "boolean", "No tenant's session sets this: what only it opens is one finding, and fails no cell.", "false"
        ),
    },
    "relations": {
        "class": Key("string", "tenant, registry, membership, principal, global or infrastructure."),
        "key": Key("string", "Its own column with the tenant's key.", "inferred"),
        "reason": Key("string", "Why, for the report."),
    },
    "seed": {
        "number": Key("integer", "Seed of the random workloads; `seed = 7` alone says the same.", "0"),
        "sql": Key("list of strings", "Run in the scratch copy for every tenant, as a superuser, to make rows."),
        "values": Key(
            "lists of strings by `schema.table.column`", "Values to choose from where the probe cannot guess."
        ),
    },
    "allow": {
        "check": Key("string", "Identifier of the check; a leak that was executed cannot be allowed."),
        "object": Key("string", "As the report names it; `*` and `?` stand for any characters and any one.", "`*`"),
        "reason": Key("string", "Why, for an auditor to read. Needed."),
    },
}
