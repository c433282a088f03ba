"""`python -m train node`: one hospital on its own machine; checks its input, then waits.

Flower's own SuperNode does the waiting. Before it starts, each thing that it would fail on later,
or retry for ever, is looked at here and named in a sentence.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from core.checkpoint import WeightsError, read_manifest
from train.data.sources import DataError, find_folder
from train.federated.cli import QUIET
from train.federated.client.policy import PolicyError, read_policy
from train.federated.runtime.superlink import environment, program, stop

SECONDS = 10.0  # to answer the first knock
# what Flower says to a key that nobody registered, and to one whose node still counts as connected
REFUSED = "Failed to activate SuperNode"
ATTEMPTS, AGAIN_SECONDS = 7, 15.0  # a lost node counts for two heartbeats of 30 s


class NodeError(ValueError):
    """The reason that keeps this hospital from taking part."""


def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Returns:
        Flower's exit code; 2 with a sentence where something here is at fault, 130 when stopped.
    """
    args = _parser().parse_args(argv)
    try:
        check(args)
        return run(args)
    except (NodeError, DataError, PolicyError, WeightsError, OSError) as error:
        print(f"error: client {args.client}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command joins again", file=sys.stderr)
        return 130


def check(args: argparse.Namespace) -> None:
    """Check everything that can be checked before the start.

    Raises:
        NodeError, DataError, PolicyError, WeightsError: what is wrong, in a sentence.
    """
    records = find_folder(args.data)
    print(f"client {args.client}: {len(records)} scans in {args.data}", file=sys.stderr)
    read_policy(str(args.policy) if args.policy else "")
    if args.start:
        read_manifest(args.start)
    args.state.mkdir(parents=True, exist_ok=True)
    if not os.access(args.state, os.W_OK):
        raise NodeError(f"{args.state} cannot be written: the attention would be lost")
    check_key(args.key)
    check_port(args.port)
    check_server(args.superlink, args.root_certificates)


def check_key(path: Path) -> None:
    """Raises NodeError where the file holds no private key that Flower can use."""
    how = f"make one with ssh-keygen -t ecdsa -b 384 -N '' -f {path}"
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        raise NodeError(f"there is no key {path}: {how}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise NodeError(f"{path} is no private key without a password ({error}): {how}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NodeError(f"{path} is no elliptic-curve key: {how}")


def check_port(port: int) -> None:
    """Raises NodeError where something listens on the port already."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise NodeError(f"port {port} is in use: name another with --port")


def check_server(address: str, root_certificates: Path) -> None:
    """Raises NodeError where no server answers at HOST:PORT, or its certificate is not to trust."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise NodeError(f"--superlink must be HOST:PORT, got {address!r}")
    try:
        context = ssl.create_default_context(cafile=str(root_certificates))
    except (ssl.SSLError, OSError) as error:
        raise NodeError(f"{root_certificates} holds no certificate: {error}") from None
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, int(port)), SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return
    except ssl.SSLCertVerificationError as error:
        raise NodeError(
            f"the certificate of {address} is not to trust: {error.verify_message}; ask the "
            "coordinator for a valid one, and for its authority's ca.crt"
        ) from None
    except ssl.SSLError as error:
        raise NodeError(f"{address} does not speak TLS: {error.reason}") from None
    except OSError as error:
        raise NodeError(f"nothing answers at {address}: {error}") from None


def run(args: argparse.Namespace) -> int:
    """Starts the SuperNode and passes on what it says until it ends."""
    places = {name: getattr(args, name) for name in ("data", "state", "cache", "policy", "start")}
    known = {name: str(path.resolve()) for name, path in places.items() if path}
    words = [f"partition-id={args.client}", "whole=true"]
    words += [f"{name}={json.dumps(value)}" for name, value in known.items()]
    command = [program("flower-supernode"), "--superlink", args.superlink]
    command += ["--root-certificates", str(args.root_certificates)]
    command += ["--auth-supernode-private-key", str(args.key)]
    command += ["--port", str(args.port), "--node-config", " ".join(words)]
    own = QUIET | environment() | {"PYTHONUNBUFFERED": "1"}  # each line when it is said
    return keep(command, own, args.key)


def keep(command: Sequence[str], own: Mapping[str, str], key: Path) -> int:
    """Runs a SuperNode; waits where the server still counts a lost one of the same key.

    Returns:
        Its exit code.

    Raises:
        NodeError: the server does not let the key in, for longer than it counts a lost node.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            print(
                "the server does not let this key in yet: a node of it that was lost counts as "
                f"connected for a minute; trying again in {AGAIN_SECONDS:g} s",
                file=sys.stderr,
            )
            time.sleep(AGAIN_SECONDS)
        code, is_refused = _supernode(command, own)
        if not is_refused:
            return code
    raise NodeError(
        f"the coordinator does not know this key: send {key}.pub and have it registered; or "
        "another node is connected with it: each needs a key of its own"
    )


def _supernode(command: Sequence[str], own: Mapping[str, str]) -> tuple[int, bool]:
    """Run it once; return its exit code, and True where the server refused its key."""
    refused = threading.Event()
    with subprocess.Popen(
        command, env=dict(own), stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip

        def listen() -> None:
            for line in process.stdout or ():
                sys.stderr.write(line)
                if REFUSED in line:
                    refused.set()

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            process.wait()
        finally:
            stop(process)
            with suppress(ProcessLookupError):  # what it started may outlive it, and its output
                os.killpg(process.pid, signal.SIGKILL)
            listener.join()
    return process.returncode, refused.is_set()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train node",
        description="One hospital between hospitals: joins a federation with its own scans.",
        epilog="Runs until stopped; see docs/federation.md.",
    )
    add = parser.add_argument
    add("--superlink", required=True, metavar="HOST:PORT", help="the coordinator's server")
    add("--root-certificates", required=True, type=Path, metavar="FILE", help="its ca.crt")
    add("--key", required=True, type=Path, metavar="FILE", help="this hospital's private key")
    add("--client", required=True, type=int, metavar="N", help="its number, from 0")
    add("--data", required=True, type=Path, metavar="DIR", help="a folder per class; all its own")
    add("--state", required=True, type=Path, metavar="DIR", help="keeps the attention; must last")
    add("--cache", type=Path, default=Path(".cache"), help="decoded scans (default: .cache)")
    add("--policy", type=Path, metavar="FILE", help="what may leave; see docs/federation.md")
    add("--start", type=Path, metavar="DIR", help="its weights, where the federation goes on")
    add("--port", type=int, default=18100, help="a free one on this machine (default: 18100)")
    return parser
