"""What changed in isolation between two states of a schema."""
