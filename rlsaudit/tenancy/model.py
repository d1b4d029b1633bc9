"""What is tenant data, whose it is, and how a session says for whom it acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

RelationClass = Literal[
    "tenant",  # rows belong to a tenant, by a key column or through foreign keys
    "registry",  # one row per tenant
    "membership",  # ties principals to tenants; policies read it
    "principal",  # users, without a tenant key of their own
    "global",  # the same for every tenant
    "infrastructure",  # migrations, job bookkeeping, sequences
    "unclassified",
]

TENANT_DATA: frozenset[RelationClass] = frozenset({"tenant", "registry", "membership", "principal"})


@dataclass(frozen=True, slots=True)
class Step:
    """One foreign key on the way from a child to the relation that holds the key."""

    constraint: int
    relation: int
    """The referenced relation's OID."""
    columns: tuple[str, ...]
    referenced_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Classified:
    """One relation's class, with the reason, and where its tenant key is."""

    relation: int
    kind: RelationClass
    why: str
    key: str | None = None
    """Name of the key column, here when ``path`` is empty, else in the last relation of ``path``."""
    path: tuple[Step, ...] = ()
    shared_rows: bool = False
    """A NULL key means a row shared by all tenants."""
    declared: bool = False
    """Said by the configuration rather than inferred."""

    @property
    def tenant_data(self) -> bool:
        return self.kind in TENANT_DATA


@dataclass(frozen=True, slots=True)
class Persona:
    """One way to act for a tenant: SQL statements with ``:tenant`` and ``:user`` for quoted literals."""

    name: str
    statements: tuple[str, ...]
    login: str = ""
    """Role to log in as, with ``:tenant`` and ``:user`` for the bare values; empty for the application role itself."""
    opening: bool = False
    """Sets what an ordinary session need not: rows that only this opens are the setting's doing, one finding in all."""


@dataclass(frozen=True, slots=True)
class Context:
    """How a session says for whom it acts."""

    personas: tuple[Persona, ...] = ()
    direct: Persona | None = None
    """The settings set one by one, past any function that would check them: for seeding, when nothing is there yet."""
    settings: tuple[str, ...] = ()
    """Names of the settings that policies and their functions read."""
    setters: tuple[Persona, ...] = ()
    """The same through other functions of the schema that set those settings: a context must not outlive these either."""
    reset: tuple[str, ...] = ()
    """Statements a pool runs at check-in, e.g. ``DISCARD ALL``."""
    why: str = ""
    declared: bool = False

    @property
    def seeding(self) -> Persona | None:
        """How to act for a tenant while its rows are being made: by whom is no matter then."""
        persona = self.direct or next(iter(self.personas), None)
        return replace(persona, login="") if persona else None

    @property
    def ordinary(self) -> Persona | None:
        """The first that logs in as the application role and opens nothing by it."""
        return next((one for one in self.personas if not (one.opening or self.login)), None)

    @property
    def login(self) -> str:
        """Template of the tenants' own login roles; empty where all sessions log in as the application role."""
        return next((persona.login for persona in self.personas if persona.login), "")


@dataclass(frozen=True, slots=True)
class ApplicationRole:
    oid: int
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Seeding:
    """What the user adds to the rows that the probe makes."""

    sql: tuple[str, ...] = ()
    """Statements with ``:tenant`` and ``:user``, run for every tenant."""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """``schema.table.column`` → the values to choose from."""


@dataclass(frozen=True)
class Tenancy:
    """The whole inference, each part with its reason; ``rlsaudit init`` writes it as configuration."""

    relations: Mapping[int, Classified] = field(default_factory=dict)
    key_columns: tuple[str, ...] = ()
    """Names that tenant keys bear in this schema, most used first."""
    key_type: str = "text"
    """Base type of the tenant key."""
    user_type: str = "text"
    registry: int | None = None
    principal_columns: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Relation OID → columns that policies compare with the acting user."""
    attributes: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """Relation OID → columns that policies compare with other context (a region, say), and the value it is given."""
    key_values: tuple[str, ...] = ()
    """Tenant keys that the schema names (list partitions, say) or whose comparison it gets wrong; seeding uses these."""
    context: Context = Context()
    seeding: Seeding = field(default_factory=Seeding)
    roles: tuple[ApplicationRole, ...] = ()
    unmet: tuple[ApplicationRole, ...] = ()
    """Of more kinds of application roles than are tested, one of each that is left."""
    notes: tuple[str, ...] = ()

    def of(self, relation: int) -> Classified:
        """Raises KeyError for a relation out of scope; every relation of the catalog is in it."""
        return self.relations[relation]

    def tenant_data(self) -> tuple[int, ...]:
        """OIDs of the relations whose rows belong to tenants, in catalog order."""
        return self._tenant_data

    @cached_property
    def _tenant_data(self) -> tuple[int, ...]:
        return tuple(oid for oid, classified in self.relations.items() if classified.tenant_data)
