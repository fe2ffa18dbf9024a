"""cluster.yaml: what it means, and one clear line for whatever is wrong with it."""

from pathlib import Path

import pytest

from common import config, yaml_file
from common.config import Config, ConfigError

EXAMPLE = Path(__file__).parents[2] / "examples/one-machine.yaml"

GATEWAY = "gateways: [{name: g, listen: [%s]}]"

SHARDS = "shards: [{name: s}, {name: t}]"
SHARDS_AT = "shards: [{name: s, link: '%s'}, {name: t, link: '%s'}]"
NODES = "nodes: [{name: n}, {name: m}]\ngateways: [{name: g, node: n}]\nshards: ["
ON_NODES = "gateways: [{name: g, node: n}]\nshards: [{name: s, node: m, link: 'tcp://127.0.0.1:1'}]"

# A document, and the line that refuses it.
REFUSED = [
    ("[]", "expected a mapping of settings, found a list of 0"),
    ("text", "expected a mapping of settings, found 'text'"),
    ("intervall: 30m", "expected only version, slices, interval,.* log, found the unknown key 'intervall'"),
    ("1: 2", "expected keys that are text"),
    ("limits: {1: 2}", "limits: expected keys that are text"),
    ("version: 0", "version: expected a whole number >= 1, found 0"),
    ("version: one", "version: expected a whole number, found 'one'"),
    ("version: true", "version: expected a whole number, found true"),
    ("version: 1.0", "version: expected a whole number, found 1.0"),
    ("version: null", "version: expected a whole number, found null"),
    ("version: 99999999999999999999", "version: expected a whole number <= .*, found 99999999999999999999"),
    ("slices: 3", "slices: expected a power of two from 1 to 65536, found 3"),
    ("slices: 0", "slices: expected a whole number >= 1, found 0"),
    ("slices: 131072", "slices: expected a whole number <= 65536, found 131072"),
    ("interval: 59", "interval: expected a duration from 60 s to 2h30m, such as 30m, .*, found 59"),
    ("interval: 3h", "interval: expected a duration from 60 s to 2h30m, such as 30m, .*, found '3h'"),
    ("interval: [30m]", "interval: expected a duration .*, found a list of 1"),
    ("interval: 30 minutes", "interval: expected a duration .*, found '30 minutes'"),
    ("data: here", "data: expected a directory, as a path that begins with / or ~, found 'here'"),
    ("data: 3", "data: expected a directory, as a path that begins with / or ~, found 3"),
    ('data: "/a\\0b"', "data: expected a directory"),
    ("gateways: {}", "gateways: expected a list, found a mapping of 0"),
    ("gateways: []", "gateways: expected at least one, found none"),
    ("shards: []", "shards: expected at least one, found none"),
    ("gateways: [{}]", r"gateways\[0\].name: expected a value, found none"),
    ("gateways: [3]", r"gateways\[0\]: expected a mapping of settings, found 3"),
    ("gateways: [{name: -}]", r"gateways\[0\].name: expected a name of at most 63"),
    (
        "gateways: [{name: a, port: 3}]",
        r"gateways\[0\]: expected only name, node, listen, found the unknown key 'port'",
    ),
    ("gateways: [{name: a}, {name: a}]", r"gateways\[1\].name: expected a name that is not taken, as by gateways\[0\]"),
    (
        "gateways: [{name: a}, {name: b, listen: ['1.2.3.4:6969']}]",
        r"gateways\[1\].listen\[0\]: expected a port that is not taken, as by gateways\[0\].listen\[0\]",
    ),
    (GATEWAY % "", r"gateways\[0\].listen: expected a list of length >= 1, found a list of 0"),
    (GATEWAY % "6969", r"gateways\[0\].listen\[0\]: expected an IP address and a port .*, found 6969"),
    (GATEWAY % "'0.0.0.0:1', x", r"gateways\[0\].listen\[1\]: expected an IP address and a port .*, found 'x'"),
    (GATEWAY % "'0.0.0.0:80', '127.0.0.1:80'", r"gateways\[0\].listen\[1\]: expected a port that is not taken"),
    (
        GATEWAY % "'[::1]:80', '[::1]:80'",
        r"gateways\[0\].listen\[1\]: .* as by gateways\[0\].listen\[0\] \(\[::1\]:80\)",
    ),
    (GATEWAY % "'127.0.0.1:6970'", r"admin: expected another port than that of gateways\[0\].listen\[0\] "),
    (
        "admin: 0.0.0.0:6969",
        r"admin: expected another port than that of gateways\[0\].listen\[0\] .*, found 0.0.0.0:6969 of gateway1",
    ),
    ("admin: off", "admin: expected an IP address and a port .*, found false"),
    (
        "shards: [{name: a, memory: 1 MiB}]",
        r"shards\[0\].memory: expected a size from 16 MiB to 31 GiB.*, found '1 MiB'",
    ),
    ("shards: [{name: a, memory: 32 GiB}]", r"shards\[0\].memory: expected a size from 16 MiB to 31 GiB"),
    ("shards: [{name: a, memory: lots}]", r"shards\[0\].memory: expected a size .*, found 'lots'"),
    (
        "shards: [{name: a, weight: 0}]",
        r"shards\[0\].weight: expected more than 0, as no other shard has more, found 0",
    ),
    (
        "shards: [{name: a, weight: 0}, {name: b, weight: 0}]",
        r"shards\[0\].weight: expected more than 0, as no other shard has more, found 0",
    ),
    (
        "shards: [{name: a}, {name: b, weight: 0.009}]",
        r"shards\[1\].weight: expected 0, for a shard that is to hold nothing, or 0.01 to 100, found 0.009",
    ),
    ("shards: [{name: a, weight: -1}]", r"shards\[0\].weight: expected a number >= 0.0, found -1"),
    ("replicas: -1", "replicas: expected a whole number >= 0, found -1"),
    ("replicas: 8", "replicas: expected a whole number <= 7, found 8"),
    ("replicas: 1", "replicas: expected 0, as there is one shard, found 1"),
    ("replicas: 2\n" + SHARDS, "replicas: expected at most 1, as there are 2 shards, found 2"),
    ("shards: [{name: a, weight: .nan}]", r"shards\[0\].weight: expected a number"),
    ("shards: [{name: a, weight: .inf}]", r"shards\[0\].weight: expected a number"),
    ("shards: [{name: a}, {name: a}]", r"shards\[1\].name: expected a name that is not taken, as by shards\[0\].name"),
    ("shards: [{name: gateway1}]", r"shards\[0\].name: expected a name that is not taken, as by gateways\[0\].name"),
    ("shards: [{name: a, weight: 101}]", r"shards\[0\].weight: expected a number <= 100.0, found 101"),
    ("peers: {default: 60, most: 50}", "peers.default: expected at most peers.most, which is 50, found 60"),
    ("peers: {most: 201}", "peers.most: expected a whole number <= 200, found 201"),
    ("limits: null", "limits: expected a mapping of settings, found null"),
    ("limits: {connects: {rate: 0}}", "limits.connects.rate: expected a whole number >= 1, found 0"),
    ("limits: {connects: {burst: 10000001}}", "limits.connects.burst: expected a whole number <= 10000000"),
    ("limits: {requests: {rate: 2000000}}", "limits.requests.rate: expected a whole number <= 100000"),
    ("limits: {requests: {rat: 2}}", "limits.requests: expected only rate, burst, found the unknown key 'rat'"),
    ("limits: {errors: many}", "limits.errors: expected a whole number, found 'many'"),
    ("limits: {new_swarms: -1}", "limits.new_swarms: expected a whole number >= 1, found -1"),
    ("limits: {entries: 0}", "limits.entries: expected a whole number >= 1, found 0"),
    ("limits: {exempt: 10.0.0.0/8}", "limits.exempt: expected a list, found '10.0.0.0/8'"),
    ("limits: {exempt: [10.0.0.1/8]}", r"limits.exempt\[0\]: expected a network .*host bits.*, found '10.0.0.1/8'"),
    (
        f"limits: {{exempt: [{'10.0.0.1, ' * 65}]}}",
        "limits.exempt: expected a list of length <= 64, found a list of 65",
    ),
    ("connection_ids: {window: 1s}", "connection_ids.window: expected a duration from 60 s to 1d"),
    ("connection_ids: {windows: 201}", "connection_ids.windows: expected a whole number <= 200, found 201"),
    ("connection_ids: {answer_invalid: 1}", "connection_ids.answer_invalid: expected true or false, found 1"),
    ("trust_ip_field: true", "trust_ip_field: expected a list, found true"),
    ("log: {level: loud}", "log.level: expected one of debug, info, warning, error, found 'loud'"),
    ("log: {format: xml}", "log.format: expected one of auto, human, json, found 'xml'"),
    ("log: {figures: 2d}", "log.figures: expected a duration from 0 s to 1d"),
    ("log: {addresses: 'no'}", "log.addresses: expected true or false, found 'no'"),
    # Directories and users.
    ("keys: here", "keys: expected a directory, as a path that begins with / or ~, found 'here'"),
    ("user: [root]", "user: expected a name of at most 63 .*, found a list of 1"),
    ("insecure: maybe", "insecure: expected true or false, found 'maybe'"),
    # Nodes.
    ("nodes: {}", "nodes: expected a list, found a mapping of 0"),
    ("nodes: [{}]", r"nodes\[0\].name: expected a value, found none"),
    ("nodes: [{name: n, port: 1}]", r"nodes\[0\]: expected only name, key, found the unknown key 'port'"),
    ("nodes: [{name: n, key: short}]", r"nodes\[0\].key: expected a public key of 40 characters, .*, found 'short'"),
    ("nodes: [{name: n}, {name: n}]", r"nodes\[1\].name: expected a name that no other node has, found 'n'"),
    (
        "nodes: [{name: cluster}]",
        r"nodes\[0\].name: expected another name, as key files have this one, found 'cluster'",
    ),
    ("nodes: [{name: connection-id}]", r"nodes\[0\].name: expected another name, .*, found 'connection-id'"),
    ("nodes: [{name: n}, {name: m}]", r"gateways\[0\].node: expected one of n, m, found none"),
    ("shards: [{name: s, node: n}]", r"shards\[0\].node: expected no node, as `nodes` is empty, found 'n'"),
    (
        "nodes: [{name: n}]\nshards: [{name: s, node: m}]",
        r"shards\[0\].node: expected one of n, found 'm'",
    ),
    # Who listens where on a node.
    (
        "gateways: [{name: a, listen: ['1.2.3.4:1']}, {name: b, listen: ['0.0.0.0:1']}]",
        r"gateways\[1\].listen\[0\]: expected .* \(1.2.3.4:1\); to share it, write the same, found 0.0.0.0:1",
    ),
    ("admin: '127.0.0.1:65535'\n" + SHARDS, "admin: expected a port with room behind it .*, found 127.0.0.1:65535"),
    (
        "admin: '127.0.0.1:6968'\n" + SHARDS,
        r"admin: expected another port than that of gateways\[0\].listen\[0\] .*, found 127.0.0.1:6969 of s",
    ),
    ("shards: [{name: s, bind: 'tcp://127.0.0.1:1'}]", r"shards\[0\].link: expected where others reach .*, found none"),
    (
        SHARDS_AT % ("tcp://127.0.0.1:6969", "tcp://127.0.0.1:2"),
        r"shards\[0\].link: expected a port that is not taken, as by gateways\[0\].listen\[0\] \(0.0.0.0:6969\)",
    ),
    (
        SHARDS_AT % ("tcp://127.0.0.1:6971", "tcp://127.0.0.1:2"),
        r"admin: expected another port than that of shards\[0\].link \(127.0.0.1:6971\), found 127.0.0.1:6971 of s",
    ),
    (
        SHARDS_AT % ("tcp://127.0.0.1:1', bind: 'tcp://0.0.0.0:1", "tcp://127.0.0.2:1"),
        r"shards\[1\].link: expected a port that is not taken, as by shards\[0\].bind \(0.0.0.0:1\), found 127.0.0.2:1",
    ),
    (
        SHARDS_AT % ("ipc:///run/a", "ipc:///run/b', bind: 'ipc:///run/a"),
        r"shards\[1\].bind: expected a path that is not taken, as by shards\[0\].link, found 'ipc:///run/a'",
    ),
    # Links.
    (SHARDS_AT % ("udp://127.0.0.1:1", ""), r"shards\[0\].link: expected tcp:// with .* or ipc:// .*, found 'udp:"),
    (SHARDS_AT % ("ipc:///x", "tcp://1.2.3.4:0"), r"shards\[1\].link: expected .*, its port not 0, found 'tcp:"),
    (
        NODES + "{name: s, node: m}]",
        r"shards\[0\].link: expected tcp:// .*, as processes of other nodes .*, found none",
    ),
    (
        NODES + "{name: s, node: m, link: 'ipc:///run/s'}]",
        r"shards\[0\].link: expected tcp:// .*, as processes of other nodes link to it, found 'ipc:///run/s'",
    ),
    (f"data: /{'d' * 100}\n" + SHARDS, r"shards\[0\].link: expected a shorter path than `data` yields: at most 100"),
    (f"data: /{'é' * 50}\n" + SHARDS, r"shards\[0\].link: expected a shorter path than `data` yields: at most 100"),
    (
        NODES + "{name: s, node: n, link: 'tcp://127.0.0.1:1'}, {name: t, node: m, link: 'tcp://127.0.0.1:1'}]",
        r"shards\[1\].link: expected an address that is not taken, as by shards\[0\].link, found 'tcp://127.0.0.1:1'",
    ),
    (
        SHARDS_AT % ("tcp://127.0.0.1:1', bind: 'ipc:///run/s", "ipc:///run/t"),
        r"shards\[0\].bind: expected the same transport as `link`, found 'ipc:///run/s'",
    ),
    (
        SHARDS_AT % ("ipc:///run/s', bind: 'tcp://127.0.0.1:1", "ipc:///run/t"),
        r"shards\[0\].bind: expected the same transport as `link`, found 'tcp://127.0.0.1:1'",
    ),
    (
        SHARDS_AT % ("tcp://0.0.0.0:1", "ipc:///run/t"),
        r"shards\[0\].link: expected an address that others can reach; `bind` .*, found 'tcp://0.0.0.0:1'",
    ),
    # Keys.
    (
        f"nodes: [{{name: n, key: '{'a' * 40}'}}, {{name: m}}]\n" + ON_NODES,
        r"nodes\[1\].key: expected a public key, as other nodes have one: see `shoal keys`, found none",
    ),
    (
        f"nodes: [{{name: n, key: '{'a' * 40}'}}, {{name: m, key: '{'a' * 40}'}}]\n" + ON_NODES,
        r"nodes\[1\].key: expected a key of its own, not that of n, found the same",
    ),
    (
        SHARDS_AT % ("tcp://192.0.2.1:1", "ipc:///run/t"),
        r"shards\[0\].link: expected a loopback address, or keys for all nodes .*, found 'tcp://192.0.2.1:1'",
    ),
    (
        SHARDS_AT % ("ipc:///run/t", "tcp://[::1]:1', bind: 'tcp://[::]:1"),
        r"shards\[1\].bind: expected a loopback address, .*, or `insecure: true`, found 'tcp://\[::\]:1'",
    ),
    # YAML itself.
    ("slices: 1\nslices: 2", "line 2, column 1: expected every key once in a mapping, found 'slices' again"),
    ("log: {level: info,\n  level: info}", "line 2, column 3: expected every key once"),
    ("peers:\n\tmost: 5", r"line 2, column 1: expected valid YAML \(found character '\\t'"),
    ("peers: {most: 5", "line ., column .*: expected valid YAML"),
    (GATEWAY % "[::]:6969", "line 1, column .*: expected valid YAML"),
    ("? [a]\n: b", "line 1, column 3: expected valid YAML"),
    ("a: !!python/object:os.system {}", "line ., column .*: expected valid YAML"),
    ("--- {}\n--- {}", "line ., column .*: expected valid YAML"),
    ("a: 2026-99-99", "expected valid YAML"),
    ("a: *b", "line ., column .*: expected valid YAML"),
    ("a: \x00", "expected valid YAML"),
    ("&a [*a]", "expected a mapping of settings, found a list of 1"),
    ("slices: &a {b: *a}", "slices: expected a whole number, found a mapping of 1"),
    ("[" * 5000, r"expected valid YAML \(too many levels\)"),
]


