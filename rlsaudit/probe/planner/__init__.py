"""How the planner reads tenant tables under their policies."""
