"""Tokens of an issuer (JWT, RFC 7519): who they name, and what that one may do.

Signatures are checked with the keys that the issuer publishes (JWKS, RFC 7517), by asymmetric algorithms only: with a
shared secret, whoever can check a token could make one. Needs the package's extra ``jwt``.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from brain_clusters.config import Settings
from brain_clusters.domain.access import Identity, Role
from brain_clusters.domain.addresses import is_loopback
from brain_clusters.errors import ConfigError, TemporaryError

if TYPE_CHECKING:
    from jwt import PyJWK

log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LEEWAY_SECONDS = 30
_TIMEOUT_SECONDS = 5.0
_LARGEST_ANSWER = 1 << 20
# Keys are read anew after so long, and when a token names one that is not known, but no sooner than after the pause,
# which doubles while the issuer does not answer. Meanwhile keys that were read once go on for a day.
_FRESH_SECONDS = 600.0
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 300.0
_LAST_SECONDS = 86_400.0
_ALL = "*"


def looks_like_one(shown: str) -> bool:
    """Return whether a bearer may be a token: three parts, the first of them the text of a JSON object."""
    return shown.startswith("eyJ") and shown.count(".") == 2


class Tokens:
    """Reads tokens of the issuer in ``settings``. Safe to share by threads. Raises ConfigError for what cannot work."""

    def __init__(self, settings: Settings, fetch: Callable[[str], Any] | None = None) -> None:
        try:
            import jwt
        except ImportError:
            told = "BRAIN_JWT_ISSUER needs the extra jwt: pip install 'brain-clusters[jwt]'"
            raise ConfigError(told) from None
        if settings.jwt_issuer is None or settings.jwt_audience is None:
            raise ConfigError("BRAIN_JWT_AUDIENCE: tokens need both an issuer and the audience that this API is in")
        _check_address(settings.jwt_jwks_url or settings.jwt_issuer)
        self._jwt, self._settings = jwt, settings
        self._keys = _Keys(settings, fetch or _fetched)

    def identify(self, shown: str) -> Identity | None:
        """Return whom a token names; None for one that is wrong, of somebody else, or over.

        Raises TemporaryError while the issuer's keys cannot be read.
        """
        try:
            key = self._keys.get(self._jwt.get_unverified_header(shown).get("kid"))
            if key is None or key.algorithm_name not in ALGORITHMS:
                return None
            claims = self._jwt.decode(
                shown, key, algorithms=[key.algorithm_name], issuer=self._settings.jwt_issuer, leeway=_LEEWAY_SECONDS,
                audience=self._settings.jwt_audience, options={"require": ["exp", "iss", "aud", "sub"]},
            )  # fmt: skip
            return identity_of(claims, self._settings)
        # Of an end that is no time, such as one in milliseconds: ValueError or OverflowError.
        except (self._jwt.PyJWTError, ValueError, OverflowError) as exc:
            log.info("a token was refused: %s", type(exc).__name__)
            return None


def identity_of(claims: Mapping[str, Any], settings: Settings) -> Identity | None:
    """Return whom checked claims name; None where they give no role, or no tags though these are asked for."""
    role, tags = _role(claims, settings), _tags(claims, settings)
    subject = str(claims["sub"])
    if role is None or tags is None:
        missing = settings.jwt_role_claim if role is None else settings.jwt_tags_claim
        log.info("a token of %r was refused: its claim %r gives nothing", subject, missing)
        return None
    name = next((claims[one] for one in ("preferred_username", "email") if isinstance(claims.get(one), str)), subject)
    of = sha256(f"{claims['iss']}\0{subject}".encode("utf-8", "surrogateescape")).hexdigest()
    return Identity(
        name=name[:200], role=role, payloads=_claimed(claims, settings.jwt_payloads_claim) is True, tags=tags,
        key_id=f"jwt-{of[:12]}", method="token", until=datetime.fromtimestamp(claims["exp"], UTC),
    )  # fmt: skip


def _role(claims: Mapping[str, Any], settings: Settings) -> Role | None:
    """Return the highest role that the claim's words stand for."""
    words = dict(settings.jwt_roles)
    given = [Role(words[word]) for word in _words(_claimed(claims, settings.jwt_role_claim)) if word in words]
    return max(given, key=list(Role).index, default=None)


