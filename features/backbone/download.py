"""Downloading one file within a time limit: whole, or not at all."""

from __future__ import annotations

import http.client
import queue
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from features.errors import DownloadFailed
from features.system.files import sole_writer, whole_file

_T = TypeVar("_T")


def download_file(address: str, path: Path, *, limit_seconds: float) -> None:
    """Download a file whole, making its folder, unless another process has done so meanwhile.

    It raises DownloadFailed if there is no answer in time, and then no byte in time; a slow
    download may take longer. The proxy is the one that the environment names.
    """
    answer = _within(limit_seconds, lambda: _open(address, limit_seconds, method="GET"))
    with answer:
        path.parent.mkdir(parents=True, exist_ok=True)
        with sole_writer(path):
            if not path.is_file():
                _receive_file(answer, path)


def probe_address(address: str, *, limit_seconds: float) -> float:
    """Ask for a file without downloading it, and return the seconds until the answer."""
    started = time.monotonic()
    _within(limit_seconds, lambda: _open(address, limit_seconds, method="HEAD")).close()
    return time.monotonic() - started


def _receive_file(answer: http.client.HTTPResponse, path: Path) -> None:
    expected = answer.headers.get("Content-Length")
    with whole_file(path, sync=True) as partial:
        with partial.open("wb") as file:
            _receive(lambda: shutil.copyfileobj(answer, file))
        n_bytes = partial.stat().st_size
        if expected is not None and n_bytes != int(expected):
            raise DownloadFailed(f"the connection broke off after {n_bytes} of {expected} bytes")


def _open(address: str, limit_seconds: float, *, method: str) -> http.client.HTTPResponse:
    request = urllib.request.Request(address, method=method)
    # Not urlopen: it remembers the proxies that it found at its first call.
    opener = urllib.request.build_opener()
    answer: http.client.HTTPResponse = _receive(lambda: opener.open(request, timeout=limit_seconds))
    return answer


def _receive(action: Callable[[], _T]) -> _T:
    try:
        return action()
    except urllib.error.HTTPError as problem:
        problem.close()  # the error is the answer as well, with an open connection
        raise DownloadFailed(f"the answer was {problem.code} {problem.reason}") from problem
    except urllib.error.URLError as problem:
        raise DownloadFailed(str(problem.reason)) from problem
    except (TimeoutError, ConnectionError, http.client.HTTPException, ValueError) as problem:
        raise DownloadFailed(str(problem) or type(problem).__name__) from problem


def _within(limit_seconds: float, action: Callable[[], _T]) -> _T:
    # The time limit of a socket covers neither the look-up of a name nor several addresses
    # of one name, each of which is tried in turn. A thread that hangs there is left behind.
    outcome: queue.SimpleQueue[_T | DownloadFailed] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put(action())
        except DownloadFailed as problem:
            outcome.put(problem)

    threading.Thread(target=work, daemon=True).start()
    try:
        result = outcome.get(timeout=limit_seconds)
    except queue.Empty:
        raise DownloadFailed(f"no answer within {limit_seconds:g} s") from None
    if isinstance(result, DownloadFailed):
        raise result
    return result
