"""`python -m bench COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

import torch

from bench.app.server import StartError
from bench.commands import MEASUREMENTS
from bench.report import write

DESCRIPTION = """Measures the system and writes results/*.json; nothing is selected on test scans.

{commands}

The same command resumes a run that was stopped."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 2 and prints one sentence where the input is at fault."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(getattr(args, "threads", 0) or torch.get_num_threads())
    try:
        return commands()[args.command].run(args) or 0
    except (ValueError, StartError) as error:  # of data, presets, weights, result files, options
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command resumes after the last finished row", file=sys.stderr)
        return 130


def commands() -> dict[str, ModuleType]:
    """Returns the modules of all commands by name."""
    return {**MEASUREMENTS, "report": write}


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    listed = "\n".join(f"  {name:10}  {module.HELP}" for name, module in commands().items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=DESCRIPTION.format(commands=listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    layout = argparse.ArgumentDefaultsHelpFormatter
    for name, module in commands().items():
        command = subparsers.add_parser(
            name, formatter_class=layout, help=module.HELP, description=module.HELP
        )
        module.add_options(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
