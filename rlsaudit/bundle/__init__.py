"""The files of runs as evidence: sealed when they are written, verified later, told of over a period."""
