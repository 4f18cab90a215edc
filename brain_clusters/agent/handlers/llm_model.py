"""A group's model: where it is, what it is asked, and what a call of it may cost and did cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from brain_clusters.agent import wire
from brain_clusters.agent.config import AgentConfig
from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import BudgetExceeded, Retry
from brain_clusters.agent.handlers.llm_answer import Answer
from brain_clusters.agent.secrets import resolved
from brain_clusters.broker.budget import Budgets, Refused, Reservation
from brain_clusters.broker.client import connect
from brain_clusters.domain.addresses import parse_networks
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.pricing import UNMETERED, micros, priced_by_use, use_price
from brain_clusters.domain.work import LlmCall
from brain_clusters.errors import PermanentError, TemporaryError

if TYPE_CHECKING:
    from brain_clusters.agent.handlers.llm_tools import Tool

# What one answer may be where nothing is stated and a budget has to know.
DEFAULT_MAX_TOKENS = 4096
CALL_SECONDS = 600.0
IDLE_SECONDS = 120.0
_MOST_BYTES = 16 * 1024 * 1024
# Fewer than most languages and programs have, so that estimates are rather too high.
_CHARACTERS_A_TOKEN = 3


class Model:
    """Shared by all jobs of an agent. Connects to Redis when a budget is first needed: in the process that needs it."""

    def __init__(self, call: LlmCall, spec: AgentSpec, config: AgentConfig, tools: Mapping[str, Tool]) -> None:
        self.call, self.tools = call, tools
        self._spec, self._config = spec, config
        base_url = call.base_url or config.llm_base_url
        if base_url is None:
            raise PermanentError("no endpoint is known; set BRAIN_LLM_BASE_URL, or base_url in the blueprint's llm")
        self.base_url = base_url
        # An operator may name any endpoint; a blueprint, what its requests may reach.
        self._allowed = parse_networks(config.http_allowed_networks) if call.base_url else None
        # The installation's key is for the installation's endpoint, and for no other.
        self._key = call.api_key or (None if call.base_url else config.llm_api_key)

    @cached_property
    def _budgets(self) -> Budgets:
        return Budgets(connect(self._config.redis_url))

    @property
    def _bounded(self) -> bool:
        budget = self._spec.budget
        return (budget.per_day is not None or budget.per_tree is not None) and priced_by_use(self._spec.cost)

    def key(self) -> str | None:
        """Return the endpoint's key, read anew for each call: a file's may change."""
        return None if self._key is None else resolved(self._key, "the model's api_key")

    def rules(self) -> wire.Rules:
        """Return what holds for one call."""
        return wire.Rules(
            allowed=self._allowed, total_seconds=CALL_SECONDS, idle_seconds=IDLE_SECONDS, most_bytes=_MOST_BYTES
        )

    def request(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the request of one call. Where a budget holds, an answer has a longest length."""
        call = self.call
        max_tokens = call.max_tokens or (DEFAULT_MAX_TOKENS if self._bounded else None)
        given: dict[str, Any] = {"temperature": call.temperature, "max_tokens": max_tokens}
        if self.tools:
            given["tools"] = [tool.declaration() for tool in self.tools.values()]
        stated = {key: value for key, value in given.items() if value is not None}
        options = {"include_usage": True}
        return {"model": call.model, "messages": messages, "stream": True, "stream_options": options, **stated}

    @contextmanager
    def reserved(self, request: dict[str, Any], context: JobContext) -> Iterator[Spending]:
        """Reserve what a call may cost and settle it at the end, however that comes."""
        spending = Spending(request)
        reservation = self._reserve(spending, context) if self._bounded else None
        try:
            yield spending
        finally:
            with context.undisturbed():
                spending.count(context)
                if reservation is not None:
                    self._settle(reservation, spending, context)

    def _reserve(self, spending: Spending, context: JobContext) -> Reservation:
        spec, root = self._spec, context.root_id or context.job_id
        try:
            estimate = self._micros(spending.estimate)
            with context.undisturbed():
                found = self._budgets.reserve(spec.budget, spec.cluster_id, root, estimate, CALL_SECONDS + 60)
        except TemporaryError as exc:
            raise Retry(message=f"the budget cannot be asked: {exc}") from exc
        if isinstance(found, Refused):
            raise BudgetExceeded(str(found))
        return found

    def _settle(self, reservation: Reservation, spending: Spending, context: JobContext) -> None:
        try:
            self._budgets.settle(reservation, self._micros(spending.actual))
        except TemporaryError as exc:
            context.log.error("a call was paid and its budget does not know: %s", exc)

    def _micros(self, usage: Mapping[str, int]) -> int:
        price = use_price(self._spec.cost, usage)
        return 0 if price is None else micros(price)


class Spending:
    """What one call spends: an estimate that is rather too high, and what is known of it afterwards."""

    def __init__(self, request: dict[str, Any]) -> None:
        told = json.dumps([request["messages"], request.get("tools")], ensure_ascii=False)
        read = math.ceil(len(told) / _CHARACTERS_A_TOKEN)
        self.estimate = {"calls": 1, "input_tokens": read, "output_tokens": request.get("max_tokens") or 0}
        self.answer = Answer()
        self.refused = False

    @property
    def actual(self) -> dict[str, int]:
        """What it comes to: nothing when it was refused, and the estimate while nobody told."""
        if self.refused:
            return {"calls": 0, "input_tokens": 0, "output_tokens": 0}
        return self.estimate if self.answer.usage is None else self.estimate | self.answer.usage

    def count(self, context: JobContext) -> None:
        """Count it as the job's usage, as far as it is known."""
        if self.refused:
            return
        context.usage.add(calls=1, **(self.answer.usage or {UNMETERED: 1}))
