"""What people sign in by, before their tenant is known."""

from __future__ import annotations

import re
from collections.abc import Collection

from rlsaudit.catalog.relations import Relation

_LOGIN = re.compile(
    r"e_?mail(_address)?|(user|login|nick|screen)_?name|login|handle|phone(_?number)?|sub|auth_?(id|user_?id)"
)
_PEOPLE = re.compile(r"(app_|auth_|tenant_)?(users?(_\w+)?|accounts?|profiles?|logins?|identities)")
_PASSWORD = re.compile(r"passw(or)?d|pwd|password_?(hash|digest)|encrypted_password")


def signs_in(relation: Relation, columns: Collection[str]) -> bool:
    """Whether people sign in by these columns: they must be unique among all tenants."""
    if not columns or not all(_LOGIN.fullmatch(name.lower()) for name in columns):
        return False
    password = any(_PASSWORD.fullmatch(column.name.lower()) for column in relation.columns)
    return password or bool(_PEOPLE.fullmatch(relation.name.lower()))
