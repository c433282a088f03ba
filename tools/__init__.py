"""Commands of the maintainers that may import every package; nothing imports them."""
