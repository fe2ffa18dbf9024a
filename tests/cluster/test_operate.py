"""docs/operate.md, "Grow, shrink, lose a machine", followed to the letter on four machines, while clients announce."""

import json
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from announcers import Load, random_torrents
from namespaces import Machine, Switch, demand, with_names, with_ssh, with_systemctl

DOCUMENT = (Path(__file__).parents[2] / "docs/operate.md").read_text()
PART = DOCUMENT[DOCUMENT.index("## Grow, shrink, lose a machine") :].partition("\n## ")[0]
NODES = {"vps1": "192.0.2.1", "vps2": "198.51.100.1", "vps3": "203.0.113.1", "vps4": "203.0.113.4"}
OUTSIDE = ["45.83.20.1"]
PORT = 6969
CONFIG = "/etc/shoal/cluster.yaml"
FILE = """\
version: 1
nodes:
{nodes}
gateways:
  - {{name: gateway1, node: vps1, listen: &port ["0.0.0.0:6969"]}}
  - {{name: gateway2, node: vps2, listen: *port}}
  - {{name: gateway3, node: vps3, listen: *port}}
shards:
  - {{name: shard1, node: vps1, link: "tcp://192.0.2.1:7101", memory: 64 MiB}}
  - {{name: shard2, node: vps2, link: "tcp://198.51.100.1:7101", memory: 64 MiB}}
  - {{name: shard3, node: vps3, link: "tcp://203.0.113.1:7101", memory: 64 MiB}}
limits: {{exempt: ["0.0.0.0/0"]}}
"""
UNIT = """\
ln -sf /opt/shoal/.venv/bin/shoal /usr/local/bin/shoal
id shoal >/dev/null 2>&1 || useradd --system --shell /usr/sbin/nologin shoal
mkdir -p /etc/shoal /etc/systemd/system/shoal.service.d
install --directory --owner shoal --group shoal --mode 700 /etc/shoal/keys
cp /opt/shoal/examples/shoal.service /etc/systemd/system/
printf '[Service]\\nDynamicUser=no\\nUser=shoal\\nExecStart=\\n%s\\n' \
    "ExecStart=/opt/shoal/.venv/bin/shoal up --config /etc/shoal/cluster.yaml --node $(hostname)" \
    >/etc/systemd/system/shoal.service.d/node.conf
"""
SHARED = "keys/cluster.key keys/connection-id.key"


def blocks():
    """Each block of commands: the machine, its commands."""
    return re.findall(r"^```sh (\w+)\n(.*?)^```$", PART, re.M | re.S)


def section(title):
    """The blocks under a title."""
    text = PART[PART.index(f"### {title}\n") :].partition("\n### ")[0]
    return re.findall(r"^```sh (\w+)\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """Three machines as docs/deploy.md leaves them, and a fourth; clients announce from outside."""
    demand()
    directory = tmp_path_factory.mktemp("operate")
    with ExitStack() as stack:
        switch = stack.enter_context(Switch())
        made = {
            name: stack.enter_context(Machine(name, addresses, directory, switch))
            for name, addresses in {**{name: [address] for name, address in NODES.items()}, "outside": OUTSIDE}.items()
        }
        nodes = [made[name] for name in NODES]
        with_names(nodes)
        with_ssh(nodes)
        for node in nodes:
            with_systemctl(node)
            node.run(UNIT)
        deploy(made)
        yield made


def deploy(machines):
    """What docs/deploy.md does, shortened."""
    first = machines["vps1"]
    names = "\n".join(f"  - {{name: {name}}}" for name in list(NODES)[:3])
    first.write(CONFIG, FILE.format(nodes=names))
    public = first.run(
        "cd /etc/shoal; shoal keys make --config cluster.yaml >/dev/null; for node in vps1 vps2 vps3; do "
        "shoal keys make --config cluster.yaml --node $node | sed -n 's/^ *key: //p'; done"
    ).splitlines()
    keyed = "\n".join(f"  - {{name: {name}, key: {key}}}" for name, key in zip(list(NODES)[:3], public, strict=True))
    first.write(CONFIG, FILE.format(nodes=keyed))
    for name in ("vps2", "vps3"):
        first.run(f"cd /etc/shoal; tar -c cluster.yaml {SHARED} keys/{name}.key | ssh {name} tar -x -C /etc/shoal")
    for name in list(NODES)[:3]:
        machines[name].run("chown -R shoal: /etc/shoal/keys; systemctl enable --now shoal")
    first.run(f"until shoal status --config {CONFIG}; do sleep 0.5; done")


def follow(machines, title):
    """Run the blocks under a title; what they printed."""
    told = "".join(machines[name].run(text) for name, text in section(title))
    print(told)
    return told


def settled(machines):
    """What `shoal status` says once all processes have the file."""
    machines["vps1"].run(f"until shoal status --config {CONFIG}; do sleep 0.5; done")
    return look(machines)


def look(machines):
    return json.loads(machines["vps1"].run(f"shoal status --config {CONFIG} --json", check=False))


def shards(machines):
    return {shard["name"]: shard for shard in look(machines)["shards"]}


def announcing(machines, *nodes):
    """Clients outside that announce at gateways of these nodes, from now on."""
    return Load([(NODES[node], PORT) for node in nodes], random_torrents(60), sources=OUTSIDE)


def test_every_block_says_where_it_is_run():
    assert "```sh\n" not in PART
    assert {name for name, _ in blocks()} <= set(NODES)
    assert len(blocks()) == sum(len(section(title)) for title in re.findall(r"^### (.*)$", PART, re.M))
    for _, text in blocks():
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_a_machine_is_added_and_taken_out_again(machines):
    with machines["outside"].network(), announcing(machines, "vps1", "vps2", "vps3") as load:
        told = follow(machines, "Add a machine")
        assert "shard4" in told
        found = shards(machines)
        assert found["shard4"]["slices"]["full"] == found["shard4"]["slices"]["wanted"] > 150
        assert sum(shard["slices"]["wanted"] for shard in found.values()) == 1024
        assert look(machines)["config"]["version"] == 2

        told = follow(machines, "Take a machine out")
        assert "may be removed" in told
        found = settled(machines)
        assert [shard["name"] for shard in found["shards"]] == ["shard1", "shard2", "shard3"]
        running = machines["vps4"].run("ps -C python3,python,shoal -o stat=,args=", check=False).splitlines()
        assert [line for line in running if "shoal" in line and not line.startswith("Z")] == []
    assert load.failed() == []
    assert load.wrong == []


def test_a_dead_machine_is_replaced(machines):
    machines["vps3"].close()
    with machines["outside"].network(), announcing(machines, "vps1", "vps2") as load:
        told = follow(machines, "Replace a dead machine")
        assert "shard3" in told
        found = shards(machines)
        assert found["shard5"]["slices"]["wanted"] > 150
    assert load.failed() == []


def test_an_edit_is_taken_back(machines):
    before = {name: shard["slices"]["wanted"] for name, shard in shards(machines).items()}
    with machines["outside"].network(), announcing(machines, "vps1", "vps2", "vps4") as load:
        follow(machines, "Take an edit back")
    assert load.failed() == []
    assert load.wrong == []
    found = look(machines)
    assert found["config"]["version"] == 7
    assert {shard["name"]: shard["slices"]["wanted"] for shard in found["shards"]} == before
