"""The prover: decides each policy with an SMT solver, from the expression tree that the planner sees."""
