"""Requests over connections that stay open, one for each thread and host: thousands of them take seconds, not minutes."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self, TypeVar
from urllib.parse import urlencode

from tests.end_to_end.browser import Answer, Browser
from tests.end_to_end.servers import Address

GIVEN_UP_S: Final = 20.0
THREADS: Final = 6
_CLOSED: Final = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)

Given = TypeVar("Given")
Result = TypeVar("Result")


class Caller:
    """The connections of one thread. Asks once more on a fresh one where a kept one was closed meanwhile, as browsers do."""

    def __init__(self) -> None:
        self._kept: dict[Address, http.client.HTTPConnection] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._kept.values():
            connection.close()

    def get(self, at: Address, path: str, browser: Browser, **query: object) -> Answer:
        """A request with the browser's cookies, which takes what the answer sets. Raises `OSError` or `HTTPException`."""
        answer = self.look(at, path, browser.cookies, **query)
        browser.take(answer)
        return answer

    def look(self, at: Address, path: str, cookies: list[str], **query: object) -> Answer:
        """The same with these cookies, which stay as they are."""
        target = f"{path}?{urlencode(query)}" if query else path
        kept = self._kept.pop(at, None)
        if kept is not None:
            try:
                return self._asked(kept, at, target, cookies)
            except _CLOSED:
                pass
        return self._asked(http.client.HTTPConnection(*at, timeout=GIVEN_UP_S), at, target, cookies)

    def _asked(self, connection: http.client.HTTPConnection, at: Address, target: str, cookies: list[str]) -> Answer:
        began = time.perf_counter()
        try:
            connection.putrequest("GET", target)
            for each in cookies:
                connection.putheader("Cookie", each)
            connection.endheaders()
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        seconds = time.perf_counter() - began
        if response.will_close:
            connection.close()
        else:
            self._kept[at] = connection
        return Answer(response.status, response.getheaders(), body, seconds)


def in_parallel(work: Callable[[Caller, Given], Result], given: Sequence[Given], threads: int = THREADS) -> list[Result]:
    """`work` for each of `given`, in some order; the results in theirs. The first exception ends it."""
    todo, results, lock = iter(range(len(given))), {}, threading.Lock()

    def run() -> None:
        with Caller() as caller:
            while True:
                with lock:
                    place = next(todo, None)
                if place is None:
                    return
                results[place] = work(caller, given[place])

    with ThreadPoolExecutor(threads) as pool:
        for each in [pool.submit(run) for _ in range(threads)]:
            each.result()
    return [results[place] for place in range(len(given))]
