"""Security headers (CSP) and rate limits for every request."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Gradio's own scripts and styles are inline, and its HTML component compiles ours
SOURCES = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval' blob:",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "media-src": "'self' data: blob:",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}
OWN_FRAMES, SPACE_FRAMES = "'self'", "'self' https://huggingface.co https://*.hf.space"
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
# Gradio's own: the first stores uploads outside the private folder, the second fetches addresses
CLOSED_PATHS = ("/process_recording", "/proxy=")
TOO_MANY_MESSAGE = "Too many requests from your address: please wait a minute."
MAX_VISITORS = 10_000  # remembered; least recently seen are dropped first


@dataclass
class Bucket:
    """Token bucket of one visitor, refilled evenly over time."""

    tokens: float
    seen: float


class RateLimit:
    """Token-bucket limit: `per_minute` requests of each visitor a minute, in bursts up to that."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self.clock = per_minute, clock
        self._buckets: dict[str, Bucket] = {}  # least recently seen first

    def allows(self, visitor: str) -> bool:
        """Count one request; return False if it exceeds the limit."""
        now = self.clock()
        old = self._buckets.pop(visitor, Bucket(self.per_minute, now))
        tokens = min(self.per_minute, old.tokens + (now - old.seen) / 60 * self.per_minute)
        self._buckets[visitor] = Bucket(max(tokens - 1, 0) if tokens >= 1 else tokens, now)
        while len(self._buckets) > MAX_VISITORS:
            del self._buckets[next(iter(self._buckets))]
        return tokens >= 1


class SecurityMiddleware:
    """ASGI middleware that adds security headers and refuses what exceeds a rate limit.

    Args:
        app: the ASGI app.
        on_a_space: allow the hub to frame the page, and trust the visitor's address in the header
            that the hub's proxy sets; elsewhere a visitor could set it to anything.
        uploads: files per minute and address.
        events: other POST requests per minute and address; playing a series makes 400.
    """

    def __init__(
        self, app: Any, on_a_space: bool = False, uploads: int = 2_100, events: int = 1_200
    ) -> None:
        self.app, self.on_a_space = app, on_a_space
        self.uploads, self.events = RateLimit(uploads), RateLimit(events)
        frames = SPACE_FRAMES if on_a_space else OWN_FRAMES
        policy = "; ".join(f"{k} {v}" for k, v in {**SOURCES, "frame-ancestors": frames}.items())
        headers = {**HEADERS, "content-security-policy": policy}
        if not on_a_space:
            headers["x-frame-options"] = "SAMEORIGIN"
        self.headers = [(k.encode(), v.encode()) for k, v in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; refuse it with status 404 (closed) or 429 (too many)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_secured(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = self._choose_headers(scope["path"])
                names = {name for name, _ in own}
                kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in names]
                message["headers"] = [*kept, *own]
            await send(message)

        if any(part in scope["path"] for part in CLOSED_PATHS):
            await send_secured({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["method"] == "POST" and not self._choose_limit(scope["path"]).allows(
            self._find_address(scope)
        ):
            start = {"type": "http.response.start", "status": 429}
            await send_secured({**start, "headers": [(b"content-type", b"application/json")]})
            body = json.dumps({"detail": TOO_MANY_MESSAGE}).encode()
            await send({"type": "http.response.body", "body": body})
            return
        await self.app(scope, receive, send_secured)

    def _choose_headers(self, path: str) -> list[tuple[bytes, bytes]]:
        """Return all headers, but let browsers cache the page's own scripts and styles."""
        if "/assets/" not in path:
            return self.headers
        return [pair for pair in self.headers if pair[0] != b"cache-control"]

    def _choose_limit(self, path: str) -> RateLimit:
        return self.uploads if path.endswith("/upload") else self.events

    def _find_address(self, scope: Scope) -> str:
        if self.on_a_space:
            for name, value in scope["headers"]:
                if name == b"x-forwarded-for":
                    return str(value.decode("latin-1").split(",")[0].strip())
        return str((scope.get("client") or ("",))[0])
