"""What names suggest.  Only a hint, used where policies and constraints are silent, and always said in the reason."""

from __future__ import annotations

import re
from functools import lru_cache

_PREFIX = re.compile(r"^(p|in|arg|new|current|cur|my|the|x|app|a|v)_+")
_TENANT = re.compile(
    r"^(?:\w+_)?(tenant|org|organi[sz]ation|account|acct|customer|company|workspace|team|client|merchant|shop|store|site|realm"
    r"|business|firm|school|clinic|partner|vendor|agency|studio|household)_?(id|uuid|uid|key|code|slug|no|number|ref|name)?$"
)
_USER = re.compile(
    r"^(?:\w+_)?(user|owner|author|creator|member|person|employee|manager|profile|actor|subject|principal|staff|agent"
    r"|assignee|rep|sender|uploader)_?(id|uuid|uid|key|name|ref)?$|^(sub|uid|created_?by|updated_?by|assigned_?to|owned_?by)$"
)
_ROLE = re.compile(
    r"(^|_)(role|roles|is_admin|admin|scope|permission|level|mode|bypass\w*|superuser|internal|feature)$"
)
_SWITCH = re.compile(
    r"(^|_)(is_\w*admin|admin|bypass\w*|superuser|internal|\w*rls\w*|god\w*|maintenance|service|system|sudo|unrestricted)(_mode)?$"
)
_INFRASTRUCTURE = re.compile(
    r"^(alembic_version|schema_migrations?|_?prisma_migrations|flyway_schema_history|databasechangelog(lock)?|goose_db_version"
    r"|django_migrations|django_content_type|ar_internal_metadata|knex_migrations(_lock)?|__drizzle_migrations|_sqlx_migrations"
    r"|typeorm_metadata|migrations?|schema_version|dbmate_migrations|atlas_schema_revisions|spatial_ref_sys)$"
)

_PASSING = re.compile(
    r"(^|_)(logs?|logging|events?|audits?|audit_trail|trails?|history|histories|queues?|jobs?|outbox|inbox|messages?|metrics?|traces?|stats"
    r"|sessions?|caches?|locks?|leases?|rate_limits?|limits|attempts?|idempotency(_keys?)?|deliveries|webhooks?|notifications?|tasks?"
    r"|runs?|executions?|heartbeats?|workers?|schedules?|dead_letters?|changes|changelog|staging|imports?)(_|$)"
)

_SECRET = re.compile(
    r"token|hash|digest|checksum|secret|nonce|signature|fingerprint|(api|access|license|private|public)_?key"
    r"|(^|_)(uuid|guid|ulid|cuid|nanoid|ksuid)($|_)"
)
_GIVEN = re.compile(
    r"(stripe|paddle|paypal|github|gitlab|google|slack|auth0|clerk|shopify|twilio|sendgrid|mailgun|external|provider"
    r"|remote|upstream|thirdparty|third_party|vendor|subscription|message|event|request|session|idempotency|correlation"
    r"|webhook|charge|payment|transaction|checkout|invoice_pdf|object|file|storage|s3|device)_?(\w+_)?(id|key|ref|uid|path)$"
)


def _bare(name: str) -> str:
    """The last part of a dotted setting or a column, without decoration, in snake case."""
    last = name.rpartition(".")[2]
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last).lower()
    previous = ""
    while snake != previous:
        previous, snake = snake, _PREFIX.sub("", snake)
    return snake


@lru_cache(maxsize=65536)
def tenant_like(name: str) -> bool:
    return bool(_TENANT.match(_bare(name)))


@lru_cache(maxsize=65536)
def user_like(name: str) -> bool:
    return bool(_USER.match(_bare(name)))


def own_id(relation: str, column: str, *, primary: bool = False) -> bool:
    """An identifier that the application numbers itself: ``id``, or ``invoice_id`` of ``invoices``; as the primary key
    also ``event_id`` of ``billing_events``."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column).lower()
    stem = re.sub(r"_?(id|uid|pk)$", "", name)
    at = relation.lower().find(stem.removesuffix("y"))
    return stem != name and (at >= 0 if primary else at == 0)


def unguessable(relation: str, column: str) -> bool:
    """Of a text: a token, a hash, a key to something, an identifier that is made at random."""
    if column.lower() == "key":
        return bool(re.search(r"key|token|secret|credential", relation.lower()))
    return bool(_SECRET.search(column.lower()))


def given(column: str) -> bool:
    """Of a text: an identifier that another service gave."""
    return bool(_GIVEN.search(column.lower()))


def role_like(name: str) -> bool:
    return bool(_ROLE.search(_bare(name)))


def switch_like(name: str) -> bool:
    """What is on or off, and lifts a restriction when it is on."""
    return bool(_SWITCH.search(_bare(name)))


def infrastructure(name: str) -> bool:
    """Tables of migration tools and the like."""
    return bool(_INFRASTRUCTURE.match(name.lower()))


def passing(name: str) -> bool:
    """Tables that rows pass through: they are written by everybody because that is what they are for."""
    return bool(_PASSING.search(name.lower()))


def stem(column: str) -> str:
    """``tenant_id`` → ``tenant``: what a key column is the key of."""
    return re.sub(r"_?(id|uuid|uid|key|code|slug|no|number|ref)$", "", _bare(column))