def _tags(claims: Mapping[str, Any], settings: Settings) -> tuple[str, ...] | None:
    """Return the tags of a token. Where a claim is to give them, one without sees nothing: ``*`` means all."""
    if settings.jwt_tags_claim is None:
        return ()
    words = _words(_claimed(claims, settings.jwt_tags_claim))
    return () if _ALL in words else tuple(dict.fromkeys(words)) or None


def _claimed(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or by its path with dots in between, as in realm_access.roles."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _words(found: Any) -> list[str]:
    given = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    return [word for word in given if isinstance(word, str) and word and "\0" not in word]


# --- keys ---------------------------------------------------------------------------------------------------------


class _Keys:
    """The issuer's keys by their ids, read when they are needed."""

    def __init__(self, settings: Settings, fetch: Callable[[str], Any]) -> None:
        self._issuer, self._url, self._fetch = settings.jwt_issuer, settings.jwt_jwks_url, fetch
        self._lock = threading.Lock()
        self._known: dict[str, PyJWK] = {}
        self._read_at, self._next_at, self._pause = -_LAST_SECONDS, 0.0, _PAUSE_SECONDS

    def get(self, kid: object) -> PyJWK | None:
        """Return a key; None where the issuer has none of that id. Raises TemporaryError."""
        known = self._known.get(kid) if isinstance(kid, str) else None
        stale = time.monotonic() - self._read_at > _FRESH_SECONDS
        if known is not None and not stale:
            return known
        with self._lock:
            if time.monotonic() >= self._next_at:
                self._read()
        if time.monotonic() - self._read_at > _LAST_SECONDS:
            raise TemporaryError("the keys of the tokens' issuer cannot be read; try again in a moment")
        return self._known.get(kid) if isinstance(kid, str) else None

    def _read(self) -> None:
        try:
            self._known = _parsed(self._fetch(self._address()))
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as exc:
            log.warning("the keys of %s cannot be read: %s: %s", self._issuer, type(exc).__name__, exc)
            self._next_at = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
            return
        self._read_at, self._pause = time.monotonic(), _PAUSE_SECONDS
        self._next_at = self._read_at + self._pause

    def _address(self) -> str:
        """Return where the keys are: as it is set, or as the issuer's own description says (OpenID Discovery)."""
        if self._url is None:
            found = self._fetch(f"{str(self._issuer).rstrip('/')}/.well-known/openid-configuration")
            if found["issuer"] != self._issuer:
                raise ValueError("its description is of another issuer")
            _check_address(found["jwks_uri"])
            self._url = str(found["jwks_uri"])
        return self._url


def _parsed(document: Any) -> dict[str, PyJWK]:
    """Return the keys for signatures; what is of another use, or of a kind that is not for us, is left out."""
    from jwt import PyJWK, PyJWTError

    found = {}
    for one in document["keys"]:
        if one.get("kty") == "oct" or one.get("use", "sig") != "sig" or not isinstance(one.get("kid"), str):
            continue
        try:
            found[one["kid"]] = PyJWK.from_dict(one)
        except PyJWTError as exc:
            log.warning("the key %r of the tokens' issuer is of no use here: %s", one["kid"], exc)
    return found


def _check_address(url: str) -> None:
    """Raise ConfigError for an address that somebody in between could answer for."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise ConfigError(f"BRAIN_JWT_JWKS_URL: {url!r} must begin with https://, or be of this machine")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow nothing: the keys are where it was said."""
        return


def _fetched(url: str) -> Any:
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler())
    with opener.open(url, timeout=_TIMEOUT_SECONDS) as answer:
        data = answer.read(_LARGEST_ANSWER + 1)
    if len(data) > _LARGEST_ANSWER:
        raise ValueError("the answer is too large")
    return json.loads(data)
