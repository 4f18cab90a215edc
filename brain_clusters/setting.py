"""How a setting is declared, and what its variable may say. The settings themselves are in ``config``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from brain_clusters.domain.access import Role
from brain_clusters.domain.addresses import parse_networks
from brain_clusters.domain.currencies import CODES
from brain_clusters.domain.engines import parse_cpu, parse_memory


def number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], Any]:
    """Return a parser of numbers of ``kind`` from ``low`` to ``high``."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"is not {'a whole number' if kind is int else 'a number'}") from None
        if not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:g}")
        return value

    return parse


def url(*schemes: str) -> Callable[[str], str]:
    """Return a parser of URLs that accepts ``schemes``."""

    def parse(text: str) -> str:
        if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return text

    return parse


def cores(text: str) -> float:
    """Return ``text`` in cores."""
    return parse_cpu(text)


def memory(text: str) -> int:
    """Return ``text`` in bytes."""
    return parse_memory(text)


def path(text: str) -> Path:
    """Return ``text`` as an absolute path, with ~ expanded."""
    return Path(text).expanduser().absolute()


def words(text: str) -> tuple[str, ...]:
    """Return the comma-separated words of ``text``."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def word(text: str) -> str:
    """Return ``text`` when it holds no blanks."""
    if not re.fullmatch(r"\S+", text):
        raise ValueError("must not hold blanks")
    return text


def switch(text: str) -> bool:
    """Return whether ``text`` says yes."""
    if text.lower() not in ("0", "1", "false", "true"):
        raise ValueError("must be 1 or 0")
    return text.lower() in ("1", "true")


def one_of(*allowed: str) -> Callable[[str], str]:
    """Return a parser of one of a few words."""

    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"must be {' or '.join(allowed)}")
        return text.lower()

    return parse


def dns_label(text: str) -> str:
    """Return ``text`` when it can name a namespace of Kubernetes (RFC 1123)."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise ValueError("must be up to 63 lower-case letters, digits and '-', a letter or digit first and last")
    return text


def dns_subdomain(text: str) -> str:
    """Return ``text`` when it can name an object of Kubernetes (RFC 1123)."""
    if len(text) > 253 or not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", text):
        raise ValueError("must be lower-case letters, digits, '-' and '.', a letter or digit first and last")
    return text


def drivers(text: str) -> tuple[str, ...]:
    """Return the comma-separated drivers of ``text``, which are installed, each once."""
    from brain_clusters.drivers import check_name  # here: finding packages is slow, and few processes start drivers

    found = tuple(dict.fromkeys(words(text)))
    for name in found:
        check_name(name)
    return found


def keys(text: str) -> tuple[str, ...]:
    """Return the comma-separated API keys of ``text``; a short key is refused."""
    found = words(text)
    if any(len(key) < 16 for key in found):
        raise ValueError("must be keys of at least 16 characters each")
    return found


def host_id(text: str) -> str:
    """Return ``text`` when it can name a host."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", text):
        raise ValueError("may hold up to 100 letters, digits, '.', '_' and '-'")
    return text


def roles(text: str) -> tuple[tuple[str, str], ...]:
    """Return the comma-separated words of ``text``, each with the role that it means."""
    found = tuple((word.strip(), role.strip().lower()) for word, _, role in (one.partition("=") for one in words(text)))
    if not found or any(not word or role not in list(Role) for word, role in found):
        raise ValueError(f"must be words with a role each, such as ops=operator, root=admin; roles: {', '.join(Role)}")
    return found


def host_names(text: str) -> tuple[str, ...]:
    """Return the comma-separated names of hosts in ``text``, without ports, in lower case."""
    found = tuple(word.lower() for word in words(text))
    for name in found:
        if not re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", name):
            raise ValueError("must hold names or addresses without ports, such as brain.example.org or [::1]")
    return found


def web_hook(text: str) -> str:
    """Return ``text`` when it is a URL that can be posted to."""
    found = urlsplit(text)
    if found.scheme not in ("http", "https") or not found.hostname or not re.fullmatch("[!-~]+", text):
        raise ValueError("must be a URL such as https://hooks.example.org/brain")
    _ = found.port  # raises ValueError where it is no port
    return text


def web_address(text: str) -> str:
    """Return ``text``, without a slash at its end, when it is a URL that paths can be put after."""
    found = urlsplit(web_hook(text))
    if found.query or found.fragment or "@" in found.netloc:
        raise ValueError("must be a URL without a user, a query and a fragment")
    return text.rstrip("/")


def currency(text: str) -> str:
    """Return ``text`` when it is a code of ISO 4217."""
    if text.upper() not in CODES:
        raise ValueError("must be a code of ISO 4217 such as USD or EUR")
    return text.upper()


def networks(text: str) -> tuple[str, ...]:
    """Return the comma-separated networks of ``text``."""
    found = words(text)
    try:
        parse_networks(found)
    except ValueError as exc:
        raise ValueError(f"must hold networks such as 10.0.0.0/8, by commas ({exc})") from None
    return found


def reference(text: str) -> str:
    """Return ``text`` when it says where a secret is."""
    if not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+", text):
        raise ValueError("must say where the secret is: env:NAME or file:PATH")
    return text


def written(value: Any) -> str:
    """Return a setting's value as its variable has it."""
    if isinstance(value, tuple):
        return ",".join("=".join(one) if isinstance(one, tuple) else str(one) for one in value)
    return str(value)


def declare(
    variable: str, parse: Callable[[str], Any], default: Any, about: str, *,
    secret: bool = False, mask: Callable[[str], str] | None = None,
) -> Any:  # fmt: skip
    """Declare one field of Settings: its variable, how it is read, and a sentence about it.

    mask: how a secret is shown; as a URL without its password unless given.
    """
    about_it = {"variable": variable, "parse": parse, "about": about, "secret": secret, "mask": mask}
    return field(default=default, metadata=about_it)
