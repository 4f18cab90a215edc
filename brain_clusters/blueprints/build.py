"""A sound document to ``specs.Blueprint``. Nothing is checked here any more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Literal

from brain_clusters.blueprints.alerts import alert_rules
from brain_clusters.blueprints.nodes import escape
from brain_clusters.blueprints.schema_scaling import FIELDS
from brain_clusters.blueprints.schema_work import KINDS
from brain_clusters.domain.durations import parse_duration, parse_percent
from brain_clusters.domain.engines import PROCESS, Engine, resources
from brain_clusters.domain.rollouts import parse_max_parallel
from brain_clusters.domain.specs import (
    AgentGroup,
    Blueprint,
    Budget,
    DestroyRules,
    HibernateRules,
    Lifecycle,
    ReactivateRules,
    RolloutPolicy,
    ScalingPolicy,
    ScalingSchedule,
    Tree,
    parse_count,
    slug,
)
from brain_clusters.domain.states import AgentRole, ClusterType
from brain_clusters.domain.work import HttpCall, LlmCall, celery_app, llm_call

_PAUSED: dict[bool | str, Literal["no", "in", "out", "both"]] = {False: "no", True: "both", "in": "in", "out": "out"}


def build(document: Mapping[str, Any]) -> Blueprint:
    """Return what a validated document (defaults filled in) says."""
    metadata, cluster = document["metadata"], document["cluster"]
    groups = tuple(_groups(document["agents"], cluster.get("driver", PROCESS)))
    minimum = sum(group.count.minimum for group in groups)
    return Blueprint(
        id=metadata["id"],
        name=metadata["name"],
        version=metadata["version"],
        author=metadata.get("author"),
        description=metadata.get("description"),
        tags=tuple(metadata.get("tags", ())),
        cluster_type=ClusterType(cluster["type"]),
        min_workers=cluster["min_workers"],
        max_workers=cluster["max_workers"],
        default_workers=cluster.get("default_workers", max(cluster["min_workers"], minimum)),
        groups=groups,
        scaling=_scaling(cluster["scaling"]),
        lifecycle=_lifecycle(document.get("lifecycle", {})),
        budget=Budget(**document["budget"]),
        tree=Tree(**cluster["delegation"]),
        rollout=_rollout(document["rollout"]),
        resources=document.get("resources", {}),
        monitoring=document.get("monitoring", {}),
        alerts=alert_rules(document.get("monitoring", {}).get("alerts", [])),
    )


def superior(group: Mapping[str, Any], groups: list[Mapping[str, Any]]) -> str | None:
    """Return the name of the group that ``group`` reports to; None in the supervisor and for an unknown name."""
    if group.get("role") == AgentRole.SUPERVISOR:
        return None
    wanted = group.get("reports_to") or "supervisor"
    if wanted == "supervisor":
        found = [each for each in groups if each.get("role") == AgentRole.SUPERVISOR]
    else:
        found = [each for each in groups if wanted == each["name"]]
        found += [each for each in groups if slug(wanted) == slug(each["name"])]
    return str(found[0]["name"]) if found else None


def located_conditions(stated: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield (JSON pointer, key, value) of a mapping, or of a list of mappings and bare words."""
    entries = [("", stated)] if isinstance(stated, dict) else [(f"/{n}", entry) for n, entry in enumerate(stated)]
    for place, entry in entries:
        if isinstance(entry, str):
            yield place, entry, True
        elif entry is not None:
            yield from ((place + escape(key), key, value) for key, value in entry.items() if not key.startswith("x-"))


def _groups(entries: list[Mapping[str, Any]], driver: str) -> Iterator[AgentGroup]:
    for entry in entries:
        command = entry.get("command")
        yield AgentGroup(
            name=entry["name"],
            role=AgentRole(entry["role"]),
            count=parse_count(entry["count"]),
            reports_to=superior(entry, entries),
            capabilities=tuple(entry.get("capabilities", ())),
            skills=tuple(entry.get("skills", ())),
            config=entry.get("config", {}),
            handler=entry.get("handler"),
            command=None if command is None else tuple(command),
            celery=celery_app(entry.get("celery")),
            http=_http(entry.get("http")),
            llm=llm_call(entry.get("llm")) or _llm_of_config(entry),
            concurrency=entry["concurrency"],
            pool=entry.get("pool"),
            standby=entry["standby"],
            timeout_seconds=_seconds(entry, "timeout"),
            max_attempts=entry.get("max_attempts"),
            backoff_seconds=parse_duration(entry["backoff"]),
            backoff_max_seconds=parse_duration(entry["backoff_max"]),
            max_deliveries=entry["max_deliveries"],
            engine=_engine(entry, driver),
            cost=entry.get("cost", {}),
            description=entry.get("description"),
        )


