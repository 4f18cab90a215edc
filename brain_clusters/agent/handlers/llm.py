"""``llm: {model, ...}``: a conversation for each job with a model behind an OpenAI-compatible endpoint.

The payload is a text, {"prompt": text} or {"messages": [...]}. What it answers is streamed; skills that it asks for are
done here and now. Every call is counted in ``context.usage`` and, where the cluster has a budget and the group prices,
reserved before and settled after.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import httpx2

from brain_clusters.agent import wire
from brain_clusters.agent.config import AgentConfig
from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError, Retry
from brain_clusters.agent.handlers import skills
from brain_clusters.agent.handlers.functions import Handler
from brain_clusters.agent.handlers.llm_answer import Answer
from brain_clusters.agent.handlers.llm_model import Model, Spending
from brain_clusters.agent.secrets import without
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.retry_after import retry_after
from brain_clusters.domain.work import LlmCall
from brain_clusters.errors import PermanentError

MOST_TOOL_ROUNDS = 10
MOST_TOOL_CALLS = 100
MOST_TOKENS = 1_000_000
_SHOWN_CHARACTERS = 500


def preload(tools: Sequence[str]) -> None:
    """Import what conversations need. What is missing is told by ``handler``, to each job."""
    with suppress(ImportError):
        import openai.resources.chat.completions.completions  # noqa: F401 - the library itself does it late

        from brain_clusters.agent.handlers import llm_tools  # noqa: F401 - for its agents
    with suppress(PermanentError):
        skills.preload(tools)


def handler(spec: AgentSpec, config: AgentConfig) -> Handler:
    """Return a handler that has the conversations of ``spec``'s group, or one that says what it lacks."""
    assert spec.llm is not None  # noqa: S101 - the caller looked
    try:
        import openai  # noqa: F401 - whether it is there

        from brain_clusters.agent.handlers import llm_tools
    except ImportError:
        return _refusal("groups with `llm` need the extra of that name: pip install 'brain-clusters[llm]'")
    try:
        model = Model(spec.llm, spec, config, llm_tools.load(spec.llm.tools))
    except PermanentError as exc:
        return _refusal(str(exc))
    return lambda payload, context: Conversation(model, context).result(_messages(payload, model.call))


def _refusal(message: str) -> Handler:
    def refuse(_payload: Any, _context: JobContext) -> Any:
        raise HandlerError(message)

    return refuse


def _messages(payload: Any, call: LlmCall) -> list[dict[str, Any]]:
    given = payload.get("messages") if isinstance(payload, Mapping) else None
    prompt = payload.get("prompt") if isinstance(payload, Mapping) else payload
    if isinstance(given, list) and given and all(isinstance(one, dict) and "role" in one for one in given):
        messages = list(given)
    elif isinstance(prompt, str) and given is None:
        messages = [{"role": "user", "content": prompt}]
    else:
        raise HandlerError('a model takes a text, {"prompt": text} or {"messages": [{"role": ..., "content": ...}]}')
    return [*([{"role": "system", "content": call.system_prompt}] if call.system_prompt else []), *messages]


