"""Arguments of `Blocks.launch`: theme, styles, limits, security."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from core.scan import MAX_VOLUME_BYTES
from demo.serving.middleware import SecurityMiddleware

# one for all tabs and one for each, in the order of file names
STYLESHEETS = sorted(Path(__file__).parents[1].rglob("*.css"), key=lambda path: path.name)
FONT = ["ui-sans-serif", "system-ui", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
# Dark unless the address says ?__theme=light. Gradio runs this only after drawing its background,
# so that is dark in both (see `build_theme`) and made light by a class: nothing flashes white.
HEAD = """
<meta name="referrer" content="no-referrer">
<script>
  const address = new URL(window.location);
  const light = address.searchParams.get("__theme") === "light";
  address.searchParams.set("__theme", light ? "light" : "dark");
  history.replaceState(history.state, "", address);
  document.body.classList.toggle("dark", !light);
  document.documentElement.classList.toggle("mf-light", light);
</script>
"""


def build_theme() -> gr.themes.Base:
    """Return a blue-grey theme whose text has a contrast of 4.5 or more in dark and light."""
    return gr.themes.Base(
        primary_hue="teal",
        secondary_hue="sky",
        neutral_hue="slate",
        spacing_size="sm",
        radius_size="sm",
        text_size="sm",
        font=FONT,
        font_mono=MONO,
    ).set(
        body_background_fill="#0d1117",
        body_background_fill_dark="#0d1117",
        block_background_fill="#ffffff",
        block_background_fill_dark="#141a22",
        block_border_color="#ccd4dc",
        block_border_color_dark="#252e39",
        block_label_text_color="#3b4754",
        block_label_text_color_dark="#aab6c3",
        block_title_text_color="#3b4754",
        block_title_text_color_dark="#aab6c3",
        block_info_text_color="#4a5663",
        block_info_text_color_dark="#9aa7b4",
        body_text_color="#1b232c",
        body_text_color_dark="#dfe6ed",
        body_text_color_subdued="#4a5663",
        body_text_color_subdued_dark="#9aa7b4",
        input_background_fill_dark="#0d1117",
        input_border_color_dark="#323d4a",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_dark="#0f766e",
        button_primary_background_fill_hover_dark="#115e59",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
    )


def build_launch_settings(on_a_space: bool = False) -> dict[str, Any]:
    """Return the keyword arguments of `Blocks.launch`."""
    return {
        "app_kwargs": {"middleware": [Middleware(SecurityMiddleware, on_a_space=on_a_space)]},
        "theme": build_theme(),
        "css": "\n".join(path.read_text(encoding="utf-8") for path in STYLESHEETS),
        "head": HEAD,
        "max_file_size": MAX_VOLUME_BYTES,  # core has a lower limit for pictures
        "run_history": False,
        "footer_links": ["api"],
        "ssr_mode": False,
        "share": False,
        "enable_monitoring": False,
    }