def _engine(entry: Mapping[str, Any], driver: str) -> Engine:
    return Engine(
        driver=entry.get("driver", driver),
        image=entry.get("image"),
        resources=resources(entry.get("resources", {})),
        environment=entry.get("environment", {}),
        docker=entry.get("docker", {}),
        pod=entry.get("pod", {}),
    )


def _http(stated: Mapping[str, Any] | None) -> HttpCall | None:
    if stated is None:
        return None
    known = {each.name for each in fields(HttpCall)}
    given = {key: value for key, value in stated.items() if key in known}
    return HttpCall(**given, timeout_seconds=parse_duration(stated["timeout"]))


def _llm_of_config(entry: Mapping[str, Any]) -> LlmCall | None:
    """Return what the reference's ``config: {llm_model, temperature, max_tokens}`` means where nothing else is said."""
    config = entry.get("config", {})
    model = config.get("llm_model")
    if not isinstance(model, str) or any(kind in entry for kind in KINDS):
        return None
    given = {key: config.get(key) for key in ("temperature", "max_tokens")}
    sound: dict[str, Any] = {key: value for key, value in given.items() if isinstance(value, (int, float))}
    prompt = config.get("system_prompt")
    return LlmCall(model=model, system_prompt=prompt if isinstance(prompt, str) else None, **sound)


def _scaling(stated: Mapping[str, Any]) -> ScalingPolicy:
    fields: dict[str, Any] = {}
    for key, name in FIELDS.items():
        value: Any = stated
        for step in key.split("."):
            value = value.get(step)
        if value is None:
            continue
        is_duration = name.endswith("_seconds")
        is_percent = isinstance(value, str) and name.endswith("_threshold")
        fields[name] = parse_duration(value) if is_duration else parse_percent(value) if is_percent else value
    schedule = tuple(ScalingSchedule(**entry) for entry in stated.get("schedule", ()))
    return ScalingPolicy(**fields, schedule=schedule, paused=_PAUSED[stated["paused"]])


def _rollout(stated: Mapping[str, Any]) -> RolloutPolicy:
    return RolloutPolicy(
        max_parallel=parse_max_parallel(stated["max_parallel"]),
        min_healthy_seconds=parse_duration(stated["min_healthy_time"]),
        auto_revert=stated["auto_revert"],
        progress_deadline_seconds=parse_duration(stated["progress_deadline"]),
    )


def _lifecycle(stated: Mapping[str, Any]) -> Lifecycle:
    hibernate = dict(_conditions(stated.get("hibernate_conditions", ())))
    destroy = dict(_conditions(stated.get("destroy_conditions", ())))
    reactivate = list(_conditions(stated.get("reactivate_triggers", ())))
    words = dict(reactivate)
    load = hibernate.get("load_below")
    return Lifecycle(
        hibernate=HibernateRules(
            idle_seconds=_seconds(hibernate, "idle_time"),
            task_queue_empty=hibernate.get("task_queue_empty", True),
            load_below_percent=None if load is None else parse_percent(load),
        )
        if hibernate
        else None,
        destroy=DestroyRules(_seconds(destroy, "hibernated_duration"), destroy.get("manual_trigger", True)),
        reactivate=ReactivateRules(
            # A stated list is the whole list, but somebody who asks is always heard unless it says otherwise.
            new_task_received=words.get("new_task_received", not words),
            manual_trigger=words.get("manual_trigger", True),
            schedules=tuple(value for key, value in reactivate if key == "schedule"),
        ),
    )


def _conditions(stated: Any) -> Iterator[tuple[str, Any]]:
    return ((key, value) for _, key, value in located_conditions(stated))


def _seconds(stated: Mapping[str, Any], key: str) -> float | None:
    return parse_duration(stated[key]) if key in stated else None
