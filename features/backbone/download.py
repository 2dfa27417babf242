"""Downloading one file within a time limit: whole, or not at all."""

from __future__ import annotations

import http.client
import os
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

_T = TypeVar("_T")


def download_file(address: str, path: Path, *, limit_seconds: float) -> None:
    """Download a file, through the proxy that the environment names, if it names one.

    Parameters
    ----------
    address : str
        An ``https`` or ``http`` URL.
    path : Path
        Appears only when every byte has arrived. Its folder is made.
    limit_seconds : float
        Most time without an answer, and without a byte after that. A slow download may
        take longer.

    Raises
    ------
    DownloadFailed
        If there is no answer in time, the answer is not the file, or it breaks off.
    OSError
        If the file cannot be written.
    """
    answer = _within(limit_seconds, lambda: _open(address, limit_seconds, method="GET"))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with answer, partial.open("wb") as file:
            _receive(lambda: shutil.copyfileobj(answer, file))
        expected = answer.headers.get("Content-Length")
        if expected is not None and partial.stat().st_size != int(expected):
            raise DownloadFailed(
                f"the connection broke off after {partial.stat().st_size} of {expected} bytes"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def probe_address(address: str, *, limit_seconds: float) -> float:
    """Ask for a file without downloading it.

    Parameters
    ----------
    address : str
        An ``https`` or ``http`` URL.
    limit_seconds : float

    Returns
    -------
    float
        Seconds until the answer.

    Raises
    ------
    DownloadFailed
        If there is no answer in time, or the answer is an error.
    """
    started = time.monotonic()
    _within(limit_seconds, lambda: _open(address, limit_seconds, method="HEAD")).close()
    return time.monotonic() - started


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
