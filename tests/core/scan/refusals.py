"""Requirements on every sentence that refuses a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.scan import ScanError


def get_refusal(read: Callable[[Any], object], source: Any) -> str:
    """Return the sentence with which `read` refuses `source`; check its form."""
    with pytest.raises(ScanError) as caught:
        read(source)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert "Error" not in message
    return message
