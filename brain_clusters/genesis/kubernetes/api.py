"""The few calls of the Kubernetes API that the driver makes, on pods of one namespace, in plain JSON.

The official client brings credentials of every kind, keeps them fresh, and sends. Its models of all resources are not
used: they take four times the memory and three times the time to import, and a pod is a mapping anyway.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from brain_clusters.errors import BrainError, PermanentError, TemporaryError
from brain_clusters.genesis.kubernetes.refusals import refusal

Pod = Mapping[str, Any]

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 15.0
# A watch is asked for anew so often, and given up when it is silent for longer: it was cut without a word.
_WATCH_SECONDS = 30
_SILENCE_SECONDS = 45.0
_PAGE = 500
_IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Api:
    """Pods of one namespace. Used from several threads. Calls raise our errors, as ``refusals`` tells them apart.

    environ: where KUBECONFIG and the variables of a pod are looked for. context, namespace: None takes the kubeconfig's
    own, or the pod's. connections: how many are kept.
    """

    def __init__(
        self, environ: Mapping[str, str], *, context: str | None, namespace: str | None, connections: int
    ) -> None:
        self._environ = environ
        self._context = context
        self._namespace = namespace
        self._connections = connections
        self._client: Any = None
        self._stream: Any = None
        self._closed = False

    @property
    def namespace(self) -> str:
        """The namespace of all calls. After ``connect``."""
        return self._namespace or "default"

    def connect(self) -> None:
        """Load the credentials. Raises PermanentError, with what to do, where there are none."""
        from kubernetes import config
        from kubernetes.client.api_client import ApiClient
        from kubernetes.client.configuration import Configuration

        loaded = Configuration()
        path = self._environ.get("KUBECONFIG")
        try:
            if self._in_cluster:
                config.load_incluster_config(client_configuration=loaded)
                self._namespace = self._namespace or _IN_CLUSTER_NAMESPACE.read_text().strip()
            else:
                config.load_kube_config(path, context=self._context, client_configuration=loaded)
                self._namespace = self._namespace or _namespace_of_context(config, path, self._context)
        except Exception as exc:  # whatever is wrong with a file, or a plugin that it names
            told = f"no way to Kubernetes: {exc}; set KUBECONFIG, or run in a pod with a service account"
            raise PermanentError(told) from exc
        # Retries are ours: the client's own would repeat a call that took effect, without anybody knowing.
        loaded.retries = False
        loaded.connection_pool_maxsize = self._connections
        self._client = ApiClient(loaded)
        self._client.user_agent = "brain-clusters"

    @property
    def _in_cluster(self) -> bool:
        return "KUBERNETES_SERVICE_HOST" in self._environ and not (self._environ.get("KUBECONFIG") or self._context)

    # --- pods ---------------------------------------------------------------------------------------------------

    def list_pods(self, selector: str) -> tuple[list[Pod], str]:
        """Return all pods that ``selector`` selects, and the resource version from which they can be watched."""
        pods: list[Pod] = []
        query = {"labelSelector": selector, "limit": str(_PAGE)}
        while True:
            page = self._call("GET", self._path(), query)
            pods += page["items"]
            if not page["metadata"].get("continue"):
                return pods, page["metadata"]["resourceVersion"]
            query["continue"] = page["metadata"]["continue"]

    def get_pod(self, name: str) -> Pod:
        """Return a pod. Raises NotFound."""
        pod: Pod = self._call("GET", self._path(name))
        return pod

    def create_pod(self, manifest: Mapping[str, Any]) -> None:
        """Create a pod. Raises Conflict when its name is taken, NotFound when there is no such namespace."""
        self._call("POST", self._path(), body=manifest)

    def delete_pod(self, name: str, grace_seconds: int) -> None:
        """Have a pod end within ``grace_seconds``; 0 forgets it whatever becomes of it. Raises NotFound."""
        self._call("DELETE", self._path(name), {"gracePeriodSeconds": str(grace_seconds)})

    def read_log(self, name: str, lines: int) -> str:
        """Return the last lines that a pod wrote. Raises NotFound, and PermanentError for one that never ran."""
        query = {"tailLines": str(lines), "limitBytes": "65536"}
        return self._answer("GET", f"{self._path(name)}/log", query).decode(errors="replace")

    def read_warnings(self) -> dict[str, str]:
        """Return the newest event that warns of a pod, by the pod's uid. Kubernetes keeps events for an hour."""
        query = {"fieldSelector": "type=Warning,involvedObject.kind=Pod"}
        found = self._call("GET", f"/api/v1/namespaces/{self.namespace}/events", query)["items"]
        found.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return {
            event["involvedObject"]["uid"]: f"{event['reason']}: {event.get('message', '')}"[:1000]
            for event in found
            # That is in the status, and there only as long as it is true.
            if event["reason"] != "FailedScheduling" and "uid" in event["involvedObject"]
        }

    def _path(self, name: str | None = None) -> str:
        pods = f"/api/v1/namespaces/{self.namespace}/pods"
        return pods if name is None else f"{pods}/{name}"

    # --- watching -----------------------------------------------------------------------------------------------

    def watch_pods(self, selector: str, version: str) -> Iterator[tuple[str, Pod]]:
        """Yield (type, pod) for all that happens since ``version``, bookmarks too, until the stream ends or breaks.

        Raises Expired when that is not known any more, and what a call raises when there is no stream at all.
        """
        import urllib3

        query = {
            "labelSelector": selector, "watch": "true", "allowWatchBookmarks": "true",
            "resourceVersion": version, "timeoutSeconds": str(_WATCH_SECONDS),
        }  # fmt: skip
        answer = self._send("GET", self._path(), query, None, silence=_SILENCE_SECONDS)
        self._stream = answer
        try:
            if self._closed:
                return
            for line in _lines(answer):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise refusal(event["object"].get("code", 500), json.dumps(event["object"]).encode(), {})
                yield event["type"], event["object"]
        except (urllib3.exceptions.HTTPError, OSError, json.JSONDecodeError):
            return  # cut, maybe in the middle of a line: all since the last whole one is asked for again
        finally:
            self._stream = None
            answer.close()

    def hang_up(self) -> None:
        """End the watch, and let no other begin. Called from another thread than that which reads."""
        self._closed = True
        connection = getattr(self._stream, "connection", None)
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Drop all connections."""
        if self._client is not None:
            self._client.close()

    # --- calls --------------------------------------------------------------------------------------------------

    def _call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        return json.loads(self._answer(method, path, query, body))

    def _answer(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> bytes:
        import urllib3

        answer = self._send(method, path, query, body, silence=_ANSWER_SECONDS)
        try:
            return bytes(answer.data)
        except urllib3.exceptions.HTTPError as exc:
            raise TemporaryError(f"the answer of Kubernetes was cut off: {exc}", delay_seconds=1) from exc
        finally:
            answer.release_conn()

    def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None, *,
        silence: float,
    ) -> Any:  # fmt: skip
        """Return the answer, not read yet. silence: seconds without a byte after which it is given up."""
        import urllib3
        from kubernetes.client.exceptions import ApiException

        client = self._client
        request = client.param_serialize(
            method, path, query_params=dict(query or {}), header_params={"Accept": "application/json"},
            body=body, auth_settings=["BearerToken"],
        )  # fmt: skip
        try:
            answer = client.call_api(*request, _request_timeout=(_CONNECT_SECONDS, silence)).response
            if not 200 <= answer.status <= 299:
                raise self._refused(answer.status, answer.data, answer.headers)
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as exc:
            host = client.configuration.host
            raise TemporaryError(f"no answer from Kubernetes at {host}: {_brief(exc)}", delay_seconds=1) from exc
        return answer

    def _refused(self, status: int, body: bytes, headers: Mapping[str, str]) -> BrainError:
        found = refusal(status, body, headers)
        if status == 401:
            # What was loaded has expired; maybe what lies on the disk by now has not.
            with suppress(PermanentError):
                self.connect()
        return found


def _lines(answer: Any) -> Iterator[bytes]:
    """Yield the lines of an answer as they come."""
    rest = b""
    for piece in answer.stream(amt=None, decode_content=False):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line.strip())


def _namespace_of_context(config: Any, path: str | None, context: str | None) -> str | None:
    """Return the namespace that a context of the kubeconfig states."""
    contexts, active = config.list_kube_config_contexts(path)
    chosen = next((one for one in contexts if one["name"] == context), active)
    found: str | None = chosen["context"].get("namespace")
    return found


def _brief(exc: Exception) -> str:
    """Return what happened, without the objects that urllib3 names in its messages."""
    reason = getattr(exc, "reason", None) or exc
    return f"{type(reason).__name__}: {str(reason).rpartition('>: ')[2]}"[:300]
