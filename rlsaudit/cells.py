"""Cells of the report: what the probe tried, and what proofs add to it or take from it.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.doubt import CellName, Doubt, Settled
from rlsaudit.finding import Cell
from rlsaudit.pieces import Pieces
from rlsaudit.prove.prove import Proof
from rlsaudit.tenancy.model import Tenancy

AUDIT_LIMIT = "Audit only: nothing was executed, so every cell without a proof is not covered."


def cells_of(
    pieces: Pieces, proofs: Mapping[CellName, Proof], doors: Mapping[tuple[str, str], str]
) -> tuple[Cell, ...]:
    """Every cell, proofs taken in; ``doors`` are the leaks that go around a relation's policies, by relation and role."""
    ordinary = ordinary_sessions(pieces)
    found = (*(pieces.probed.cells if pieces.probed else _unprobed(pieces)), *_unmet(pieces))
    settled = pieces.probed.settled if pieces.probed else {}
    return tuple(_with_proof(cell, proofs, doors, ordinary, settled) for cell in found)


def proofs_of(pieces: Pieces) -> dict[CellName, Proof]:
    names = {role.oid: role.name for role in pieces.tenancy.roles}
    return {(pieces.catalog.relation(p.relation).qualified, names[p.role], p.command): p for p in pieces.proofs}


def doubts_of(catalog: Catalog, tenancy: Tenancy, proofs: Iterable[Proof]) -> tuple[Doubt, ...]:
    """What is not proven, for the probe, which may have another catalog: relations by name."""
    names = {role.oid: role.name for role in tenancy.roles}
    found = []
    for proof in proofs:
        if proof.verdict != "proven":
            doubt = Doubt(catalog.relation(proof.relation).qualified, names[proof.role], proof.command, proof.reason)
            witness = proof.witness
            if witness is not None:
                rows = ((label, oid or proof.relation, columns) for label, oid, columns in witness.rows)
                named = tuple((label, catalog.relation(oid).qualified, columns) for label, oid, columns in rows)
                doubt = replace(doubt, rows=named, settings=witness.settings, state=witness.state)
            found.append(doubt)
    return tuple(found)


def ordinary_sessions(pieces: Pieces) -> Callable[[Proof], bool]:
    """Whether the session of a witness is one that the tenants have: its settings are those of ordinary personas.

    What is open without a context needs no such session, and every relation was tried without one.
    """
    personas = [persona for persona in pieces.tenancy.context.personas if not persona.opening]
    statements = " ".join(statement for persona in personas for statement in persona.statements)
    opening = [s for persona in pieces.tenancy.context.personas if persona.opening for s in persona.statements]

    def ordinary(proof: Proof) -> bool:
        witness = proof.witness
        if witness is None:
            return True
        if witness.state != "any":
            return False
        given = [(name, value) for name, value in witness.settings if value]
        opened = any(name in statement and f"'{value}'" in statement for name, value in given for statement in opening)
        return not opened and all(name in statements for name, _ in given)

    return ordinary


def _with_proof(
    cell: Cell,
    proofs: Mapping[CellName, Proof],
    doors: Mapping[tuple[str, str], str],
    ordinary: Callable[[Proof], bool],
    settled: Mapping[CellName, Settled],
) -> Cell:
    """A proof lifts a cell that held, and alone it covers a cell that was not probed; it never hides a leak or a gap.

    Policies that are refuted hold nothing, whatever the probe did not see.  Where a leak goes around the policies, a
    proof about them is no proof about the rows.
    """
    proof = proofs.get((cell.relation, cell.role, cell.command))
    tried = settled.get((cell.relation, cell.role, cell.command))
    if proof is None or cell.state not in ("held", "not covered"):
        return cell
    if proof.verdict == "proven" and (around := doors.get((cell.relation, cell.role))):
        return replace(cell, reason=f"{cell.reason}; proven of the policies, which {around} goes around")
    if proof.verdict == "proven" and (cell.state == "held" or cell.reason == AUDIT_LIMIT):
        return replace(
            cell,
            state="proven",
            reason=f"{proof.reason}; {proof.goal}" + (f"; probe: {cell.reason}" if cell.trials else ""),
        )
    if proof.verdict == "unknown" and cell.state == "held":
        return replace(cell, reason=f"{cell.reason}; no proof: {proof.reason}" + (f"; {tried.said}" if tried else ""))
    if proof.verdict == "refuted" and cell.state == "held":
        if not ordinary(proof) or (tried is not None and tried.opened):
            return replace(cell, reason=f"{cell.reason}; not for every session that can be thought of: {proof.reason}")
        said = tried.said if tried is not None else cell.reason
        reason = f"the policies admit rows of two tenants ({proof.reason}), which the probe did not bring about: {said}"
        return replace(cell, state="not covered", reason=reason)
    return cell


def _unprobed(pieces: Pieces) -> Iterator[Cell]:
    visibility = visibility_of(pieces.catalog)
    for relation in pieces.catalog.relations:
        if relation.kind == "sequence" or relation.extension is not None:
            continue
        tenant = pieces.tenancy.of(relation.oid).tenant_data
        for role in pieces.tenancy.roles:
            for command in COMMANDS:
                if not visibility.may(role.oid, relation, command):
                    yield Cell(relation.qualified, role.name, command, "no privilege")
                elif tenant:
                    yield Cell(relation.qualified, role.name, command, "not covered", 0, AUDIT_LIMIT)


_KINDS = "there are more kinds of roles than are tested by themselves; name them with --role"
_ALONE = "each tenant logs in as a role of its own, and it may do other things than the one that was tested; name it alone with --role"


def _unmet(pieces: Pieces) -> Iterator[Cell]:
    """Where roles of kinds that were not tested may act: a cell of the first of them."""
    visibility, roles = visibility_of(pieces.catalog), pieces.tenancy.unmet
    for oid in pieces.tenancy.tenant_data() if roles else ():
        relation = pieces.catalog.relation(oid)
        for command in COMMANDS if relation.extension is None else ():
            able = [role.name for role in roles if visibility.may(role.oid, relation, command)]
            if able:
                said = f"role {able[0]} was not tested" + (
                    f", nor were {len(able) - 1} of other kinds" * (len(able) > 1)
                )
                reason = f"{said}: {_ALONE if pieces.tenancy.context.login else _KINDS}"
                yield Cell(relation.qualified, able[0], command, "not covered", 0, reason)
