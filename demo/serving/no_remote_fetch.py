"""The server fetches nothing that a visitor names.

Gradio downloads any address that a request gives in place of a file, for every kind of input and
before our code sees it: a visitor could make the server call others for them.
"""

from __future__ import annotations

from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils

FOREIGN = "Files are taken from your own machine: addresses are not fetched."


async def refuse(*_: Any, **__: Any) -> NoReturn:
    """In place of each of Gradio's ways to fetch an address."""
    raise gr.Error(FOREIGN, print_exception=False)


def disable_remote_fetch() -> None:
    """From now on, for this process."""
    processing_utils.async_ssrf_protected_get = refuse
    processing_utils.async_ssrf_protected_download = refuse
