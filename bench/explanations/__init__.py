"""Explanations against tumour masks: pointing, Dice, energy, deletion; clean and under attack."""
