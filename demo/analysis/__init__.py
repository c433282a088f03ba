"""Analyses as data: readings, attacks, explanations. No HTML, no Gradio."""
