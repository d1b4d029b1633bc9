"""What tenants and people are found by, and what is theirs alone."""

from __future__ import annotations

import pytest

from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.tenancy.model import RelationClass
from rlsaudit.tenancy.people import found_by


def _relation(name: str, *columns: str) -> Relation:
    made = (Column(at, one, "text", 25, "text", "S", True, None) for at, one in enumerate(columns, 1))
    return Relation(1, "public", name, "table", 10, columns=tuple(made))


@pytest.mark.parametrize(
    ("table", "kind", "column", "found"),
    [
        ("tenants", "registry", "slug", True),
        ("tenants", "registry", "mobile_app_slug", True),
        ("tenants", "registry", "card_slug", True),
        ("tenants", "registry", "iban", False),
        ("tenants", "registry", "company_number", False),
        ("people", "principal", "handle", True),
        ("people", "principal", "medical_record_no", False),
        ("people", "principal", "phone", False),
        ("users", "tenant", "normalized_email", True),
        ("users", "tenant", "mail", True),
        ("users", "tenant", "code", False),
        ("profiles", "tenant", "phone", False),
        ("notes", "tenant", "email", False),
    ],
)
def test_by_what_tenants_and_people_are_found(table: str, kind: RelationClass, column: str, found: bool) -> None:
    assert found_by(_relation(table, column), kind, [column]) is found


def test_a_phone_beside_a_password_is_a_login() -> None:
    assert found_by(_relation("members", "phone", "password_hash"), "tenant", ["phone"])
