"""Five ways to build a multi-tenant schema, each as usually written and hardened, as ordinary SQL files."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

__all__ = ["Demo", "demos", "path"]


@dataclass(frozen=True)
class Demo:
    """One schema file.  ``number`` and ``title`` are the architecture's and shared by the two files of it."""

    number: int
    name: str
    """File name without number and ending: ``org_id_hardened``."""
    title: str
    hardened: bool
    filename: str
    flaws: tuple[str, ...] = ()
    """What the file really gets wrong, each seen by executing it; empty for a hardened file."""


def demos() -> tuple[Demo, ...]:
    """All ten files, by architecture, the one as usually written first."""
    return tuple(
        Demo(
            number=number,
            name=f"{stem}_{state}",
            title=title,
            hardened=hardened,
            filename=f"{number}_{stem}_{state}.sql",
            flaws=() if hardened else flaws,
        )
        for number, stem, title, flaws in _ARCHITECTURES
        for state, hardened in (("as_written", False), ("hardened", True))
    )


def path(demo: Demo) -> Path:
    """Where the file lies; wheels are installed unpacked, so it is always a real file."""
    return Path(str(files(__name__).joinpath(demo.filename)))


_ARCHITECTURES: tuple[tuple[int, str, str, tuple[str, ...]], ...] = (
    (
        1,
        "customer_id",
        "customerId text, SET LOCAL, inserts guarded by triggers, table partitioned by the key",
        (
            "order_lines: INSERT is WITH CHECK (true) and the trigger fills the customer only when it is "
            "NULL, so a line can be written into another customer's data.",
            "orders: WITH CHECK (true) and a trigger that fires on INSERT only, so UPDATE orders SET "
            "customerId = … without WHERE moves orders to another customer.",
            "shipment_events: the partitions are granted by GRANT … ON ALL TABLES and have no row "
            "security of their own, so naming a partition reads and writes every customer's events.",
            "return_requests: the application role owns the table and row security is not forced, so no "
            "policy binds it at all.",
            "revenue_by_customer: the view runs with the rights of the tables' owner, whom row security "
            "does not bind, so it shows the revenue of every customer.",
            "Order numbers and primary keys are unique across customers and foreign keys ignore the "
            "customer: an error tells that a foreign value exists, and a line can refer to another "
            "customer's order.",
        ),
    ),
    (
        2,
        "org_id",
        "org_id uuid, set_rls_context(org, user), FOR ALL USING",
        (
            "document_attachments: row security was never enabled, so every organization's files can be "
            "read, changed, deleted and added to.",
            "set_rls_context sets its settings for the whole session, so the organization survives COMMIT"
            " and meets the next request on a pooled connection.",
            "documents: OR current_setting(…) IS NULL opens every organization's documents to a "
            "connection that has set no context yet.",
            "search_documents is SECURITY DEFINER, does not filter by organization, and row security is "
            "not forced on its owner, so it searches all documents.",
            "write_audit_log is SECURITY DEFINER without a fixed search_path: a temporary table audit_log"
            " with a trigger runs the caller's code with the owner's rights, which no policy binds.",
            "Addresses, slugs and primary keys are unique across organizations and foreign keys ignore "
            "the organization: an error tells that a foreign value exists, and a document can refer to "
            "another organization's project.",
        ),
    ),
    (
        3,
        "tenant_messages",
        "tenant_id integer, CASE WHEN … IS NULL THEN false, several policies ORed, FORCE optional",
        (
            "conversations: the policy for shared conversations does not compare the tenant, so every "
            "tenant reads every shared conversation, without any context too.",
            "messages: the policy for messages of shared conversations inherits that door, so their "
            "messages can be read by every tenant.",
            "messages: own_messages compares the author only, so a user writes or moves messages into any tenant.",
            "count_message is SECURITY DEFINER and trusts the conversation of the new row, so a message "
            "of one tenant changes a conversation of another.",
            "tenants has row security without a policy, so the application reads it by tenant_profile, a "
            "SECURITY DEFINER function that returns any tenant's row, API key included, to whoever names "
            "the number.",
            "inbox: without FORCE the view's owner is not bound by any policy, so it lists every tenant's"
            " conversations.",
            "GRANT ALL includes TRUNCATE, which row security does not filter and which empties every "
            "tenant's rows, and TRIGGER, which lets the application role run code in the other tenants' "
            "statements.",
            "Addresses and primary keys are unique across tenants and foreign keys ignore the tenant: an "
            "error tells that a foreign value exists, and a message can be attached to another tenant's "
            "conversation.",
            "The comparison inside CASE cannot use an index, so the policies read whole tables, and the "
            "empty setting that SET LOCAL leaves behind makes every statement fail instead of returning "
            "no rows.",
        ),
    ),
    (
        4,
        "pooled_session",
        "tenant_id integer, session-level context on a pooled connection",
        (
            "set_tenant sets the tenant for the whole session, so it survives COMMIT and the return to "
            "the pool, and a request that sets none acts for the tenant before it.",
            "set_tenant(NULL) returns without clearing, so a request without a tenant keeps that of the "
            "request before it.",
            "time_entries: DELETE is USING (true) in the belief that the SELECT policy limits it, but "
            "DELETE without WHERE reads no column and removes every tenant's entries.",
            "monthly_hours is a materialized view, to which row security does not apply, so it shows "
            "every tenant's hours and amounts after a refresh.",
            "References and primary keys are unique across tenants and foreign keys ignore the tenant: an"
            " error tells that a foreign value exists, and a ticket can be assigned to another tenant's "
            "technician.",
        ),
    ),
    (
        5,
        "sales_hierarchy",
        "tenant_id uuid, Alembic, shared knowledge base, tenant, role and sales hierarchy",
        (
            "kb_articles: FOR ALL USING (tenant_id IS NULL OR …) lets every tenant, and a session without"
            " one, change, delete, capture and publish the articles that all tenants share.",
            "deals: the branch for the role admin does not compare the tenant, so an administrator of one"
            " tenant reads, changes, deletes and adds deals of all.",
            "deals: the branch for managers does not compare the tenant, so a manager writes deals into "
            "another tenant or moves them there.",
            "team_of is SECURITY DEFINER, forgets the tenant and trusts its argument, and row security is"
            " not forced, so it lists the people below any manager of any tenant; the managers' policy "
            "then shows their deals.",
            "Addresses and primary keys are unique across tenants and foreign keys ignore the tenant: an "
            "error tells that a foreign value exists, and a user can be put below another tenant's "
            "manager, who then sees the user's deals.",
        ),
    ),
)
