"""Plans that read a whole tenant table: made by ``rlsaudit audit --plans``, not by reading the catalog."""

from collections.abc import Iterable

from rlsaudit.check import Hit, Subject, check


@check(
    "RLS608",
    title="The plan does not use the index on the tenant key",
    severity="low",
    rationale="The policy is part of every query; what its plan costs, every query of every tenant pays.",
    standards=("ISO 27001 A.8.6", "NIST 800-53 SC-5", "CWE-405"),
    covers=(
        "Only with rlsaudit audit --plans: commands of application roles whose plan, on a copy that the planner takes for"
        " a large database, reads a table whole although an index on its tenant key is there.",
    ),
)
def plan_without_index(subject: Subject) -> Iterable[Hit]:
    """Nothing: the catalog alone does not tell, see ``rlsaudit.probe.planner.plans``."""
    return ()
