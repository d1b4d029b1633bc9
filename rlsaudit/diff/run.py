"""From two SOURCEs to a Difference: both are read and proven, and only what changed is attacked."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from rlsaudit.assemble import assemble
from rlsaudit.cells import doubts_of, ordinary_sessions, proofs_of
from rlsaudit.check import run_checks
from rlsaudit.clock import Clock
from rlsaudit.collecting import without_collecting
from rlsaudit.diff import recorded
from rlsaudit.diff.change import Change, Difference, Level, Verdict, order
from rlsaudit.diff.compare import Looked, differences
from rlsaudit.diff.focus import confined, objects, on_base
from rlsaudit.diff.objects import changes
from rlsaudit.diff.places import added, placed
from rlsaudit.diff.read import Read, alike, located, read, told_by
from rlsaudit.diff.recorded import is_evidence
from rlsaudit.errors import NotTrustworthy, RlsauditError
from rlsaudit.opening import open_source, require_subject
from rlsaudit.options import Options, Progress
from rlsaudit.pieces import Pieces
from rlsaudit.probe.attacks.sweep import Focus
from rlsaudit.probe.result import ProbeResult
from rlsaudit.prove.prove import prove
from rlsaudit.scan import attacked, pieces_of
from rlsaudit.source import dsn


def compared(base: str, head: str, options: Options, progress: Progress, *, fail_on: Level) -> Difference:
    """What changed in isolation from ``base`` to ``head``, each a SOURCE or ``git:REF:path``.

    ``options.probing`` False leaves it to the catalog and the prover.  Raises UsageError and NotTrustworthy as a scan
    does, with the side that they are about.
    """
    run = _Run(options, progress, fail_on)
    if is_evidence(base) or is_evidence(head):
        return run.recorded(base, head)
    with ExitStack() as stack:
        sources = [
            stack.enter_context(located(name, given, options)) for name, given in (("BASE", base), ("HEAD", head))
        ]
        if alike(*sources):
            return run.judged(base, head, (), notes=("Both sides are the same files, so nothing was loaded.",))
        with run.clock.timed("load"), without_collecting():
            old, new = [stack.enter_context(read(source, progress)) for source in sources]
            new = told_by(old, new)
        return run.difference(old, new)


class _Run:
    def __init__(self, options: Options, progress: Progress, fail_on: Level) -> None:
        self.options, self.progress, self.fail_on = options, progress, fail_on
        self.clock = Clock()

    def difference(self, old: Read, new: Read) -> Difference:
        try:
            require_subject(new.opened)
        except RlsauditError as error:
            raise type(error)(f"HEAD: {error}") from error
        with self.clock.timed("compare"):
            found = changes(old.side, new.side)
        was, now = self._pieces(old, new), self._pieces(new, old)
        focus = confined(new.side, found, now.proofs)
        probed, said = self._attacked(new, now, focus)
        now = replace(now, probed=probed)
        report = assemble(now)
        again = on_base(report, found, old.side, proofs_of(was)) if probed is not None else None
        then, unable = self._attacked(old, was, again)
        was = replace(was, probed=then)
        looked = (
            self._looked(old, was, again if then else None),
            self._looked(new, now, focus if probed else None),
        )
        with self.clock.timed("judge"):
            lines = added({name: text for name, (_, text) in old.files.items()}, new.files)
            told = [placed(one, new.opened.places, lines) for one in differences(*looked, found)]
        notes = [said] if said else []
        if again is not None and then is None:
            notes.append(f"BASE was not attacked ({unable}), so a leak of HEAD counts as new.")
        reached = {name for kind, name in found.affected if kind == "relation"}
        return self.judged(
            old.given, new.given, tuple(told),
            distrust=report.reasons if report.verdict == "not trustworthy" else _unknown(was),
            probed=tuple(sorted(name for _, name in looked[1].probed)),
            unchanged=sum(new.side.tenant_data(name) and name not in reached for name in new.side.relations),
            statements=probed.statements if probed else 0,
            notes=(*notes, *(f"HEAD: {note}" for note in new.opened.notes)),
        )  # fmt: skip

    def _pieces(self, one: Read, other: Read) -> Pieces:
        opened = one.opened
        live = one.kind == "dsn" and other.kind == "dsn"
        with self.clock.timed(f"audit {one.name}"), without_collecting():
            self.progress(f"auditing {one.name}", 0, 1)
            findings = run_checks(opened.catalog, opened.tenancy, live=live) if opened.catalog.relations else ()
        with self.clock.timed(f"prove {one.name}"):
            self.progress(f"proving policies of {one.name}", 0, 1)
            proofs = prove(opened.catalog, opened.tenancy, one.side.visibility)
        options = replace(self.options, source=one.given, waivers=self.options.waivers if one.name == "HEAD" else ())
        return pieces_of(opened, options, self.clock, findings, proofs, None)

    def _attacked(self, one: Read, pieces: Pieces, focus: Focus | None) -> tuple[ProbeResult | None, str]:
        """What the probe found of what is in focus, or why it did not run."""
        if focus is None:
            return (
                None,
                "Nothing that bears on isolation changed, so nothing was attacked." if one.name == "HEAD" else "",
            )
        if not self.options.probing:
            return None, "Nothing was attacked: --no-probe."
        if one.kind == "snapshot" or (one.opened.server is None and one.kind != "dsn"):
            return None, f"{one.name} is a snapshot, of which there is no copy to attack."
        with ExitStack() as stack, self.clock.timed(f"probe {one.name}"):
            opened = one.opened
            if opened.server is None:
                opened = stack.enter_context(open_source(replace(one.options, probing=True), self.progress))
            doubts = doubts_of(pieces.catalog, pieces.tenancy, pieces.proofs)
            probed = attacked(opened, self.options, doubts, self.progress, focus)
            return probed, "" if probed is not None else f"{one.name} has no copy to attack."

    def _looked(self, one: Read, pieces: Pieces, focus: Focus | None) -> Looked:
        report = assemble(pieces)
        probed = objects(focus) if focus is not None else frozenset()
        return Looked(one.side, report, proofs_of(pieces), ordinary_sessions(pieces), probed)

    def recorded(self, base: str, head: str) -> Difference:
        """Two records of runs, as they are."""
        before, report = recorded.reports(base, head)
        told = sorted(recorded.changes(before, report), key=order)
        distrust = report.reasons if report.verdict == "not trustworthy" else ()
        notes = ("Two records were compared: nothing was loaded, proven or attacked.",)
        return self.judged(base, head, tuple(told), distrust=distrust, notes=notes)

    def judged(
        self, base: str, head: str, told: tuple[Change, ...], *, distrust: tuple[str, ...] = (),
        probed: tuple[str, ...] = (), unchanged: int = 0, statements: int = 0, notes: tuple[str, ...] = (),
    ) -> Difference:  # fmt: skip
        """The verdict on the changes, which come worst first."""
        verdict: Verdict = "SAFE"
        if distrust:
            verdict = "NOT TRUSTWORTHY"
        elif told and told[0].level != "note":
            verdict = "DANGEROUS" if told[0].level == "dangerous" else "REVIEW"
        failing = verdict == "DANGEROUS" or (verdict == "REVIEW" and self.fail_on == "review")
        return Difference(
            verdict=verdict,
            exit_code=NotTrustworthy.exit_code if distrust else 1 if failing else 0,
            sentence=_sentence(verdict, told, distrust, bool(probed)),
            base=dsn.redact(base),
            head=dsn.redact(head),
            changes=told,
            distrust=distrust,
            probed=probed,
            unchanged=unchanged,
            statements=statements,
            notes=notes,
            seconds=round(self.clock.seconds, 3),
            phases=tuple(self.clock.phases),
        )


def _unknown(base: Pieces) -> tuple[str, ...]:
    """Why nobody can tell what is new."""
    return ("The attack on BASE ended early, so what is new in HEAD cannot be told.",) if base.interrupted else ()


def _sentence(verdict: Verdict, told: tuple[Change, ...], distrust: tuple[str, ...], attacked: bool) -> str:
    if verdict == "NOT TRUSTWORTHY":
        return f"No verdict: {distrust[0]}"
    if not told and not attacked:
        return "Nothing that bears on isolation changed"
    bad = [one for one in told if one.level == "dangerous"]
    open_ = [one for one in told if one.level == "review"]
    if bad:
        return f"HEAD opens what BASE kept apart: {bad[0].title} ({bad[0].object}){f' and {len(bad) - 1} more' * (len(bad) > 1)}"
    if open_:
        return f"{len(open_)} change{'s' * (len(open_) > 1)} that nothing shows to be open, and nothing proves closed"
    return "What changed is proven or known to be as closed as it was"
