"""The parts of a Report that describe: policies, roles, context, controls, provenance.  Pure, but for the environment."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from rlsaudit import __version__
from rlsaudit.catalog import snapshot
from rlsaudit.catalog.cluster import Role
from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.check import registry
from rlsaudit.finding import Finding
from rlsaudit.pieces import Pieces
from rlsaudit.report import PolicyEntry, Provenance, RoleEntry, StandardEntry
from rlsaudit.tenancy.model import Tenancy


def policies(catalog: Catalog) -> Iterator[PolicyEntry]:
    """Every policy as the server holds it."""
    for policy in catalog.policies:
        relation = catalog.find_relation(policy.relation)
        if relation is not None:
            roles = tuple(catalog.role_name(role) for role in policy.roles)
            yield PolicyEntry(
                relation.qualified,
                policy.name,
                policy.command,
                policy.permissive,
                roles,
                policy.using,
                policy.check,
            )


def roles(catalog: Catalog, tenancy: Tenancy) -> Iterator[RoleEntry]:
    """Application roles, whatever they can reach, and every role that row security does not bind."""
    visibility = visibility_of(catalog)
    owned = Counter(catalog.relation(oid).owner for oid in tenancy.tenant_data())
    application = {role.oid: role.why for role in tenancy.roles}
    shown = {oid for role in tenancy.roles for oid in visibility.becomes(role.oid) | visibility.inherits(role.oid)}
    guarded = [r for oid in tenancy.tenant_data() if (r := catalog.relation(oid)).rls_enabled]
    for role in catalog.roles:
        if role.oid in shown or role.superuser or role.bypassrls or owned[role.oid]:
            why = next((why for relation in guarded if (why := visibility.exempt(role.oid, relation))), "")
            yield _role(catalog, role, application, owned[role.oid], why)


def _role(catalog: Catalog, role: Role, application: Mapping[int, str], owns: int, exempt: str) -> RoleEntry:
    granted = [m for m in catalog.memberships if m.member == role.oid and m.role != PUBLIC]
    return RoleEntry(
        role.name,
        role.login,
        role.oid in application,
        role.superuser,
        role.bypassrls,
        owns,
        tuple(sorted(catalog.role_name(m.role) for m in granted if m.inherit)),
        tuple(sorted(catalog.role_name(m.role) for m in granted if m.set)),
        application.get(role.oid, ""),
        exempt,
    )


def context(tenancy: Tenancy) -> Iterator[str]:
    """How a session says for whom it acts, in lines of text."""
    yield tenancy.context.why
    for persona in tenancy.context.personas:
        yield f"{persona.name}: {'; '.join(persona.statements)}"


def standards(findings: tuple[Finding, ...]) -> Iterator[StandardEntry]:
    """Every control that a check of this run, or a finding, speaks to."""
    by_standard: dict[str, set[str]] = {}
    for check in registry():
        for standard in check.standards:
            by_standard.setdefault(standard, set()).add(check.id)
    for finding in findings:
        for standard in finding.standards:
            by_standard.setdefault(standard, set()).add(finding.check)
    for standard in sorted(by_standard):
        yield StandardEntry(standard, tuple(sorted(by_standard[standard])))


def provenance(pieces: Pieces) -> Provenance:
    """What is needed to trust the record or to make it again."""
    server = pieces.catalog.server
    exempt = server.session_superuser or server.session_bypassrls
    return Provenance(
        tool_version=__version__,
        source=pieces.source,
        command=pieces.command,
        configuration_hash=pieces.configuration_hash,
        server_version=server.version,
        scratch_version=pieces.scratch_version,
        system_identifier=server.system_identifier,
        database=server.database,
        session_role=server.session_role,
        session_exempt=exempt,
        catalog_fingerprint=snapshot.fingerprint(pieces.catalog),
        seed=pieces.seed,
        runner_clock=pieces.started.isoformat(timespec="milliseconds"),
        server_clock=server.clock,
        python_version=platform.python_version(),
        checks=tuple(check.id for check in registry()),
        started_by=_started_by(),
        commit=os.environ.get("GITHUB_SHA") or os.environ.get("CI_COMMIT_SHA") or "",
        package_hash=package_hash(),
    )


@cache
def package_hash() -> str:
    """sha256 over name and content of every file of the package, in the order of their names; the wheel's as well."""
    parts = {
        name: importlib.import_module(name).__file__ for name in ("rlsaudit", "rlsaudit.checks", "rlsaudit.reports")
    }
    files = {
        f"{name.replace('.', '/')}/{file.relative_to(place).as_posix()}": file
        for name, place in ((name, Path(module).parent) for name, module in parts.items() if module)
        for file in place.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0".encode() + files[name].read_bytes() + b"\0")
    return digest.hexdigest()


def _started_by() -> str:
    """Who or what started the run, as the CI system says it, else the login name."""
    if actor := os.environ.get("GITHUB_ACTOR"):
        return f"GitHub Actions, {os.environ.get('GITHUB_REPOSITORY', '')}, run {os.environ.get('GITHUB_RUN_ID', '')}, {actor}"
    if actor := os.environ.get("GITLAB_USER_LOGIN"):
        return f"GitLab CI, {os.environ.get('CI_PROJECT_PATH', '')}, pipeline {os.environ.get('CI_PIPELINE_ID', '')}, {actor}"
    return os.environ.get("USER") or os.environ.get("LOGNAME") or "unknown"
