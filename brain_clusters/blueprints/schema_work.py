"""The part of the blueprint format that says what does a group's jobs, how they are repeated, and what they cost."""

from __future__ import annotations

from brain_clusters.blueprints.rules import Rule, duration, keys, number, optional_text, text, texts, whole

_REFERENCE = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
_MOST = 1_000_000_000

CELERY = {
    "app": text(
        "The Celery application: package.module:attribute.",
        300,
        required=True,
        regex=_REFERENCE,
        must="name the application as package.module:attribute",
    ),
    "queues": {**texts("Those of its queues that the group serves.", 50, 200), "minlength": 1, "required": True},
    "broker": text(
        "The application's broker where it is another Redis than this installation's: redis://..., or env:NAME.",
        500,
        regex=r"^(rediss?://.+|env:[A-Za-z_][A-Za-z0-9_]*)$",
        must="be a redis:// address or env:NAME",
    ),
}
HTTP = {
    "url": text(
        "Where each job is sent.",
        2000,
        required=True,
        regex=r"^https?://[^\s]+$",
        must="be an http:// or https:// address",
    ),
    "method": text("The request's method.", allowed=["GET", "POST", "PUT", "PATCH", "DELETE"], default="POST"),
    "headers": {
        "type": "dict",
        "keysrules": {"type": "string", "regex": r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$"},
        "valuesrules": {"type": "string", "maxlength": 2000, "regex": r"^[^\r\n]*$"},
        "meta": {"description": "Headers of the request; a value may be env:NAME."},
    },
    "timeout": duration("The longest one request may take.", "positive_duration", default=60),
}
LLM = {
    "model": text("The model's name, as its endpoint calls it.", 200, required=True),
    "system_prompt": optional_text("What the model is told first.", 100_000),
    "tools": texts("Skills, by name, that the model may call.", 100),
    "temperature": number("How freely it chooses its words.", 0, 2),
    "max_tokens": whole("The most tokens of one answer.", 1, 10_000_000),
    "base_url": text(
        "The endpoint, where it is not the installation's.",
        2000,
        regex=r"^https?://[^\s]+$",
        must="be an http:// or https:// address",
    ),
    "api_key": text(
        "The endpoint's key, by reference: env:NAME.",
        200,
        regex=r"^env:[A-Za-z_][A-Za-z0-9_]*$",
        must="be a reference such as env:OPENAI_API_KEY; keys are not written into blueprints",
    ),
}
COST = {
    "per_hour": number("Of one agent, from its start to its end.", 0, _MOST),
    "per_job": number("Of one finished job.", 0, _MOST),
    "per_call": number("Of one call of a model.", 0, _MOST),
    "per_1k_tokens": number("Of a thousand tokens, in and out alike.", 0, _MOST),
    "per_1k_input_tokens": number("Of a thousand tokens that the model reads.", 0, _MOST),
    "per_1k_output_tokens": number("Of a thousand tokens that the model writes.", 0, _MOST),
}
WORK: dict[str, Rule] = {
    "handler": text(
        "The Python function that does a job: package.module:function, called with (payload, context).",
        300,
        regex=_REFERENCE,
        must="name a function as package.module:function",
    ),
    "command": {
        **texts("The program that does a job, as a list of arguments; it reads the payload as JSON.", 100, 10_000),
        "minlength": 1,
    },
    "celery": keys("An existing Celery application, whose worker the agents are.", CELERY),
    "http": keys("The HTTP request that does a job.", HTTP),
    "llm": keys("The model that does a job.", LLM),
    "concurrency": whole("How many jobs one agent does at a time.", 1, 1000, default=1),
    "pool": text(
        "How the slots of one agent run: by default solo for one and threads for several.",
        allowed=["solo", "threads", "prefork", "gevent"],
    ),
    "standby": text(
        "warm keeps what the agents import in memory while the cluster sleeps, so that waking costs no import.",
        allowed=["warm", "cold"],
        default="cold",
    ),
    "timeout": duration("The longest that one attempt of a job may take.", "positive_duration"),
    "max_attempts": whole("How often a job is tried, however an attempt ends; by default once if it raises.", 1, 100),
    "backoff": duration("The wait before the second attempt; it doubles with each further one.", default=1),
    "backoff_max": duration("The longest wait between two attempts.", default=300),
    "max_deliveries": whole(
        "How often a job without max_attempts may be given to an agent that then dies.", 1, 20, default=3
    ),
    "cost": keys("What it costs, in the currency of the installation.", COST),
}
KINDS = ("handler", "command", "celery", "http", "llm")

DELEGATION = {
    "max_depth": whole("How many times jobs may be handed further down.", 1, 50, default=8),
    "max_fan_out": whole("How many jobs one job may hand down at once.", 1, 10_000, default=1000),
    "max_jobs": whole("How many jobs one tree may hold.", 1, 1_000_000, default=10_000),
}
BUDGET = {
    "per_day": number("The most that the cluster may spend in a day (UTC).", 0, _MOST),
    "per_tree": number("The most that one tree of jobs may spend.", 0, _MOST),
    "on_exceeded": text("What happens then.", allowed=["alert", "hibernate", "stop"], default="alert"),
}
