"""No downloads of addresses that a visitor sends (server-side request forgery).

Gradio downloads any address that a request gives in place of a file, for every kind of input and
before our code sees it.
"""

from __future__ import annotations

from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils

REFUSAL = "Send the file itself: addresses are not downloaded."


async def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise gr.Error(REFUSAL, print_exception=False)


def disable_remote_fetch() -> None:
    """Disable Gradio's URL downloads for this process."""
    processing_utils.async_ssrf_protected_get = _refuse
    processing_utils.async_ssrf_protected_download = _refuse
