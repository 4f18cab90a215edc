"""A model's answer as it streams in: chunks of the chat completions protocol, put together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Call:
    """One call of a tool that the model asks for."""

    id: str = ""
    name: str = ""
    arguments: str = ""

    def as_message(self) -> dict[str, Any]:
        """Return it as the endpoint has to be reminded of it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(slots=True)
class Answer:
    """What has come so far. characters counts text and arguments alike."""

    text: str = ""
    model: str | None = None
    finish_reason: str | None = None
    usage: dict[str, int] | None = None
    characters: int = 0
    _calls: dict[int, Call] = field(default_factory=dict)

    @property
    def calls(self) -> list[Call]:
        """The calls in the order of their numbers; the ids that some endpoints leave out are made up."""
        found = [self._calls[number] for number in sorted(self._calls)]
        for number, call in enumerate(found):
            call.id = call.id or f"call_{number}"
        return found

    def take(self, chunk: Any) -> None:
        """Add one chunk. Raises ValueError or TypeError when it is none."""
        if not isinstance(chunk, dict) or not isinstance(chunk.get("choices", []), list):
            raise ValueError("a chunk is no chat completion")
        self.model = _text(chunk.get("model")) or self.model
        self.usage = _usage(chunk.get("usage")) or self.usage
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {} if isinstance(choice, dict) else None
            if not isinstance(delta, dict):
                raise ValueError("a choice has no delta")
            self.finish_reason = _text(choice.get("finish_reason")) or self.finish_reason
            self._take_text(_text(delta.get("content")))
            for part in delta.get("tool_calls") or ():
                self._take_call(part)

    def _take_text(self, text: str) -> None:
        self.text += text
        self.characters += len(text)

    def _take_call(self, part: Any) -> None:
        function = part.get("function") or {} if isinstance(part, dict) else None
        number = part.get("index", len(self._calls)) if isinstance(part, dict) else None
        if not isinstance(function, dict) or not isinstance(number, int):
            raise ValueError("a call of a tool has no function")
        call = self._calls.setdefault(number, Call())
        call.id = call.id or _text(part.get("id"))
        call.name += _text(function.get("name"))
        call.arguments += _text(function.get("arguments"))
        self.characters += len(_text(function.get("arguments")))


def _text(found: Any) -> str:
    if found is None:
        return ""
    if not isinstance(found, str):
        raise ValueError(f"{found!r:.50} is no text")
    return found


def _usage(found: Any) -> dict[str, int] | None:
    """Return the tokens that an endpoint counted, by our names; None where it told none."""
    if not isinstance(found, dict):
        return None
    told = {"input_tokens": found.get("prompt_tokens"), "output_tokens": found.get("completion_tokens")}
    sound = {name: value for name, value in told.items() if type(value) is int and value >= 0}
    return sound or None
