"""Command line of the page, on a desktop or a Hugging Face Space.

python app.py                 # http://127.0.0.1:7860
python app.py --host 0.0.0.0  # reachable from other machines on the network
python app.py --mcp           # also tools for language models
"""

from __future__ import annotations

import argparse
import getpass
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from demo.serving import zero_gpu
from demo.serving.private_folder import PrivateFolder

if TYPE_CHECKING:
    import gradio as gr

IS_SPACE = "SPACE_ID" in os.environ
PASSWORD_VARIABLE = "MEDFEDPURE_PASSWORD"
AUTH_MESSAGE = "MedFedPure. Research and teaching only, not for clinical use."
AUTH_WITH_MCP = "--auth and --mcp exclude each other: MCP has no password check"
MCP_MISSING = "--mcp needs the package mcp: pip install -c requirements.txt '.[app,mcp]'"


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="Open a page that classifies brain MRI slices, attacks and defends them. "
        "Research and teaching only, not for clinical use.",
        epilog="Scans stay on this machine: uploads are decoded in memory and deleted at once.",
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="address to listen on (default: 127.0.0.1, this machine only; 0.0.0.0: all networks)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        help="port to listen on (default: 7860)",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser window")
    parser.add_argument(
        "--auth",
        metavar="USER",
        help="ask visitors for this name and a password (set in the environment variable "
        f"{PASSWORD_VARIABLE}, or typed here)",
    )
    parser.add_argument(
        "--mcp",
        action="store_true",
        help="also offer the endpoints to language models (MCP; needs the extra 'mcp')",
    )
    args = parser.parse_args(argv)
    if args.mcp and importlib.util.find_spec("mcp") is None:
        parser.error(MCP_MISSING)
    if args.auth and args.mcp:
        parser.error(AUTH_WITH_MCP)
    if args.auth:
        password = os.environ.get(PASSWORD_VARIABLE) or getpass.getpass(
            f"Password for {args.auth}: "
        )
        if not password:
            parser.error(f"--auth needs a password: set {PASSWORD_VARIABLE} or type one")
        args.auth = (args.auth, password)
    return args


def set_environment(folder: Path) -> None:
    """Switch off telemetry and set the upload folder, before Gradio and the hub are imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    if not IS_SPACE:  # a Space may fetch its weights from the hub
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def serve(make: Callable[[], gr.Blocks], args: argparse.Namespace) -> None:
    """Serve the page that `make` builds until Ctrl-C or SIGTERM, then remove its folder."""
    with PrivateFolder() as folder:
        set_environment(folder)
        from demo.serving.launch import build_launch_settings

        for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP, which a closed terminal sends
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: sys.exit(0))
        blocks = make()
        try:
            blocks.launch(
                server_name=args.host,
                server_port=args.port,
                inbrowser=not (args.no_browser or IS_SPACE),
                mcp_server=args.mcp,
                auth=args.auth,
                auth_message=AUTH_MESSAGE if args.auth else None,
                **build_launch_settings(IS_SPACE),
            )
        finally:  # a request still running would outlive the interpreter
            blocks.close(verbose=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the shipped system."""

    def make() -> gr.Blocks:
        zero_gpu.declare()
        from demo.page import build  # imports gradio: only after `set_environment`

        return build(is_public=IS_SPACE)

    serve(make, parse_arguments(argv))


if __name__ == "__main__":
    main()
