"""compose.yaml, cluster.yaml and the examples: allowed by the specification, and what they start does start."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from ports import free_port, free_ports
from trackers import PATIENCE, get

from cluster.supervisor import PATIENCE as PATIENCE_WITH_A_STAGE
from common import config

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").glob("*.yaml"))
HASH = "cd" * 20
TO_START = 60.0  # seconds for six interpreters on a busy machine


def compose(**variables):
    """compose.yaml as it is with these variables in the environment."""

    def value(match):
        return variables.get(match[1], match[2])

    return yaml.safe_load(re.sub(r"(?<!\$)\$\{(\w+):-([^}]*)\}", value, (ROOT / "compose.yaml").read_text()))


def specification_on(file):
    """Whether the compose specification's schema, which is a part of check-jsonschema, allows a file."""
    command = [sys.executable, "-P", "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def shoal(*arguments):
    command = [sys.executable, "-P", "-m", "cluster", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_compose_specification_allows_compose_yaml():
    told = specification_on(ROOT / "compose.yaml")
    assert told.returncode == 0, told.stdout


def test_the_compose_specification_is_really_asked(tmp_path):
    changed = compose()
    changed["services"]["shoal"]["stop_grace"] = "15s"
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(changed))
    assert "stop_grace" in specification_on(tmp_path / "compose.yaml").stdout


def test_compose_up_starts_one_service_and_the_others_only_by_their_profile():
    services = compose()["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["shoal"]
    redis = [name for name, service in services.items() if service.get("profiles") == ["redis"]]
    assert redis == [*(f"redis{number}" for number in range(1, 7)), "redis-create"]


def test_keys_are_made_by_the_image_that_was_built_last_and_no_registry_has_it():
    tracker, keys = (compose()["services"][name] for name in ("shoal", "keys"))
    assert tracker["build"] == keys["build"] == "."
    assert tracker["image"] == keys["image"]
    assert tracker["image"].startswith("localhost/")


def test_a_node_and_a_file_are_chosen_by_variables():
    service = compose(NODE="vps2", CLUSTER="./examples/three-vps.yaml")["services"]["shoal"]
    assert service["command"][-2:] == service["healthcheck"]["test"][-2:] == ["--node", "vps2"]
    assert service["volumes"][0]["source"] == "./examples/three-vps.yaml"
    assert service["volumes"][0]["target"] == service["command"][2] == service["healthcheck"]["test"][4]


def test_what_cluster_yaml_writes_lies_in_the_volume():
    service = compose()["services"]["shoal"]
    writable = [volume["target"] for volume in service["volumes"] if not volume.get("read_only")]
    wanted = config.load(ROOT / "cluster.yaml")
    assert service["read_only"] is True
    for path in (wanted.data, wanted.key_directory, wanted.run_directory):
        assert any(path.is_relative_to(volume) for volume in writable), path


def test_three_vps_finds_its_keys_where_compose_mounts_them():
    service = compose(CLUSTER="./examples/three-vps.yaml")["services"]["shoal"]
    file, keys = (volume["target"] for volume in service["volumes"][:2])
    beside = config.load(ROOT / "examples/three-vps.yaml").key_directory.relative_to(ROOT / "examples")
    assert Path(file).parent / beside == Path(keys)


def test_the_container_is_given_the_time_to_stop_that_the_supervisor_takes():
    grace = compose()["services"]["shoal"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > 2 * PATIENCE_WITH_A_STAGE + 1  # gateways, then shards


@pytest.mark.parametrize("file", ["cluster.yaml", *EXAMPLES])
def test_every_example_is_fine(file):
    told = shoal("check", ROOT / file)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"{ROOT / file}: fine")


@pytest.mark.parametrize("node", ["vps1", "vps2", "vps3"])
def test_each_of_three_vps_has_a_gateway_and_a_shard(node):
    wanted = config.load(ROOT / "examples/three-vps.yaml")
    assert [type(process) for process in wanted.on_node(node)] == [config.Gateway, config.Shard]


def test_key_files_are_never_committed_nor_in_the_image():
    assert (ROOT / "keys/.gitignore").read_text().splitlines()[1:] == ["*", "!.gitignore"]
    first, *allowed = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert first == "*"
    assert "!keys" not in allowed


# What `docker compose up` runs in the container, run here: other ports, another directory for /data


class Container:
    """What `docker compose up` runs, until the end of the block."""

    def __init__(self, directory):
        self.service = compose()["services"]["shoal"]
        self.port, self.admin = free_port(), free_ports(5)[0]
        self.file = directory / "cluster.yaml"
        text = (ROOT / "cluster.yaml").read_text()
        text = (
            text.replace("/data", str(directory)).replace(":6969", f":{self.port}").replace(":6970", f":{self.admin}")
        )
        self.file.write_text(text.replace("1 GiB", "64 MiB"))
        self.process = subprocess.Popen(
            self.here(["shoal", *self.service["command"]]), stdout=subprocess.PIPE, text=True
        )

    def here(self, command):
        """A command of the container as one of ours."""
        given = {"shoal": [sys.executable, "-P", "-m", "cluster"], "/etc/shoal/cluster.yaml": [str(self.file)]}
        return [word for words in command for word in given.get(words, [words])]

    def wait_until_healthy(self):
        """Ask as Docker does, until it is so."""
        command = self.here(self.service["healthcheck"]["test"][1:])
        deadline = time.monotonic() + TO_START
        while (told := subprocess.run(command, capture_output=True, text=True, timeout=60)).returncode:
            assert told.returncode == 1, told
            assert time.monotonic() < deadline, told

    def __enter__(self):
        for line in self.process.stdout:
            if line.startswith("announce URL: "):
                return self
        raise AssertionError(f"it ended with {self.process.wait()} before it listened")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.status = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


@pytest.fixture
def short_path():
    """A directory whose name leaves room for the names of sockets."""
    directory = Path(f"/tmp/shoal-compose-{os.getpid()}")
    directory.mkdir(mode=0o700)
    yield directory
    shutil.rmtree(directory)


def test_compose_up_starts_two_gateways_and_three_shards_which_answer_and_end_in_order(short_path):
    with Container(short_path) as container:
        container.wait_until_healthy()
        first = shoal("announce", f"udp://127.0.0.1:{container.port}", HASH, "--port", "6881", "--timeout", "20")
        assert first.returncode == 0, first.stderr
        second = shoal("announce", f"http://127.0.0.1:{container.port}", HASH, "--port", "6882", "--left", "1")
        assert ["127.0.0.1", "6881"] in [line.split() for line in second.stdout.splitlines()], second
        for process in range(5):  # gateways, then shards
            assert get(f"127.0.0.1:{container.admin + process}", "/metrics")[0] == 200
    assert container.status == 0