class Conversation:
    """One job: calls of the model and of the tools that it asks for, in turn."""

    def __init__(self, model: Model, context: JobContext) -> None:
        self._model = model
        self._context = context
        self._characters = 0
        self._done: list[dict[str, Any]] = []
        self._secrets: list[str] = []

    def result(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the last answer. Raises HandlerError when tools are asked for without end."""
        for _ in range(MOST_TOOL_ROUNDS + 1):
            answer = self._ask(messages)
            if not answer.calls:
                return {
                    "text": answer.text,
                    "finish_reason": answer.finish_reason,
                    "model": answer.model or self._model.call.model,
                    "tool_calls": self._done,
                    "usage": self._context.usage.as_dict(),
                }
            self._check_tokens()
            messages = [*messages, *self._tools_called(answer)]
        raise HandlerError(f"the model still asks for tools after {MOST_TOOL_ROUNDS} rounds")

    def _check_tokens(self) -> None:
        used = self._context.usage.as_dict() or {}
        tokens = used.get("input_tokens", 0) + used.get("output_tokens", 0)
        if tokens > MOST_TOKENS:
            raise HandlerError(f"the job has used {tokens:g} tokens, and may use {MOST_TOKENS}")

    def _tools_called(self, answer: Answer) -> list[dict[str, Any]]:
        """Do the calls that the model asks for; return them and their answers as messages."""
        calls = answer.calls
        messages: list[dict[str, Any]] = [
            {"role": "assistant", "content": answer.text or None, "tool_calls": [call.as_message() for call in calls]}
        ]
        for call in calls:
            self._context.raise_if_cancelled()
            if len(self._done) >= MOST_TOOL_CALLS:
                raise HandlerError(f"the model asks for more than {MOST_TOOL_CALLS} calls of tools")
            tool = self._model.tools.get(call.name)
            known = ", ".join(self._model.tools) or "none"
            said = (
                tool.call(call.arguments, self._context)
                if tool is not None
                else f"error: there is no tool {call.name!r:.100}; there are: {known}"
            )
            self._done.append({"name": call.name, "arguments": call.arguments, "answer": said[:_SHOWN_CHARACTERS]})
            messages.append({"role": "tool", "tool_call_id": call.id, "content": said})
        return messages

    def _ask(self, messages: list[dict[str, Any]]) -> Answer:
        """Have one answer, counted and paid."""
        key, request = self._model.key(), self._model.request(messages)
        self._secrets = [key] if key else []
        with self._model.reserved(request, self._context) as spending, self._translated(spending):
            self._stream(key, request, spending.answer)
        return spending.answer

    def _stream(self, key: str | None, request: dict[str, Any], answer: Answer) -> None:
        import openai

        with wire.client(self._context, self._model.rules()) as http:
            endpoint = openai.OpenAI(
                api_key=key or "none", base_url=self._model.base_url, http_client=http, max_retries=0, timeout=None
            )
            # Read from variables that are meant for another endpoint, perhaps.
            endpoint.organization = endpoint.project = None
            with endpoint.chat.completions.create(**request) as stream:
                _check_kind(stream.response)
                for chunk in stream:
                    answer.take(chunk.to_dict(warnings=False) if isinstance(chunk, openai.BaseModel) else chunk)
                    self._context.progress(0.0, f"{self._characters + answer.characters} characters")
        if answer.finish_reason is None:
            raise Retry(message="the answer ended before it was finished")
        self._characters += answer.characters

    @contextmanager
    def _translated(self, spending: Spending) -> Iterator[None]:
        """Turn what the library raises into our errors, without secrets, and note whether the call was refused."""
        import openai

        try:
            yield
        except openai.APIStatusError as exc:
            spending.refused = True
            said = f"the endpoint answered {exc.status_code}: {self._clean(_words(exc))}"
            if exc.status_code in (408, 409, 429) or exc.status_code >= 500:
                raise Retry(retry_after(exc.response.headers, time.time()), said) from None
            raise HandlerError(said) from None
        except openai.APIConnectionError as exc:
            cause = exc.__cause__
            if isinstance(cause, HandlerError | Retry):
                spending.refused = True
                raise cause from None
            spending.refused = isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout)
            raise Retry(
                message=f"the endpoint cannot be reached or broke off: {self._clean(str(cause or exc))}"
            ) from None
        except openai.OpenAIError as exc:
            raise HandlerError(f"the endpoint answered with an error: {self._clean(str(exc))}") from None
        except (ValueError, TypeError, AttributeError) as exc:
            raise HandlerError(f"the endpoint sent what is no chat completion: {self._clean(str(exc))}") from None

    def _clean(self, text: str) -> str:
        return without(self._secrets, text)[:_SHOWN_CHARACTERS]


def _check_kind(response: httpx2.Response) -> None:
    """Raise HandlerError with what came instead of a stream of events."""
    kind = response.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        start = b"".join(piece for _, piece in zip(range(1), response.iter_bytes(), strict=False))
        shown = start[: 4 * _SHOWN_CHARACTERS].decode(errors="replace")
        raise ValueError(f"{kind or 'something of no stated type'} and not a stream of events: {shown}")


def _words(exc: Any) -> str:
    """Return what an endpoint said of an error: its message where there is one, else its body."""
    body = exc.body
    said = body.get("message") if isinstance(body, dict) else body
    return str(said) if said else "(nothing else)"