@pytest.mark.parametrize(("document", "line"), REFUSED, ids=[document[:40] for document, _ in REFUSED])
def test_a_mistake_is_one_line_with_its_path(document, line, tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(document)
    with pytest.raises(ConfigError, match=f"^{file}: {line}") as caught:
        config.load(file)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("document", ["", "# nothing\n", "{}", "null", "---\n...\n", "\ufeff"])
def test_an_empty_file_is_the_default(document, tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(document)
    assert config.load(file) == Config()


def test_the_example_has_every_setting_with_its_default(monkeypatch):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert config.load(EXAMPLE) == Config()
    assert keys_of(yaml_file.load(EXAMPLE)) == keys_of(yaml_file.parse(config.encode(Config()).decode()))


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.yaml: expected a readable file, found no such file"):
        config.load(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="expected a readable file, found a directory"):
        config.load(tmp_path)
    (tmp_path / "latin").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match="expected a text file in UTF-8"):
        config.load(tmp_path / "latin")
    with pytest.raises(ConfigError, match="expected"):
        config.load("a\0b")


def test_values_are_typed():
    meant = config.read(yaml_file.parse("interval: 1h30m\nshards: [{name: s, memory: 64 MiB, weight: 2}]\nadmin: null"))
    assert meant.interval == 5400
    assert meant.shards[0].memory == 64 << 20
    assert meant.shards[0].weight == 2.0
    assert meant.admin is None
    assert [endpoint.port for endpoint in meant.gateways[0].listen] == [6969, 6969]


def test_slices_may_have_replicas_and_shards_may_be_there_to_hold_nothing():
    shards = [{"name": "s"}, {"name": "t", "weight": 0}, {"name": "u", "weight": 0.01}]
    meant = config.read({"replicas": 2, "shards": shards})
    assert (meant.replicas, [shard.weight for shard in meant.shards]) == (2, [1.0, 0.0, 0.01])
    assert config.decode(config.encode(meant)) == meant


def test_a_peer_outlives_its_longest_interval_by_half():
    assert Config().lifetime == 3270
    assert config.read({"interval": 61}).lifetime == 401


TWO_NODES = """
nodes: [{name: vps1}, {name: vps2}]
gateways: [{name: g1, node: vps1}, {name: g2, node: vps2}, {name: g3, node: vps2}]
shards:
  - {name: s1, node: vps2, link: "tcp://127.0.0.1:7101"}
  - {name: s2, node: vps1, link: "tcp://127.0.0.1:7102", bind: "tcp://127.0.0.2:7102"}
"""


def test_nodes_have_processes_and_these_have_addresses():
    meant = config.read(yaml_file.parse(TWO_NODES))
    assert not meant.is_embedded
    assert meant.node_names() == ["vps1", "vps2"]
    assert [process.name for process in meant.on_node("vps2")] == ["g2", "g3", "s1"]
    admin = {process.name: meant.admin_of(process) for process in (*meant.gateways, *meant.shards)}
    assert {name: address.port for name, address in admin.items()} == {
        "g1": 6970,
        "g2": 6970,
        "g3": 6971,
        "s1": 6972,
        "s2": 6971,
    }
    first, second = meant.shards
    assert (meant.link_of(first), meant.bind_of(first)) == ("tcp://127.0.0.1:7101", "tcp://127.0.0.1:7101")
    assert (meant.link_of(second), meant.bind_of(second)) == ("tcp://127.0.0.1:7102", "tcp://127.0.0.2:7102")


def test_processes_of_one_machine_need_neither_nodes_nor_links():
    meant = config.read({"data": "/srv", "shards": [{"name": "s"}, {"name": "t"}]})
    assert not meant.is_embedded
    assert meant.node_names() == [""]
    assert [process.name for process in meant.on_node("")] == ["gateway1", "s", "t"]
    assert [meant.bind_of(shard) for shard in meant.shards] == ["ipc:///srv/run/s", "ipc:///srv/run/t"]


def test_the_only_node_has_everything():
    meant = config.read({"nodes": [{"name": "n"}], "shards": [{"name": "s"}, {"name": "t"}]})
    assert len(meant.on_node("n")) == 3


def test_a_link_makes_two_processes_of_one():
    assert config.read({"nodes": [{"name": "n"}]}).is_embedded
    assert not config.read({"shards": [{"name": "s", "link": "ipc:///run/s"}]}).is_embedded
    assert not config.read({"gateways": [{"name": "g"}, {"name": "h"}]}).is_embedded


def test_processes_may_do_without_admin_addresses_or_have_any():
    none = config.read({"admin": None, "shards": [{"name": "s"}, {"name": "t"}]})
    assert none.admin_of(none.shards[1]) is None
    free = config.read({"admin": "127.0.0.1:0", "shards": [{"name": "s"}, {"name": "t"}]})
    assert free.admin_of(free.shards[1]).port == 0


def test_gateways_share_ports_of_a_node():
    listen = ["0.0.0.0:6969"]
    meant = config.read({"gateways": [{"name": "g", "listen": listen}, {"name": "h", "listen": listen}]})
    assert meant.gateways[0].listen == meant.gateways[1].listen


@pytest.mark.parametrize("bind", [{}, {"bind": "tcp://0.0.0.0:7101"}])
def test_links_between_machines_need_keys_or_the_operators_word(bind):
    shards = [{"name": "s", "link": "tcp://192.0.2.1:7101"} | bind]
    with pytest.raises(ConfigError, match="`insecure: true`"):
        config.read({"shards": shards})
    assert not config.read({"shards": shards, "insecure": True}).has_keys
    assert config.read({"shards": shards, "nodes": [{"name": "n", "key": "a" * 40}]}).has_keys


def test_a_file_may_be_read_before_its_keys_are_made(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("nodes: [{name: n}]\nshards: [{name: s, link: 'tcp://192.0.2.1:7101'}]\n")
    assert not config.load(file, keyed=False).has_keys
    with pytest.raises(ConfigError, match="keys for all nodes"):
        config.load(file)


def test_keys_of_several_nodes_are_beside_the_file(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("data: /srv\n")
    assert config.load(file).key_directory == Path("/srv")
    file.write_text("data: /srv\nnodes: [{name: n}]\n")
    assert config.load(file).key_directory == Path("/srv")
    file.write_text(TWO_NODES)
    assert config.load(file).key_directory == tmp_path / "keys"
    file.write_text(f"keys: /etc/keys\n{TWO_NODES}")
    assert config.load(file).key_directory == Path("/etc/keys")


def test_another_process_gets_the_same_cluster(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(f"user: shoal\n{TWO_NODES}")
    meant = config.load(file)
    assert config.decode(config.encode(meant)) == meant
    assert config.decode(config.encode(meant)).key_directory == tmp_path / "keys"


def test_another_process_gets_the_same_config():
    meant = config.read({"data": "/var/lib/shoal", "admin": "[::1]:80", "trust_ip_field": ["10.0.0.0/8"]})
    assert config.decode(config.encode(meant)) == meant
    assert config.decode(config.encode(meant)).admin.port == 80


def test_the_state_directory_is_where_the_system_says(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert Config().data == Path("/home/me/.local/state/shoal")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert Config().data == Path("/state/shoal")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/shoal:/var/lib/other")
    assert Config().data == Path("/var/lib/shoal")


def keys_of(value):
    """The shape of a document: its keys, without the values."""
    if isinstance(value, dict):
        return {key: keys_of(inner) for key, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [keys_of(inner) for inner in value]
    return None


def test_the_cluster_of_the_documentation_works(tmp_path):
    text = (EXAMPLE.parents[1] / "docs/config.md").read_text()
    (tmp_path / "cluster.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    meant = config.load(tmp_path / "cluster.yaml")
    assert meant.has_keys
    assert len(meant.node_names()) == 2
