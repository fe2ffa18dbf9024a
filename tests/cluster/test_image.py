"""What the Dockerfile builds, without building it: the wheel of what it copies, and the commands it names.

`make image-test` builds the image itself and runs it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cluster.__main__ import main

ROOT = Path(__file__).parents[2]
DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
PACKAGES = ("common", "gateway", "shard", "cluster")


def copied():
    """The paths that the Dockerfile copies from the checkout."""
    lines = [words.split()[:-1] for words in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.MULTILINE)]
    return [path for paths in lines for path in paths]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel that the Dockerfile's build stage makes, unpacked; kernels are left uncompiled, which is quicker."""
    directory = tmp_path_factory.mktemp("image")
    for path in copied():
        if (ROOT / path).is_dir():
            shutil.copytree(
                ROOT / path, directory / "source" / path, ignore=shutil.ignore_patterns("*.so", "__pycache__")
            )
        else:
            (directory / "source").mkdir(exist_ok=True)
            shutil.copy(ROOT / path, directory / "source")
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [*wheel, "--wheel-dir", directory, directory / "source"],
        check=True,
        cwd=directory / "source",
        env={**os.environ, "KERNELS": "pure"},
    )
    (file,) = directory.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(directory / "installed")
    return directory / "installed"


def run(installed, *arguments):
    """Run the interpreter with the wheel's packages, not those of the checkout."""
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )


def test_the_wheel_has_every_module_and_every_declaration(installed):
    for package in PACKAGES:
        ours = {path.relative_to(ROOT) for kind in ("*.py", "*.pxd") for path in (ROOT / package).rglob(kind)}
        theirs = {path.relative_to(installed) for path in (installed / package).rglob("*.p*") if path.is_file()}
        assert ours == theirs


def test_the_wheel_has_nothing_else(installed):
    (information,) = installed.glob("*.dist-info")
    assert {path.name for path in installed.iterdir()} == {*PACKAGES, information.name}


@pytest.mark.parametrize("module", ["gateway", "shard", "cluster.embedded"])
def test_workers_run_from_the_wheel(installed, module):
    told = run(installed, "-m", module, "--help")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("usage: ")


def test_the_command_line_runs_from_the_wheel(installed):
    where = run(installed, "-c", "import cluster.start; print(cluster.start.__file__)")
    assert where.stdout.strip() == str(installed / "cluster/start.py")
    assert run(installed, "-m", "cluster", "--version").stdout.startswith("shoal, version ")


def test_what_the_dockerfile_copies_is_there_and_not_ignored():
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for path in copied():
        assert (ROOT / path).exists()
        assert f"!{path}" in allowed


def test_the_commands_of_the_image_are_commands_of_shoal():
    (health,) = re.findall(r"^HEALTHCHECK .*CMD (.+)$", DOCKERFILE, re.MULTILINE)
    (start,) = re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)
    for command in (json.loads(health), json.loads(entry) + json.loads(start)):
        assert command[0] == "shoal"
        assert command[1] in main.commands


def test_the_image_runs_as_the_user_that_compose_has_by_default():
    (user,) = re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)
    assert f"${{SHOAL_USER:-{user}}}" in (ROOT / "compose.yaml").read_text()
