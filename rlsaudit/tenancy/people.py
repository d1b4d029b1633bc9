"""People and tenants: what they are found by before a tenant is known, and what ties the ones to the others."""

from __future__ import annotations

import re
from collections.abc import Collection

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.tenancy.model import RelationClass

_LOGIN = re.compile(
    r"((normali[sz]ed|canonical)_)?((e_?)?mail(_address)?|(user|login|nick|screen)_?name|login|handle|sub|auth_?(id|user_?id))"
)
_PHONE = re.compile(r"phone(_?number)?|mobile")
_PEOPLE = re.compile(r"(app_|auth_|tenant_)?(users?(_\w+)?|accounts?|profiles?|logins?|identities)")
_PASSWORD = re.compile(r"passw(or)?d|pwd|password_?(hash|digest)|encrypted_password")
_SECRET_OF_A_PERSON = re.compile(
    r"(^|_)(ssn|social_security\w*|iban|bic|ein|duns|lei|(tax|vat|company|registration|card|account)_?(id|no|number)|taxpayer"
    r"|passport\w*|licen[cs]e\w*|national\w*|insurance\w*|bank\w*|credit\w*|phone\w*|mobile(_?(no|number|phone))?|birth\w*"
    r"|medical\w*|diagnos\w*|patient\w*)$"
)


def found_by(relation: Relation, kind: RelationClass, columns: Collection[str]) -> bool:
    """Whether tenants (their slug, name or domain) or people (what they sign in by) are found by these columns.

    In the list of tenants, or of users, that is any name but one that tells of a person or a business what is theirs alone.
    """
    if kind in ("registry", "principal"):
        return not any(_SECRET_OF_A_PERSON.search(name.lower()) for name in columns) or _signs_in(relation, columns)
    return _signs_in(relation, columns)


def one_for_each(catalog: Catalog, relation: Relation, key: str, user: str) -> bool:
    """Whether the relation ties users to tenants: one row for each pair.  A user may see to what he belongs."""
    columns = [relation.column(name) for name in (key, user)]
    pair = {column.number for column in columns if column is not None}
    return len(pair) == len(columns) and any(
        index.unique and set(index.columns) == pair for index in catalog.indexes_of(relation.oid)
    )


def _signs_in(relation: Relation, columns: Collection[str]) -> bool:
    names = [name.lower() for name in columns]
    password = any(_PASSWORD.fullmatch(column.name.lower()) for column in relation.columns)
    if not names or not all(_LOGIN.fullmatch(name) or (password and _PHONE.fullmatch(name)) for name in names):
        return False
    return password or bool(_PEOPLE.fullmatch(relation.name.lower()))
