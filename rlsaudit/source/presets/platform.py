"""What of a platform is not the application's: its roles, and relations that only its own services write."""

from __future__ import annotations

from dataclasses import replace

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.tenancy.infer import Declared, DeclaredRelation

_SCHEMAS = {
    "supabase": frozenset(
        "auth storage realtime _realtime vault graphql graphql_public extensions net cron pgsodium supabase_functions "
        "supabase_migrations".split()
    )
}
_USERS = {"supabase": frozenset({"auth.users"})}
"""Relations of the platform that say who somebody is; they are classified like the application's own."""
_SERVICES = {
    "supabase": frozenset(
        "authenticator service_role supabase_admin supabase_auth_admin supabase_storage_admin supabase_realtime_admin "
        "supabase_functions_admin supabase_replication_admin dashboard_user pgbouncer".split()
    )
}
_WHY = "made by the platform; its services alone write it, and no policy of the application is on it"


def declared_with(name: str, catalog: Catalog, declared: Declared) -> Declared:
    """``declared``, the platform's own relations as infrastructure, as far as the application put no policy on them, and
    the roles of its services."""
    governed = {policy.relation for policy in catalog.policies}
    ours = {
        relation.qualified: DeclaredRelation("infrastructure", None, _WHY)
        for relation in catalog.relations
        if _of_platform(name, relation) and relation.oid not in governed
    }
    return replace(declared, relations={**ours, **declared.relations}, services=_SERVICES.get(name, frozenset[str]()))


def _of_platform(name: str, relation: Relation) -> bool:
    users = _USERS.get(name, frozenset())
    return relation.schema in _SCHEMAS.get(name, frozenset()) and relation.qualified not in users
