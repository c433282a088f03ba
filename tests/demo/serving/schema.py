"""Schemas in the descriptions of endpoints, compared with their answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

TYPES = {
    "number": (int, float), "number or null": (int, float, type(None)), "integer": int,
    "integer or null": (int, type(None)),
    "boolean": bool, "boolean or null": (bool, type(None)), "string": str,
    "object": dict, "array": list | tuple,
}  # fmt: skip


def list_keys(description: str) -> dict[str, str]:
    """Return the schema in an endpoint's description: key to type."""
    return dict(re.findall(r"^- (\w+) \(([\w ]+)\): ", description, re.MULTILINE))


def check_schema(answer: Mapping[str, Any], schema: Mapping[str, str]) -> None:
    """Check that an answer has exactly the keys of a schema, with their types, also as JSON."""
    assert sorted(answer) == sorted(schema)
    for key, kind in schema.items():
        assert isinstance(answer[key], TYPES[kind]), key  # type: ignore[arg-type]
        is_bool = isinstance(answer[key], bool)
        assert is_bool == kind.startswith("boolean") or answer[key] is None, key
    assert json.loads(json.dumps(answer)).keys() == answer.keys()
