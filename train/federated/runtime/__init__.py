"""Runtimes of the two apps: one process, Ray, several machines. No learning, no aggregation."""
