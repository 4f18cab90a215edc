"""How pods are named and labelled. Agents' ids are longer, and hold more characters, than Kubernetes takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "brain-clusters"
# A prefix of our own, since keys without one belong to the users of a cluster.
PREFIX = "brain-clusters/"
_WORDS = ("installation", "host", "cluster", "group", "agent")
INSTALLATION, HOST, CLUSTER, GROUP, AGENT = (f"{PREFIX}{word}" for word in _WORDS)
AGENT_ID = f"{PREFIX}agent-id"
STOP_SECONDS = f"{PREFIX}stop-seconds"

# A pod's name becomes its host name, which is one DNS label (RFC 1123).
_LONGEST = 63
_DIGITS = 10
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose pods they are: one host of one installation."""

    installation: str
    host_id: str

    def labels(self) -> dict[str, str]:
        """Return the labels by which its pods are found."""
        return {MANAGED_BY: MANAGER, INSTALLATION: label_value(self.installation), HOST: label_value(self.host_id)}

    def owns(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod with ``labels`` is one of this host."""
        return self.labels().items() <= labels.items()

    @property
    def selector(self) -> str:
        """What selects the pods of this host, and no others."""
        return ",".join(f"{key}={value}" for key, value in self.labels().items())

    def pod_name(self, agent_id: str) -> str:
        """Return the name of an agent's pod: readable, valid, and by 40 bits of a digest never another's."""
        readable = re.sub(r"[^a-z0-9]+", "-", agent_id.lower())[: _LONGEST - _DIGITS - 1].strip("-")
        return f"{readable or 'agent'}-{_digest(f'{self.installation} {agent_id}')}"


def label_value(text: str) -> str:
    """Return ``text`` where it can be a label's value, and else what of it can be, told apart by a digest."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[: _LONGEST - _DIGITS - 1].strip("._-")
    return f"{readable}-{_digest(text)}".lstrip("-")


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:_DIGITS]
