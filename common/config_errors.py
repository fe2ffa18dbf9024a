"""What is wrong with a configuration: where, what was expected, what was found."""

import re
from typing import Any, get_args

import msgspec

from common.values import UnfitError

PATH = re.compile(r"^(?P<text>.*?)(?: - at `(?:key` in `)?\$(?P<path>[^`]*)`)?$", re.DOTALL)
STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
WORDS = {
    "`int`": "a whole number",
    "`float`": "a number",
    "`str`": "text",
    "`bool`": "true or false",
    "`array`": "a list",
    "`object`": "a mapping of settings",
    "`null`": "null",
}

Step = str | int


class ConfigError(Exception):
    """A mistake of the operator, as one line.

    `where` is a path such as `gateways[0].listen[1]`, or empty for the whole; `file` is set by who read one.
    """

    def __init__(self, where: str, expected: str, found: str = "") -> None:
        super().__init__(where, expected, found)
        self.where, self.expected, self.found = where, expected, found
        self.file = ""

    def __str__(self) -> str:
        places = "".join(f"{place}: " for place in (self.file, self.where) if place)
        return f"{places}expected {self.expected}" + (f", found {self.found}" if self.found else "")


def explain(error: msgspec.ValidationError, document: object, schema: Any) -> ConfigError:
    """The same error for an operator, who knows neither JSON nor Python."""
    match = PATH.match(str(error))
    assert match is not None  # every part of it is optional
    text, where = match["text"], (match["path"] or "").removeprefix(".")
    steps = [name or int(index) for name, index in STEP.findall(where)]
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL):
        known = ", ".join(known_fields(schema, steps))
        return ConfigError(where, f"only {known}", f"the unknown key {show(unknown[1])}")
    if missing := re.fullmatch(r"Object missing required field `(.*)`", text):
        return ConfigError(f"{where}.{missing[1]}".removeprefix("."), "a value", "none")
    if "key` in" in str(error):
        return ConfigError(where, "keys that are text", "another one")
    found = show(look_up(document, steps))
    cause = error.__cause__
    return ConfigError(where, str(cause) if isinstance(cause, UnfitError) else in_words(text), found)


def in_words(text: str) -> str:
    """What msgspec expected, without its vocabulary: "Expected `int` >= 1" is "a whole number >= 1"."""
    expected = text.removeprefix("Expected ").split(", got ")[0].replace(" | ", " or ")
    for term, words in WORDS.items():
        expected = expected.replace(term, words)
    return expected


def look_up(document: Any, steps: list[Step]) -> object:
    """What stands at a path that msgspec has gone."""
    for step in steps:
        document = document[step]
    return document


def known_fields(schema: Any, steps: list[Step]) -> list[str]:
    """The names of the fields of the struct at a path."""
    for step in steps:
        if isinstance(step, str):
            schema = next(field.type for field in msgspec.structs.fields(schema) if field.name == step)
        while not hasattr(schema, "__struct_fields__"):
            schema = get_args(schema)[0]  # Annotated, a tuple of one kind, an optional
    return list(schema.__struct_fields__)


def show(value: object) -> str:
    """A value of a document in at most 60 characters, on one line."""
    if isinstance(value, (dict, list)):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = ascii(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
