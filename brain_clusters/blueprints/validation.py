"""A strict Cerberus: every fault at once, each a sentence with a JSON pointer, at a cost that the input cannot inflate.

For blueprints and for the bodies of requests and commands alike. Beyond Cerberus: true is not an integer, NaN and
infinity are not numbers, text that PostgreSQL cannot store is refused, an unknown key names its nearest neighbour.
Of Cerberus' normalisation only ``default`` is used. Each rule may carry ``meta``: {description: ..., must: ...}, where
``must`` ends the sentence "'key' must ..." when its ``regex`` does not match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from cerberus import TypeDefinition, Validator, errors

from brain_clusters import drivers
from brain_clusters.blueprints.messages import KeyFault, faults_of, name_of, pointer_to, shown
from brain_clusters.domain.cron import check_cron
from brain_clusters.domain.durations import parse_duration, parse_end, parse_instant, parse_percent
from brain_clusters.domain.engines import parse_cpu, parse_gpus, parse_memory
from brain_clusters.domain.rollouts import parse_max_parallel
from brain_clusters.domain.specs import parse_count
from brain_clusters.errors import Fault

MAX_DEPTH = 64
MAX_FAULTS = 100
MAX_ENTRIES = 1000

Schema = Mapping[str, Any]


def check(
    document: object, schema: Schema, *, ignore_x_keys: bool = False, max_depth: int = MAX_DEPTH
) -> tuple[dict[str, Any], list[Fault]]:
    """Return (document with defaults filled in, faults).

    ignore_x_keys: keys that begin with ``x-`` are no fault where the schema knows the keys, and are left out.
    """
    if not isinstance(document, dict):
        return {}, [Fault("", f"the document must be a mapping of keys to values, not {shown(document)}")]
    faults: dict[str, Fault] = {}
    for fault in _all_faults(document, schema, max_depth, ignore_x_keys):
        if len(faults) >= MAX_FAULTS:
            faults[""] = Fault("", f"there are more than {MAX_FAULTS} faults; mend these first")
            break
        faults.setdefault(fault.pointer, fault)
    return _filled(document, schema), sorted(faults.values(), key=lambda fault: fault.pointer)


def _all_faults(document: dict[str, Any], schema: Schema, max_depth: int, ignore_x_keys: bool) -> Iterator[Fault]:
    yield from unstorable(document, max_depth)
    if len(document) > MAX_ENTRIES:
        yield Fault("", f"the document has {len(document)} keys; at most {MAX_ENTRIES} are read")
        return
    validator = _Strict(schema)
    validator.validate(document, normalize=False)
    yield from faults_of(validator._errors, ignore_x_keys=ignore_x_keys)


def unstorable(document: dict[str, Any], max_depth: int = MAX_DEPTH) -> Iterator[Fault]:
    """Yield what JSON or PostgreSQL cannot hold, anywhere in the document."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, (dict, list)) and len(path) >= max_depth:
            yield Fault(pointer_to(path), f"this is nested more than {max_depth} levels deep; make it flatter")
        elif isinstance(value, dict):
            for key in value:
                if told := _unstorable_text(key) if isinstance(key, str) else "is not text":
                    yield KeyFault(pointer_to(path), f"a key here {told}; change the key", key="")
            pending.extend(((*path, str(key)), below) for key, below in value.items())
        elif isinstance(value, list):
            pending.extend(((*path, index), below) for index, below in enumerate(value))
        elif told := _unstorable_scalar(value):
            yield Fault(pointer_to(path), f"{name_of(path)} {told}")


def _unstorable_scalar(value: object) -> str:
    if isinstance(value, str):
        told = _unstorable_text(value)
        return told and f"{told}; remove it"
    if isinstance(value, float) and value - value != 0:
        return "is NaN or infinite, which is not a number; give a finite number"
    return "" if value is None or isinstance(value, (bool, int, float)) else "is not JSON data; give JSON data"


def _unstorable_text(text: str) -> str:
    if "\x00" in text:
        return "holds a NUL character"
    return "" if text.isascii() or text.encode("utf-8", "ignore").decode() == text else "holds half a surrogate pair"


