"""The Docker driver: an agent is a container. The only package that imports Docker's SDK."""

from brain_clusters.errors import PermanentError

try:
    import docker.errors  # noqa: F401 - a module of it, as any folder may bear the name
except ModuleNotFoundError as exc:
    raise PermanentError(
        "the driver docker needs Docker's SDK, which is not installed: pip install 'brain-clusters[docker]'"
    ) from exc
