"""Error of a data folder."""


class DataError(ValueError):
    """A data folder that is missing, empty, lacks a class, or does not match a manifest."""
