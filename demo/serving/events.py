"""Settings of Gradio events: hidden from the public API, one computation at a time."""

from __future__ import annotations

from typing import Any

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
ON_CPU: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "cpu"}
