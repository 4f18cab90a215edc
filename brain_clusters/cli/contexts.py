"""Named APIs of this user: a file in the directory of configurations, readable by its owner only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from brain_clusters.config import user_config_home
from brain_clusters.errors import InvalidInput, NotFound, PermanentError

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Context:
    """An API and how to be let in. key_file: a file that holds the key, read when it is needed."""

    api: str
    key: str | None = None
    key_file: str | None = None

    def read_key(self) -> str | None:
        """Return the key; raise PermanentError when its file cannot be read."""
        if self.key_file is None:
            return self.key
        try:
            return Path(self.key_file).expanduser().read_text().strip() or None
        except (OSError, ValueError) as exc:
            raise PermanentError(f"the key's file cannot be read: {exc}") from exc


@dataclass(slots=True)
class Contexts:
    """All contexts by name. current: None is the system of this machine."""

    path: Path
    current: str | None = None
    known: dict[str, Context] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Contexts:
        """Return what the file says, nothing when there is none; raise PermanentError when it cannot be read."""
        path = user_config_home() / "brain-clusters" / "config.json"
        try:
            data = json.loads(path.read_text())
            known = {name: Context(**told) for name, told in data["contexts"].items()}
            return cls(path, data["current"], known)
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise PermanentError(f"{path} cannot be read ({exc}); mend it, or remove it and begin anew") from exc

    def save(self) -> None:
        """Write the file in one step, readable by its owner only."""
        from brain_clusters.embedded.server import write_private  # here: most commands write nothing

        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        contexts = {name: _stated(one) for name, one in self.known.items()}
        write_private(self.path, json.dumps({"current": self.current, "contexts": contexts}, indent=2) + "\n")

    def get(self, name: str) -> Context:
        """Return a context; raise NotFound with those that there are."""
        if name not in self.known:
            raise NotFound(f"there is no context {name!r}; there are {', '.join([LOCAL, *self.known])}")
        return self.known[name]

    def put(self, name: str, context: Context) -> None:
        """Add or change a context."""
        if name == LOCAL or not name.isprintable() or not name:
            raise InvalidInput(f"{name!r} cannot be a context's name: {LOCAL} is this machine's own system")
        self.known[name] = context

    def exposed(self) -> bool:
        """Return whether others than the owner may read the file."""
        try:
            return bool(self.path.stat().st_mode & 0o077)
        except OSError:
            return False


def _stated(context: Context) -> dict[str, Any]:
    return {name: value for name, value in asdict(context).items() if value is not None}
