"""The thread that owns a host's driver in a Genesis service: requests come in many, a driver is used from one."""

from __future__ import annotations

import logging
import os
import queue
import selectors
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from brain_clusters.domain.agents import Loads
from brain_clusters.errors import BrainError, TemporaryError
from brain_clusters.genesis.driver import Driver
from brain_clusters.genesis.remote.journal import Journal
from brain_clusters.processes import wake_pipe

log = logging.getLogger(__name__)

_UPKEEP_SECONDS = 2.0
_CALL_SECONDS = 30.0
# A driver whose host asks nothing for so long is closed, and with it what it keeps imported. Its agents live on.
_FORSAKEN_SECONDS = 600.0
_AFTER_FAILURE_SECONDS = 1.0
_CLOSED = "the engine was closed for that host; it is opened again when it is asked for"

Found = TypeVar("Found")
Bury = Callable[[Sequence[str]], None]


class Keeper:
    """Opens a driver, follows it, and makes calls on it one after the other, until it is closed or forsaken.

    bury: for agents that no host looks after; returns to their queues what the ended ones of those ids held.
    """

    def __init__(self, name: str, make: Callable[[], Driver], bury: Bury | None = None) -> None:
        self.journal = Journal()
        self.memory: Mapping[str, int] = {}
        self.warm: Sequence[Loads] | None = None
        self.called_at = time.monotonic()
        self._make = make
        self._bury = bury
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[Driver], Any]]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._trouble: str | None = None
        self._read, self._write = wake_pipe()
        self._thread = threading.Thread(target=self._run, name=f"keeper of {name}", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether it takes no more calls."""
        return self._closing.is_set()

    def call(self, work: Callable[[Driver], Found]) -> Found:
        """Have ``work`` done on the driver and return what it returns. Raises what it raises, and TemporaryError.

        Work that is waited for in vain is done all the same.
        """
        if self.closed:
            raise TemporaryError(_CLOSED)
        self.called_at = time.monotonic()
        future: Future[Found] = Future()
        self._calls.put((future, work))
        self._poke()
        try:
            return future.result(_CALL_SECONDS)
        except TimeoutError:
            raise TemporaryError(f"the engine is busy for more than {_CALL_SECONDS:g} s") from None

    def close(self) -> None:
        """Close the driver; its agents live on."""
        self._closing.set()
        self._poke()
        self._thread.join()

    def _poke(self) -> None:
        with suppress(BlockingIOError, OSError):
            os.write(self._write, b"!")

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._read, selectors.EVENT_READ)
        driver = self._opened(selector)
        if driver is not None:
            selector.register(driver.fileno(), selectors.EVENT_READ)
            self._follow(driver, selector)
            driver.close()
        self._refuse_calls(_CLOSED)
        selector.close()
        read, write, self._read, self._write = self._read, self._write, -1, -1
        os.close(read)
        os.close(write)

    def _opened(self, selector: selectors.BaseSelector) -> Driver | None:
        """Return the open driver, None when told to close before. While it cannot be opened, calls say why."""
        while not self._closing.is_set():
            driver = self._make()
            try:
                driver.open()
                self.journal.note(driver.sight())
            except BrainError as exc:
                log.warning("waiting for the engine: %s", exc)
                with suppress(Exception):
                    driver.close()
                self._wait_refusing(selector, f"the engine cannot be used: {exc}")
            else:
                return driver
        return None

    def _wait_refusing(self, selector: selectors.BaseSelector, reason: str) -> None:
        deadline = time.monotonic() + _AFTER_FAILURE_SECONDS
        while (left := deadline - time.monotonic()) > 0 and not self._closing.is_set():
            self._refuse_calls(reason)
            if selector.select(left):
                self._clear()

    def _refuse_calls(self, reason: str) -> None:
        with suppress(queue.Empty):
            while True:
                self._calls.get_nowait()[0].set_exception(TemporaryError(reason))

    def _follow(self, driver: Driver, selector: selectors.BaseSelector) -> None:
        next_upkeep = 0.0
        while not self._closing.is_set():
            if selector.select(max(0.0, next_upkeep - time.monotonic())):
                self._clear()
            self._make_calls(driver)
            self._attempt(lambda: self.journal.note(driver.changes()))
            if time.monotonic() >= next_upkeep:
                next_upkeep = time.monotonic() + _UPKEEP_SECONDS
                self._attempt(lambda: self._upkeep(driver))
                if self._bury is None and time.monotonic() - self.called_at > _FORSAKEN_SECONDS:
                    self._closing.set()

    def _clear(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass

    def _make_calls(self, driver: Driver) -> None:
        with suppress(queue.Empty):
            while True:
                future, work = self._calls.get_nowait()
                try:
                    future.set_result(work(driver))
                except Exception as exc:  # noqa: BLE001 - it is raised to the caller
                    future.set_exception(exc)

    def _upkeep(self, driver: Driver) -> None:
        self.memory = driver.upkeep(self.warm)
        ended = self.journal.ended()
        if self._bury is not None and ended:
            self._bury(ended)
            driver.remove(ended)
            self.journal.forget(ended)

    def _attempt(self, step: Callable[[], None]) -> None:
        """Do ``step``; a failure is told, and waited after, as what made it necessary is still there."""
        try:
            step()
        except TemporaryError as exc:
            log.warning("waiting for the engine: %s", exc)
            self._closing.wait(_AFTER_FAILURE_SECONDS)
        except Exception:
            log.exception("following the engine failed; it is tried again")
            self._closing.wait(_AFTER_FAILURE_SECONDS)
