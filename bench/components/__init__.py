"""Measurements of single parts of the system, each with its command and table."""
