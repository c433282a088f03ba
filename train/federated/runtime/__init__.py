"""Ways to run the two apps: one process, Ray, several machines. No learning in here."""
