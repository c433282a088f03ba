"""Headers, rate limits and remote files."""

from __future__ import annotations

import asyncio

import gradio as gr
import pytest
from gradio import processing_utils
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import app
from demo.serving import middleware
from demo.serving.middleware import TOO_MANY_MESSAGE, RateLimit, SecurityMiddleware
from demo.serving.no_remote_fetch import disable_remote_fetch

ADDRESSES = ["http://169.254.169.254/latest", "https://example.org/a.png"]


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello", headers={"cache-control": "public", "x-own": "kept"})


def client(**options: object) -> TestClient:
    routes = [Route(path, hello, methods=["GET", "POST"]) for path in ("/", "/upload", "/assets/a")]
    return TestClient(
        Starlette(routes=routes, middleware=[Middleware(SecurityMiddleware, **options)])
    )


def test_each_answer_carries_the_headers() -> None:
    page = client().get("/")
    assert page.text == "hello" and page.headers["x-own"] == "kept"
    for name, value in middleware.HEADERS.items():
        assert page.headers.get_list(name) == [value]
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http:" not in policy and "*" not in policy
    assert policy.endswith("frame-ancestors 'self'")
    assert page.headers["x-frame-options"] == "SAMEORIGIN"
    assert client().get("/assets/a").headers["cache-control"] == "public"


def test_the_hub_may_frame_its_space() -> None:
    headers = client(on_a_space=True).get("/").headers
    assert "https://huggingface.co" in headers["content-security-policy"]
    assert "x-frame-options" not in headers


def test_one_visitor_is_held_back_and_told_so() -> None:
    visitor = client(uploads=2, events=3)
    assert [visitor.post("/upload").status_code for _ in range(3)] == [200, 200, 429]
    assert [visitor.post("/").status_code for _ in range(4)] == [200] * 3 + [429]
    refused = visitor.post("/")
    assert (
        refused.json() == {"detail": TOO_MANY_MESSAGE}
        and "x-content-type-options" in refused.headers
    )
    assert visitor.get("/").status_code == 200  # looking is free


@pytest.mark.parametrize(("on_a_space", "statuses"), [(True, [200, 200]), (False, [200, 429])])
def test_an_address_that_a_visitor_names_counts_only_behind_the_hub(
    on_a_space: bool, statuses: list[int]
) -> None:
    visitor = client(on_a_space=on_a_space, events=1)
    named = [visitor.post("/", headers={"x-forwarded-for": f"10.0.0.{i}, proxy"}) for i in (1, 2)]
    assert [answer.status_code for answer in named] == statuses


def test_the_limit_refills_and_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    limit = RateLimit(60, clock=lambda: now)
    assert sum(limit.allows("a") for _ in range(100)) == 60
    now = 2.0
    assert sum(limit.allows("a") for _ in range(100)) == 2
    assert limit.allows("b")
    now = 1e6
    assert sum(limit.allows("a") for _ in range(100)) == 60
    monkeypatch.setattr(middleware, "MAX_VISITORS", 3)
    for i in range(50):
        limit.allows(str(i))
    assert len(limit._buckets) == 3


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("kind", [gr.File, gr.UploadButton, gr.Checkbox])
def test_no_address_is_fetched(
    kind: type[gr.File], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("async_ssrf_protected_get", "async_ssrf_protected_download"):
        monkeypatch.setattr(processing_utils, name, getattr(processing_utils, name))
    disable_remote_fetch()
    with pytest.raises(gr.Error, match="addresses are not downloaded"):
        asyncio.run(kind().async_move_resource_to_block_cache(address))
    with pytest.raises(gr.Error, match="addresses are not downloaded"):
        processing_utils.ssrf_protected_download(address, "")


@pytest.mark.parametrize("path", ["/gradio_api/process_recording", "/gradio_api/proxy=http://x"])
def test_doors_of_gradio_s_that_the_page_does_not_need_are_shut(path: str) -> None:
    for answer in (client().get(path), client().post(path, files={"video": b"x"})):
        assert answer.status_code == 404 and "x-content-type-options" in answer.headers


def test_a_password_does_not_go_with_an_endpoint_that_asks_for_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(app.PASSWORD_VARIABLE, "secret")
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: True)
    with pytest.raises(SystemExit):
        app.parse_arguments(["--auth", "reader", "--mcp"])
    assert app.AUTH_WITH_MCP in capsys.readouterr().err


def test_a_password_is_asked_for_never_given_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(app.PASSWORD_VARIABLE, "secret")
    assert app.parse_arguments(["--auth", "ward"]).auth == ("ward", "secret")
    assert app.parse_arguments([]).auth is None
    monkeypatch.delenv(app.PASSWORD_VARIABLE)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "")
    with pytest.raises(SystemExit):
        app.parse_arguments(["--auth", "ward"])
    assert "needs a password" in capsys.readouterr().err
