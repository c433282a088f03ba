"""Measurements of the app as users run it."""
