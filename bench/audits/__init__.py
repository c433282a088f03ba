"""Audits of the federation: what leaves a hospital, and what an attacker learns from it."""
