"""The Cerberus schema of ``cluster.scaling``. Its defaults are those of ``specs.ScalingPolicy``, the one source."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

from brain_clusters.blueprints.rules import duration, keys
from brain_clusters.domain.specs import MAX_COUNT, ScalingPolicy

_HINTS = get_type_hints(ScalingPolicy)
_DEFAULTS = ScalingPolicy()

# Where each key of the format goes; "windows.stable" is the key stable of the mapping windows.
FIELDS = {
    "metric": "metric",
    "policy": "policy",
    "scale_up_threshold": "scale_up_threshold",
    "scale_down_threshold": "scale_down_threshold",
    "cooldown_period": "cooldown_seconds",
    "target_latency": "target_latency_seconds",
    "target_utilization": "target_utilization",
    "queue_per_slot": "queue_per_slot",
    "activation_threshold": "activation_threshold",
    "payback": "payback_seconds",
    "polling_interval": "polling_interval_seconds",
    "windows.stable": "stable_window_seconds",
    "windows.panic": "panic_window_seconds",
    "windows.panic_threshold": "panic_threshold",
    "tolerance": "tolerance",
    "scale_up.stabilization": "scale_up_stabilization_seconds",
    "scale_up.max_percent": "scale_up_max_percent",
    "scale_up.max_workers": "scale_up_max_workers",
    "scale_up.period": "scale_up_period_seconds",
    "scale_down.stabilization": "scale_down_stabilization_seconds",
    "scale_down.consecutive": "scale_down_consecutive",
    "scale_down.drain_timeout": "drain_timeout_seconds",
    "scale_down.on_timeout": "on_drain_timeout",
    "idle_workers": "idle_workers",
    "buffer_workers": "buffer_workers",
    "fallback.failure_threshold": "fallback_failure_threshold",
    "fallback.workers": "fallback_workers",
    "hibernate.after": "hibernate_after_seconds",
    "hibernate.eta_horizon": "hibernate_eta_horizon_seconds",
    "dry_run": "dry_run",
}


def _default(key: str) -> Any:
    return getattr(_DEFAULTS, FIELDS[key])


def _number(key: str, description: str, lowest: float, highest: float) -> dict[str, Any]:
    kind = "integer" if isinstance(_default(key), int) else "number"
    bounds = {"min": lowest, "max": highest}
    return {"type": kind, **bounds, "default": _default(key), "meta": {"description": description}}


def _duration(key: str, description: str, check_with: str = "duration") -> dict[str, Any]:
    stated = {} if _default(key) is None else {"default": _default(key)}
    return duration(description, check_with, **stated)


def _threshold(description: str) -> dict[str, Any]:
    # No default here: whether it was stated matters to the cross checks.
    return {"type": ["number", "string"], "check_with": "threshold", "meta": {"description": description}}


def _choice(key: str, description: str) -> dict[str, Any]:
    allowed = list(get_args(_HINTS[FIELDS[key]]))
    return {"type": "string", "allowed": allowed, "default": _default(key), "meta": {"description": description}}


def _keys(description: str, known: dict[str, Any]) -> dict[str, Any]:
    return keys(description, known, default={})


_SCHEDULE_ENTRY = {
    "timezone": {
        "type": "string",
        "check_with": "timezone",
        "default": "UTC",
        "meta": {"description": "The IANA time zone of both expressions."},
    },
    "start": {
        "type": "string",
        "check_with": "cron",
        "required": True,
        "meta": {"description": "When it begins, a five-field cron expression."},
    },
    "end": {
        "type": "string",
        "check_with": "cron",
        "required": True,
        "meta": {"description": "When it ends, a five-field cron expression."},
    },
    "min_workers": {
        "type": "integer",
        "min": 0,
        "max": MAX_COUNT,
        "required": True,
        "meta": {"description": "The fewest agents in between."},
    },
}

SCALING: dict[str, Any] = {
    "metric": _choice("metric", "What the two thresholds are compared with."),
    "policy": _choice("policy", "target sizes by a formula; step grows by a fifth and shrinks by a fifth."),
    "scale_up_threshold": _threshold("Grow only while the metric is above this; 0 without it."),
    "scale_down_threshold": _threshold("Shrink only while the metric is below this; 1 without it."),
    "cooldown_period": _duration("cooldown_period", "The least time between two changes."),
    "target_latency": _duration("target_latency", "The longest a job should wait.", "positive_duration"),
    "target_utilization": _number("target_utilization", "The share of its time that an agent should work.", 0.05, 1),
    "queue_per_slot": _number("queue_per_slot", "Jobs per slot, while the time a job takes is unknown.", 1, 100_000),
    "activation_threshold": _number("activation_threshold", "More waiting jobs than this wake a group.", 0, 1_000_000),
    "payback": _duration("payback", "The waiting work that is worth an agent, besides its start; 0 turns it off."),
    "polling_interval": _duration("polling_interval", "The time between two looks.", "positive_duration"),
    "windows": _keys(
        "Over how long signals are smoothed.",
        {
            "stable": _duration("windows.stable", "The long window.", "positive_duration"),
            "panic": _duration("windows.panic", "The short window.", "positive_duration"),
            "panic_threshold": _number("windows.panic_threshold", "Panic at this many times what is ready.", 1, 100),
        },
    ),
    "tolerance": _number("tolerance", "The relative change that is too small to act on.", 0, 1),
    "scale_up": _keys(
        "How fast a group may grow.",
        {
            "stabilization": _duration("scale_up.stabilization", "The need must have lasted so long."),
            "max_percent": _number("scale_up.max_percent", "Growth per period, in percent.", 1, 10_000),
            "max_workers": _number(
                "scale_up.max_workers", "Growth per period, in agents; the larger counts.", 1, MAX_COUNT
            ),
            "period": _duration("scale_up.period", "The period of both.", "positive_duration"),
        },
    ),
    "scale_down": _keys(
        "How carefully a group shrinks.",
        {
            "stabilization": _duration(
                "scale_down.stabilization",
                "The highest need of this window counts; learned without it, from 30 s to 5 minutes.",
            ),
            "consecutive": _number("scale_down.consecutive", "Proposed so often in a row before it is done.", 1, 100),
            "drain_timeout": _duration("scale_down.drain_timeout", "The longest that a busy agent may finish in."),
            "on_timeout": _choice("scale_down.on_timeout", "Then: wait on, or stop it (its jobs run again)."),
        },
    ),
    "idle_workers": _number(
        "idle_workers", "Agents of each scalable group kept while there is nothing to do.", 0, MAX_COUNT
    ),
    "buffer_workers": _number(
        "buffer_workers", "Agents of each scalable group kept beyond what is needed.", 0, MAX_COUNT
    ),
    "fallback": _keys(
        "What to do when the signals are unknown.",
        {
            "failure_threshold": _number("fallback.failure_threshold", "Unknown so often in a row.", 1, 1000),
            "workers": _number("fallback.workers", "Then grow to so many agents; never shrink.", 0, MAX_COUNT),
        },
    ),
    "hibernate": _keys(
        "When the autoscaler puts an idle cluster to sleep.",
        {
            "after": _duration("hibernate.after", "Idle for so long."),
            "eta_horizon": _duration("hibernate.eta_horizon", "No job due within this time."),
        },
    ),
    "schedule": {
        "type": "list",
        "maxlength": 50,
        "schema": {"type": "dict", "schema": _SCHEDULE_ENTRY},
        "meta": {"description": "Times with a higher minimum."},
    },
    "paused": {
        "type": ["boolean", "string"],
        "allowed": [False, True, "in", "out"],
        "default": False,
        "meta": {"description": "Hold shrinking (in), growing (out) or both (true)."},
    },
    "dry_run": {"type": "boolean", "default": False, "meta": {"description": "Decide and record, but do not act."}},
}
