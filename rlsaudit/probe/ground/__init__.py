"""What the probe stands on: the seeded world, whose row is whose, one session, and what a leak is."""
