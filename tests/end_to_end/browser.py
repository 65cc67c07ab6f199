"""A browser as far as sessions go: one jar of cookies, requests to any host, responses taken in any order."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

GIVEN_UP_S = 20.0


class Answer(NamedTuple):
    """One response. `seconds`: from before the connection is opened until the body is there."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    seconds: float

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def set_cookies(self) -> list[str]:
        return [value for key, value in self.headers if key.lower() == "set-cookie"]

    @property
    def seen(self) -> dict[str, Any]:
        """What the app said: `items`, `owners`, `epoch`, `pid` and `node`."""
        assert self.status == 200, f"{self.status}: {self.body[:300]!r}"
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def items(self) -> dict[str, Any]:
        """What the session held when the app had done its work."""
        found: dict[str, Any] = self.seen["items"]
        return found


def send(address: tuple[str, int], path: str, cookies: list[str], **query: object) -> Answer:
    """A GET on a connection of its own. `cookies`: values of Cookie fields. Raises `OSError` or `HTTPException`."""
    return _sent("GET", address, path, cookies, query)


def post(address: tuple[str, int], path: str, cookies: list[str], **query: object) -> Answer:
    """The same as a POST without a body."""
    return _sent("POST", address, path, cookies, query)


def _sent(method: str, address: tuple[str, int], path: str, cookies: list[str], query: Mapping[str, object]) -> Answer:
    began = time.perf_counter()
    connection = http.client.HTTPConnection(*address, timeout=GIVEN_UP_S)
    try:
        connection.putrequest(method, f"{path}?{urlencode(query)}" if query else path)
        for each in cookies:
            connection.putheader("Cookie", each)
        connection.putheader("Connection", "close")
        if method == "POST":
            connection.putheader("Content-Length", "0")
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        return Answer(response.status, response.getheaders(), body, time.perf_counter() - began)
    finally:
        connection.close()


class Browser:
    """Keeps cookies by name, as their values; `taken` counts the Set-Cookie headers it was given."""

    def __init__(self, jar: dict[str, str] | None = None) -> None:
        self.jar = dict(jar or {})
        self.taken = 0

    def copy(self) -> Browser:
        return Browser(self.jar)

    @property
    def cookies(self) -> list[str]:
        """The Cookie fields it sends now."""
        return ["; ".join(f"{name}={value}" for name, value in self.jar.items())] if self.jar else []

    def get(self, address: tuple[str, int], path: str, **query: object) -> Answer:
        """Sends the jar, takes what the answer sets."""
        answer = send(address, path, self.cookies, **query)
        self.take(answer)
        return answer

    def post(self, address: tuple[str, int], path: str, **query: object) -> Answer:
        """The same as a POST."""
        answer = post(address, path, self.cookies, **query)
        self.take(answer)
        return answer

    def take(self, answer: Answer) -> None:
        """Obeys the Set-Cookie headers of `answer`, whenever it was sent."""
        for text in answer.set_cookies:
            self.taken += 1
            pair, *attributes = text.split("; ")
            name, _, value = pair.partition("=")
            if "Max-Age=0" in attributes:
                self.jar.pop(name, None)
            else:
                self.jar[name] = value
