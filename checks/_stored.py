"""Values that ALTER ROLE and ALTER DATABASE … SET store for new sessions."""

from __future__ import annotations

from rlsaudit.catalog.cluster import Setting
from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.identifiers import quote
from rlsaudit.check import Subject


def sessions_of(subject: Subject, setting: Setting) -> list[str]:
    """Application roles whose sessions begin with the setting: by their own login, or one that becomes them."""
    roles = subject.tenancy.roles
    if setting.role == PUBLIC:
        return [role.name for role in roles]
    login = next((one for one in subject.catalog.roles if one.oid == setting.role), None)
    if login is None or login.superuser or login.bypassrls:
        return [role.name for role in roles if role.oid == setting.role]
    reach = subject.visibility.becomes(setting.role) | subject.visibility.inherits(setting.role)
    return [role.name for role in roles if role.oid in reach]


def stored_at(subject: Subject, setting: Setting) -> tuple[str, str]:
    """How people name it, and the beginning of the statement that changes it."""
    if setting.role == PUBLIC:
        if not setting.database:
            return "every role", "ALTER ROLE ALL"
        return f"database {setting.database}", f"ALTER DATABASE {quote(setting.database)}"
    name = subject.catalog.role_name(setting.role)
    if setting.database:
        return f"role {name} in database {setting.database}", (
            f"ALTER ROLE {quote(name)} IN DATABASE {quote(setting.database)}"
        )
    return f"role {name}", f"ALTER ROLE {quote(name)}"
