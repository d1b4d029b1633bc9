"""A leak as a script that anyone can run, and the fewest rows that it takes."""
