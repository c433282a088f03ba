"""File inputs that take what a visitor uploads, and nothing from elsewhere.

Gradio fetches any address that a request names instead of an upload, before our code sees it: a
visitor could make the server call machines that only it can reach.
"""

from __future__ import annotations

from typing import Any, TypeVar

import gradio as gr
from gradio.components import Component
from gradio_client.utils import is_http_url_like  # its own rule of what is fetched

FOREIGN = "Files are taken from your own machine: addresses are not fetched."
T = TypeVar("T", bound=Component)


def local(component: T) -> T:
    """The same component, from now on with `gr.Error` for an address.

    A subclass would do, but Gradio writes a file beside the code of each subclass.
    """
    move = component.async_move_resource_to_block_cache

    async def checked(path: Any) -> str | None:
        if path is not None and is_http_url_like(str(path)):
            raise gr.Error(FOREIGN)
        return await move(path)

    setattr(component, move.__name__, checked)
    return component
