"""Answers that are refused where a small change flips them, and attacks that know it."""
