"""Read one YAML file as an operator wrote it, and say in one line what is wrong with it."""

import errno
from pathlib import Path
from typing import Any

import yaml

from common.config_errors import ConfigError, show


class StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a mapping with the same key twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            # The tag keeps the text "1" and the number 1 apart.
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise ConfigError(_place(key.start_mark), "every key once in a mapping", f"{show(key.value)} again")
            seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


def load(path: Path) -> object:
    """The document in a file; None if there is none. Raises ConfigError."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError("", "a readable file", _reason(error)) from None
    except ValueError as error:  # a NUL in the path, or not UTF-8
        raise ConfigError("", "a text file in UTF-8", str(error)) from None
    return parse(text)


def parse(text: str) -> object:
    """The document in a text. Raises ConfigError."""
    try:
        return yaml.load(text, StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(_place(mark), _valid(error.problem or error.context)) from None
    except yaml.YAMLError as error:
        raise ConfigError("", _valid(str(error))) from None
    except RecursionError:
        raise ConfigError("", _valid("too many levels")) from None
    except ValueError as error:  # such as the date 2026-99-99
        raise ConfigError("", _valid(str(error))) from None


def _place(mark: yaml.Mark | None) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _valid(problem: str | None) -> str:
    return "valid YAML" + (f" ({' '.join(problem.split())})" if problem else "")


def _reason(error: OSError) -> str:
    known = {errno.ENOENT: "no such file", errno.EISDIR: "a directory", errno.EACCES: "one that may not be read"}
    return known.get(error.errno or 0, error.strerror or "an error")
