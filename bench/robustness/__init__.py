"""Accuracy under attack: systems, attack suite, the one loop that attacks and counts."""
