"""Audit of the labels: scans that cross-validation disputes, and odd pictures and files."""
