"""From what was tried to verdicts and findings."""
