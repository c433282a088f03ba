"""File inputs that take what a visitor uploads, and nothing from elsewhere.

Gradio's own fetch any address that a request names instead of an upload, before our code sees it:
a visitor could make the server call machines that only it can reach.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import is_http_url_like  # its own rule of what is fetched

FOREIGN = "Files are taken from your own machine: addresses are not fetched."


def _refuse(path: str | Path | None) -> None:
    if path is not None and is_http_url_like(str(path)):
        raise gr.Error(FOREIGN)


class LocalFile(gr.File):
    """`gr.File` that fetches nothing."""

    is_template = True  # drawn as its parent is

    async def async_move_resource_to_block_cache(self, url_or_file_path: Any) -> str | None:
        """Raises `gr.Error` for an address."""
        _refuse(url_or_file_path)
        return await super().async_move_resource_to_block_cache(url_or_file_path)


class LocalUploadButton(gr.UploadButton):
    """`gr.UploadButton` that fetches nothing."""

    is_template = True

    async def async_move_resource_to_block_cache(self, url_or_file_path: Any) -> str | None:
        """Raises `gr.Error` for an address."""
        _refuse(url_or_file_path)
        return await super().async_move_resource_to_block_cache(url_or_file_path)
