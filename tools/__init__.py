"""Commands run by hand: they build the Space, the examples and the figures."""
