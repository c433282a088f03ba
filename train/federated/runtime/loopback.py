"""Deployment on one machine: SuperLink, SuperNodes, TLS and keys in a temporary folder."""

from __future__ import annotations

import datetime
import ipaddress
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from train.federated.client.client_app import PLACES
from train.federated.experiment import read_experiment
from train.federated.runtime.superlink import (
    RUN_KEYS,
    SuperLink,
    find_free_port,
    run_processes,
    wait_for_port,
    write_config,
)

NAME = "loopback"
ADDRESS = "127.0.0.1"


def run(settings: Mapping[str, Any]) -> None:
    """Run an experiment with one SuperNode a client, over TLS with registered keys.

    Raises:
        FederationError: a process does not start, or the run fails.
    """
    count = read_experiment(
        settings["preset"], settings["protocol"], settings["seed"]
    ).config.partition.num_clients
    logs = Path(settings["out"]) / "logs"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_certificates(home)
        port = find_free_port()
        write_config(home, NAME, f"{ADDRESS}:{port}", home / "ca.crt")
        link = SuperLink(NAME, home)
        server = ["flower-superlink", "--enable-supernode-auth"]
        server += ["--disable-runtime-dependency-installation", "--host", ADDRESS]
        server += ["--port", str(port), "--ssl-ca-certfile", str(home / "ca.crt")]
        server += ["--ssl-certfile", str(home / "server.crt")]
        server += ["--ssl-keyfile", str(home / "server.key")]
        with run_processes({"superlink": server}, link.environment, logs) as started:
            wait_for_port(port, started["superlink"], logs / "superlink.log")
            nodes = {}
            for client in range(count):
                write_keys(home / f"client-{client}")
                link.run_flwr(
                    "supernode", "register", str(home / f"client-{client}.pub"), NAME,
                    "--name", f"client-{client}",
                )  # fmt: skip
                nodes[f"client-{client}"] = [
                    "flower-supernode", "--superlink", f"{ADDRESS}:{port}",
                    "--root-certificates", str(home / "ca.crt"),
                    "--auth-supernode-private-key", str(home / f"client-{client}"),
                    "--host", ADDRESS, "--port", str(find_free_port()),
                    "--node-config", _build_node_config(settings, client, count),
                ]  # fmt: skip
            with run_processes(nodes, link.environment, logs):
                link.run({name: settings[name] for name in RUN_KEYS})


def write_certificates(folder: Path, since: datetime.datetime | None = None) -> None:
    """Write ca.crt, server.crt and server.key for loopback, valid for a day (default: from now)."""
    authority, server = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    start = since or datetime.datetime.now(datetime.UTC)

    def certificate(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_build_name(name))
            .issuer_name(_build_name("temporary authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - datetime.timedelta(minutes=5))
            .not_valid_after(start + datetime.timedelta(days=1))
        )

    root = certificate("temporary authority", authority).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    names = [x509.IPAddress(ipaddress.ip_address(ADDRESS)), x509.DNSName("localhost")]
    leaf = certificate("localhost", server).add_extension(
        x509.SubjectAlternativeName(names), critical=False
    )
    for file, builder in (("ca.crt", root), ("server.crt", leaf)):
        signed = builder.sign(authority, hashes.SHA384())
        (folder / file).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(_encode_private(server, serialization.PrivateFormat.PKCS8))


def write_keys(path: Path) -> None:
    """Write a node's key pair: private key to `path`, public key to `path`.pub."""
    key = ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(_encode_private(key, serialization.PrivateFormat.OpenSSH))
    path.chmod(0o600)
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    path.with_suffix(".pub").write_bytes(public)


def _encode_private(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _build_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _build_node_config(settings: Mapping[str, Any], client: int, count: int) -> str:
    folders = " ".join(f'{k}="{settings[k]}"' for k in PLACES if k in settings)
    return f"partition-id={client} num-partitions={count} {folders}"
