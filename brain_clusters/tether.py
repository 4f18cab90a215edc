"""Run a program that ends when its parent ends. Executed as a script, before the program, by ``processes.tethered``.

    python -I -S tether.py SIGNAL PARENT_PID UID:GID|- PROGRAM [ARGUMENT...]

A script of its own and not a ``preexec_fn``: that is unsafe in a process with threads. It sets the death signal
after it changed the user, since the kernel clears it at such a change. Only Linux knows a death signal; elsewhere
this only changes the user. The kernel watches the *thread* that started us, so start from one that stays.
"""

from __future__ import annotations

import ctypes  # here, not later: the other account may be unable to reach the standard library
import os
import sys

_PR_SET_PDEATHSIG = 1


def _become(account: str) -> None:
    """Drop root's rights for those of ``account`` ("uid:gid")."""
    uid, gid = map(int, account.split(":"))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _end_with_parent(signal_number: int, parent: int) -> None:
    """Ask the kernel for ``signal_number`` at the parent's death; leave at once when it is dead already."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


def main() -> None:
    """Tether this process and become the program."""
    signal_number, parent, account, *argv = sys.argv[1:]
    if account != "-":
        _become(account)
    _end_with_parent(int(signal_number), int(parent))
    os.execv(argv[0], argv)  # noqa: S606  (a shell is the last thing wanted here)


if __name__ == "__main__":
    main()
