"""Measurements of the app: response times, load, the page in a browser."""
