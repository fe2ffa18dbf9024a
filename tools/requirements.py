"""Print what pyproject.toml requires for `build`, or for one of its extras: one requirement a line, without spaces."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())
wanted = sys.argv[1]
requirements = (
    project["build-system"]["requires"] if wanted == "build" else project["project"]["optional-dependencies"][wanted]
)
print(*(requirement.replace(" ", "") for requirement in requirements), sep="\n")