def _filled(document: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Return a copy with the defaults of missing keys and without unknown ones."""
    return {
        key: _filled_value(document.get(key, rule.get("default")), rule)
        for key, rule in schema.items()
        if key in document or "default" in rule
    }


def _filled_value(value: Any, rule: Mapping[str, Any]) -> Any:
    inner = rule.get("schema")
    if inner and isinstance(value, dict) and rule.get("type") == "dict":
        return _filled(value, inner)
    return [_filled_value(entry, inner) for entry in value] if inner and isinstance(value, list) else value


def _parses(parse: Callable[[Any], object]) -> Callable[..., None]:
    """Return a Cerberus check that lets ``parse`` judge, and adopts its sentence."""

    def check_with(self: _Strict, field: str, value: object) -> None:
        if value is None:  # whether that may be is up to ``nullable``
            return
        try:
            parse(value)
        except ValueError as refusal:
            self._error(field, f"{refusal}, not {shown(value)}")

    return check_with


def _positive_duration(value: object) -> None:
    if parse_duration(value) <= 0:
        raise ValueError("must be a duration longer than 0")


def _end(value: object) -> None:
    parse_end(value, datetime(2000, 1, 1, tzinfo=UTC))  # any time serves: whether it can be read is asked


def _volume(value: object) -> None:
    kinds = ("config_map", "secret", "claim", "empty_dir")
    if isinstance(value, dict) and sum(kind in value for kind in kinds) != 1:
        raise ValueError(f"must state one of {', '.join(kinds)}")


def _threshold(value: object) -> None:
    if isinstance(value, str):
        parse_percent(value)
    elif not isinstance(value, (int, float)) or value < 0:
        raise ValueError("must be a number from 0 up, or a percentage such as 80%")


def _timezone(value: str) -> None:
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError("must be an IANA time zone such as Europe/Berlin or UTC") from error


class _Strict(Validator):  # type: ignore[misc]
    """Cerberus without its error trees, and with rules and types of ours.

    The trees are filled at every level and sorted at every insertion: a thousand faults would take seconds.
    """

    types_mapping: ClassVar[dict[str, TypeDefinition]] = {
        **Validator.types_mapping,
        "integer": TypeDefinition("integer", (int,), (bool,)),
        "number": TypeDefinition("number", (int, float), (bool,)),
    }

    def _error(self, *args: Any) -> None:
        if len(args) == 1:
            self._errors.extend(args[0])
        elif args[1] == errors.UNKNOWN_FIELD:
            super()._error(*args, tuple(self.schema))
        else:
            super()._error(*args)

    def _validate_schema(self, schema: Schema, field: str, value: Any) -> None:
        """{'type': ['dict', 'string'], 'anyof': [{'check_with': 'schema'}, {'check_with': 'bulk_schema'}]}"""
        if self._is_short_enough(field, value):
            super()._validate_schema(schema, field, value)

    def _validate_valuesrules(self, schema: Schema, field: str, value: Any) -> None:
        """{'type': ['dict', 'string'], 'check_with': 'bulk_schema', 'forbidden': ['rename', 'rename_handler']}"""
        if self._is_short_enough(field, value):
            super()._validate_valuesrules(schema, field, value)

    def _is_short_enough(self, field: str, value: Any) -> bool:
        """Refuse to look into what is absurdly long; where ``maxlength`` is passed, that rule has said so."""
        if isinstance(value, str) or not hasattr(value, "__len__"):
            return True
        limit: int = self.schema[field].get("maxlength", MAX_ENTRIES)
        if len(value) > limit and "maxlength" not in self.schema[field]:
            self._error(field, f"has {len(value)} entries; at most {limit} are read")
        return len(value) <= limit

    def _validate_regex(self, pattern: str, field: str, value: Any) -> None:
        """{'type': 'string'}"""
        # fullmatch: "$" alone would let a line break through at the end.
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            must = self.schema[field].get("meta", {}).get("must", f"match {pattern}")
            self._error(field, f"must {must}, not {shown(value)}")

    def _validate_conditions(self, schema: Schema, field: str, value: Any) -> None:
        """{'type': 'dict'}"""
        if not self._is_short_enough(field, value):
            return
        # A list of single-key mappings and bare words ("manual_trigger" says "manual_trigger: true"), or a mapping.
        entries = [((field,), value)] if isinstance(value, dict) else [((field, i), v) for i, v in enumerate(value)]
        seen: set[str] = set()
        for path, entry in entries:
            if not isinstance(entry, (str, dict)):
                self._custom(path, f"must be a word or 'key: value', not {shown(entry)}")
                continue
            said = {entry: True} if isinstance(entry, str) else entry
            self._check_conditions(schema, path, said)
            for key in seen & said.keys():
                self._custom((*path, key), "is stated twice; keep one of the two")
            seen |= {key for key in said if not schema.get(key, {}).get("meta", {}).get("repeats")}

    def _check_conditions(self, schema: Schema, path: tuple[str | int, ...], said: dict[str, Any]) -> None:
        child = self._get_child_validator(document_crumb=path, schema_crumb=(path[0], "conditions"), schema=schema)
        child.validate(said, normalize=False)
        self._errors.extend(child._errors)

    def _custom(self, path: tuple[str | int, ...], told: str) -> None:
        place = self.document_path + path
        self._errors.append(errors.ValidationError(place, (), errors.CUSTOM.code, None, None, None, (told,)))

    _check_with_cpu = _parses(parse_cpu)
    _check_with_memory = _parses(parse_memory)
    _check_with_volume = _parses(_volume)
    _check_with_gpus = _parses(parse_gpus)
    _check_with_driver = _parses(drivers.check_name)
    _check_with_duration = _parses(parse_duration)
    _check_with_instant = _parses(parse_instant)
    _check_with_end = _parses(_end)
    _check_with_percent = _parses(parse_percent)
    _check_with_cron = _parses(check_cron)
    _check_with_positive_duration = _parses(_positive_duration)
    _check_with_threshold = _parses(_threshold)
    _check_with_timezone = _parses(_timezone)
    _check_with_count = _parses(parse_count)
    _check_with_max_parallel = _parses(parse_max_parallel)
