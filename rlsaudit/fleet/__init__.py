"""Many databases in one run: targets, the work on each, and one result of all."""
