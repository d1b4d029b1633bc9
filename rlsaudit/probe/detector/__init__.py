"""Is the probe able to see?  Leaks of our own making, which the attacks must find."""
