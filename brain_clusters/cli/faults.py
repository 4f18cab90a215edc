"""How errors look to a person, and which exit code each gives."""

from __future__ import annotations

import traceback

import click

from brain_clusters.cli.words import plain
from brain_clusters.errors import BrainError, Conflict, Fault, InvalidInput, NotFound

FAILED, USAGE, DIFFERS, NOT_FOUND = 1, 2, 3, 4


def exit_code(exc: BrainError) -> int:
    """Return the exit code that an error of ours gives."""
    if isinstance(exc, NotFound):
        return NOT_FOUND
    return USAGE if isinstance(exc, InvalidInput) else FAILED


def show_error(exc: BrainError) -> None:
    """Print an error of ours, with its faults one per line, and what is possible instead."""
    _tell(f"error: {exc}")
    for fault in exc.faults if isinstance(exc, InvalidInput) else ():
        _tell(f"  {_where(fault)}: {fault.message}")
    if isinstance(exc, Conflict) and exc.possible and "possible" not in str(exc):
        _tell(f"  it is {exc.status}; possible now: {', '.join(exc.possible)}")


def show_fault_of_ours(exc: Exception) -> None:
    """Print what nobody expected, in two lines, with the place where it happened."""
    last = traceback.extract_tb(exc.__traceback__)[-1]
    _tell(f"error: {type(exc).__name__}: {exc} ({last.filename}:{last.lineno})")
    _tell("  this is a fault of brain-clusters; 'brain-clusters --traceback COMMAND ...' shows more of it for a report")


def _tell(text: str) -> None:
    click.secho("\n".join(plain(line) for line in text.splitlines()), fg="red", err=True)


def _where(fault: Fault) -> str:
    position = "" if fault.line is None else f"line {fault.line}, column {fault.column}: "
    return f"{position}{fault.pointer or 'the whole document'}"
