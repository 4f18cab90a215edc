"""A host that is killed: what its driver leaves behind is what the next one finds."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import NoReturn

from brain_clusters.genesis.contract.ground import Ground
from brain_clusters.genesis.contract.stage import Stage


def host_that_is_killed(ground: Ground, host: str, work: Callable[[Stage], object]) -> None:
    """Have a host do ``work`` in a process of its own, and kill that."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # The child uses nothing that a thread of ours may have had in its hands.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _work_and_wait(ground, host, work, write)
    os.close(write)
    done = os.read(read, 1)
    os.close(read)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert done, "the host that was to be killed failed before; its traceback is on standard error"


def _work_and_wait(ground: Ground, host: str, work: Callable[[Stage], object], told: int) -> NoReturn:
    try:
        work(Stage(ground, host))
        os.write(told, b"!")
        signal.pause()
    except BaseException:  # noqa: BLE001 - nothing of the test may go on in the child
        traceback.print_exc()
    finally:
        os._exit(1)
