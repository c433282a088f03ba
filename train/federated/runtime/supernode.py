"""Node of one hospital: `python -m train node` checks the setup, then runs Flower's SuperNode.

Problems on which the SuperNode would fail later, or retry for ever, are found before it starts and
reported in one sentence.
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
from train.data.errors import DataError
from train.data.sources import find_class_records
from train.federated.client.policy import PolicyError, read_policy
from train.federated.runtime.superlink import (
    NO_TELEMETRY,
    build_environment,
    find_program,
    stop_process,
)

CONNECT_SECONDS = 10.0
# Flower's message for an unregistered key, and for one whose node still counts as connected
REFUSED_LINE = "Failed to activate SuperNode"
ATTEMPTS, RETRY_SECONDS = 7, 15.0  # a lost node stays registered for two heartbeats of 30 s


class NodeError(ValueError):
    """Hospital that cannot take part; the message says why."""


def main(argv: Sequence[str]) -> int:
    """Run the command line.

    Returns:
        Flower's exit code; 2 with one sentence if the setup is at fault, 130 when stopped.
    """
    args = _build_parser().parse_args(argv)
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
    """Check data, policy, weights, state folder, key, port and server.

    Raises:
        NodeError, DataError, PolicyError, WeightsError: the first problem, in one sentence.
    """
    records = find_class_records(args.data)
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
    """Raise NodeError if the file holds no private key that Flower can use."""
    advice = f"make one with ssh-keygen -t ecdsa -b 384 -N '' -f {path}"
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        raise NodeError(f"there is no key {path}: {advice}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise NodeError(
            f"{path} is not a private key without a password ({error}): {advice}"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NodeError(f"{path} is not an elliptic-curve key: {advice}")


def check_port(port: int) -> None:
    """Raise NodeError if the port is in use."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise NodeError(f"port {port} is in use: name another with --port")


def check_server(address: str, root_certificates: Path) -> None:
    """Raise NodeError if no server answers at HOST:PORT or its certificate is not trusted."""
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
            socket.create_connection((host, int(port)), CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return
    except ssl.SSLCertVerificationError as error:
        raise NodeError(
            f"the certificate of {address} is not trusted: {error.verify_message}; ask the "
            "coordinator for a valid one and for its authority's ca.crt"
        ) from None
    except ssl.SSLError as error:
        raise NodeError(f"{address} does not speak TLS: {error.reason}") from None
    except OSError as error:
        raise NodeError(f"nothing answers at {address}: {error}") from None


def run(args: argparse.Namespace) -> int:
    """Run the SuperNode and pass on its output until it ends."""
    folders = {name: getattr(args, name) for name in ("data", "state", "cache", "policy", "start")}
    known = {name: str(path.resolve()) for name, path in folders.items() if path}
    words = [f"partition-id={args.client}", "whole=true"]
    words += [f"{name}={json.dumps(value)}" for name, value in known.items()]
    command = [find_program("flower-supernode"), "--superlink", args.superlink]
    command += ["--root-certificates", str(args.root_certificates)]
    command += ["--auth-supernode-private-key", str(args.key)]
    command += ["--port", str(args.port), "--node-config", " ".join(words)]
    environment = NO_TELEMETRY | build_environment() | {"PYTHONUNBUFFERED": "1"}  # prints at once
    return run_supernode(command, environment, args.key)


def run_supernode(command: Sequence[str], environment: Mapping[str, str], key: Path) -> int:
    """Run a SuperNode; retry while the server still counts a lost node of the same key.

    Returns:
        Its exit code.

    Raises:
        NodeError: the server refuses the key for longer than it counts a lost node.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            print(
                "the server refuses this key: a lost node counts as connected for a minute; "
                f"trying again in {RETRY_SECONDS:g} s",
                file=sys.stderr,
            )
            time.sleep(RETRY_SECONDS)
        code, is_refused = _run_once(command, environment)
        if not is_refused:
            return code
    raise NodeError(
        f"the coordinator does not know this key: send {key}.pub to be registered; or another "
        "node is connected with it: each node needs its own key"
    )


def _run_once(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, bool]:
    """Run a SuperNode; return its exit code, and True if the server refused its key."""
    refused = threading.Event()
    with subprocess.Popen(
        command, env=dict(environment), stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip

        def listen() -> None:
            for line in process.stdout or ():
                sys.stderr.write(line)
                if REFUSED_LINE in line:
                    refused.set()

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            process.wait()
        finally:
            stop_process(process)
            with suppress(ProcessLookupError):  # its own child processes may still run
                os.killpg(process.pid, signal.SIGKILL)
            listener.join()
    return process.returncode, refused.is_set()


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train node",
        description="Join a federation as one hospital with its own scans.",
        epilog="Runs until stopped; see docs/federation.md.",
    )
    add = parser.add_argument
    add("--superlink", required=True, metavar="HOST:PORT", help="the coordinator's server")
    add("--root-certificates", required=True, type=Path, metavar="FILE", help="the server's ca.crt")
    add("--key", required=True, type=Path, metavar="FILE", help="this hospital's private key")
    add("--client", required=True, type=int, metavar="N", help="the hospital's number, from 0")
    add("--data", required=True, type=Path, metavar="DIR", help="scans, one folder a class")
    add("--state", required=True, type=Path, metavar="DIR", help="personal attention; keep it")
    add("--cache", type=Path, default=Path(".cache"), help="decoded scans (default: .cache)")
    add("--policy", type=Path, metavar="FILE", help="what may leave; see docs/federation.md")
    add("--start", type=Path, metavar="DIR", help="weights to start from, if the federation does")
    add("--port", type=int, default=18100, help="free port of this machine (default: 18100)")
    return parser
