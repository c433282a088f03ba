"""Checks of a hospital's node before it joins; each error names its cause."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from train.federated.runtime import loopback, supernode
from train.federated.runtime.superlink import (
    SuperLink,
    find_free_port,
    run_processes,
    wait_for_port,
)


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trust")
    loopback.write_certificates(folder)
    loopback.write_keys(folder / "hospital")
    return folder


@pytest.fixture
def server(trust: Path) -> Iterator[Callable[..., int]]:
    """Return a function that starts a TLS server with a folder's certificate; returns its port."""
    listeners = []

    def start(folder: Path = trust) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            while True:
                try:
                    context.wrap_socket(listener.accept()[0], server_side=True).close()
                except ssl.SSLError:
                    continue  # the other side did not trust us
                except OSError:
                    return  # the listener is closed

        threading.Thread(target=serve, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def join(world: Path, trust: Path, tmp_path: Path) -> Callable[..., int]:
    """Return a function that runs the command with valid options by default."""

    def run(server: int, **other: object) -> int:
        given = {
            "superlink": f"127.0.0.1:{server}", "root-certificates": trust / "ca.crt",
            "key": trust / "hospital", "client": 3, "data": world / "data" / "br35h",
            "state": tmp_path / "state", "port": find_free_port(), **other,
        }  # fmt: skip
        return supernode.main([word for k, v in given.items() for word in (f"--{k}", str(v))])

    return run


def test_a_server_that_is_to_trust_passes(server, trust):
    supernode.check_server(f"127.0.0.1:{server()}", trust / "ca.crt")
    supernode.check_key(trust / "hospital")
    supernode.check_port(find_free_port())


def test_another_authority_s_certificate(server, join, tmp_path, capsys):
    loopback.write_certificates(tmp_path)
    assert join(server(tmp_path)) == 2
    error = capsys.readouterr().err
    assert "error: client 3: the certificate of 127.0.0.1:" in error
    assert "is not trusted: " in error and "ask the coordinator" in error


def test_an_expired_certificate(server, join, tmp_path, capsys):
    last_week = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=7)
    loopback.write_certificates(tmp_path, last_week)
    assert join(server(tmp_path), **{"root-certificates": tmp_path / "ca.crt"}) == 2
    assert "certificate has expired" in capsys.readouterr().err


def test_nobody_there_no_tls_and_no_address(join, capsys):
    assert join(find_free_port()) == 2
    assert "error: client 3: nothing answers at 127.0.0.1:" in capsys.readouterr().err
    assert join(0, superlink="nowhere") == 2
    assert "--superlink must be HOST:PORT, got 'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("root-certificates", b"nothing", "holds no certificate"),
        ("key", b"nothing", "is not a private key without a password"),
        ("key", None, "there is no key"),
        ("policy", b"alow = []", "unknown key 'alow' in the policy"),
        ("start", None, "There are no weights in"),
    ],
)
def test_files_that_are_not_what_they_should_be(
    server, join, tmp_path, capsys, option, content, message
):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    assert join(server(), **{option: path}) == 2
    error = capsys.readouterr().err
    assert "error: client 3: " in error and message in error


def test_a_port_in_use_and_a_folder_without_scans(server, join, tmp_path, capsys):
    taken = server()
    assert join(server(), port=taken) == 2
    assert f"port {taken} is in use: name another with --port" in capsys.readouterr().err
    assert join(server(), data=tmp_path) == 2
    assert "error: client 3: " in capsys.readouterr().err


@pytest.mark.slow
def test_a_key_that_nobody_registered(join, trust, tmp_path, capsys, monkeypatch):
    # as shipped, it asks for longer than a lost node's key stays registered: two heartbeats of 30 s
    assert (supernode.ATTEMPTS - 1) * supernode.RETRY_SECONDS > 60
    monkeypatch.setattr(supernode, "ATTEMPTS", 2)
    monkeypatch.setattr(supernode, "RETRY_SECONDS", 0.1)
    port, link = find_free_port(), SuperLink("x", tmp_path)
    words = ["flower-superlink", "--enable-supernode-auth", "--host", "127.0.0.1"]
    words += ["--port", str(port), "--ssl-ca-certfile", str(trust / "ca.crt")]
    words += ["--ssl-certfile", str(trust / "server.crt")]
    words += ["--ssl-keyfile", str(trust / "server.key")]
    with run_processes({"superlink": words}, link.environment, tmp_path) as started:
        wait_for_port(port, started["superlink"], tmp_path / "superlink.log")
        assert join(port) == 2
    error = capsys.readouterr().err
    assert error.count("refuses this key: a lost node") == 1
    assert "error: client 3: the coordinator does not know this key: send " in error
