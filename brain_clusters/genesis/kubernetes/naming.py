"""How pods are named and labelled. Agents' ids are longer, and hold more characters, than Kubernetes takes."""

from __future__ import annotations

import re
from hashlib import sha256

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "brain-clusters"
# A prefix of our own, since keys without one belong to the users of a cluster.
PREFIX = "brain-clusters/"
HOST, CLUSTER, GROUP, AGENT = (f"{PREFIX}{word}" for word in ("host", "cluster", "group", "agent"))
AGENT_ID = f"{PREFIX}agent-id"
STOP_SECONDS = f"{PREFIX}stop-seconds"

# A pod's name becomes its host name, which is one DNS label (RFC 1123).
_LONGEST = 63
_DIGITS = 10
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def pod_name(agent_id: str) -> str:
    """Return the name of an agent's pod: readable, valid, and with 40 bits of the id's digest never another's."""
    readable = re.sub(r"[^a-z0-9]+", "-", agent_id.lower())[: _LONGEST - _DIGITS - 1].strip("-")
    return f"{readable or 'agent'}-{_digest(agent_id)}"


def label_value(text: str) -> str:
    """Return ``text`` where it can be a label's value, and else what of it can be, told apart by a digest."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[: _LONGEST - _DIGITS - 1].strip("._-")
    return f"{readable or 'x'}-{_digest(text)}"


def selector(host_id: str) -> str:
    """Return what selects the pods of one host, and no others."""
    return f"{MANAGED_BY}={MANAGER},{HOST}={label_value(host_id)}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:_DIGITS]
