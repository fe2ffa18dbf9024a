"""cluster.yaml: what it means, and one clear line for whatever is wrong with it."""

from pathlib import Path

import pytest

from common import config, yaml_file
from common.config import Config, ConfigError

EXAMPLE = Path(__file__).parents[2] / "examples/one-machine.yaml"

GATEWAY = "gateways: [{name: g, listen: [%s]}]"

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
    ("gateways: []", "gateways: expected exactly one: this version runs one gateway and one shard in one process"),
    ("gateways: [{}]", r"gateways\[0\].name: expected a value, found none"),
    ("gateways: [3]", r"gateways\[0\]: expected a mapping of settings, found 3"),
    ("gateways: [{name: -}]", r"gateways\[0\].name: expected a name of at most 63"),
    ("gateways: [{name: a, port: 3}]", r"gateways\[0\]: expected only name, listen, found the unknown key 'port'"),
    ("gateways: [{name: a}, {name: a}]", r"gateways\[1\].name: expected a name that is not taken, as by gateways\[0\]"),
    (
        "gateways: [{name: a}, {name: b, listen: ['1.2.3.4:6969']}]",
        r"gateways\[1\].listen\[0\]: expected a port that is not taken, as by gateways\[0\].listen\[0\]",
    ),
    (
        "gateways: [{name: a}, {name: b, listen: ['1.2.3.4:1']}]",
        "gateways: expected exactly one: this version runs one gateway and one shard in one process, found 2",
    ),
    (GATEWAY % "", r"gateways\[0\].listen: expected a list of length >= 1, found a list of 0"),
    (GATEWAY % "6969", r"gateways\[0\].listen\[0\]: expected an IP address and a port .*, found 6969"),
    (GATEWAY % "'0.0.0.0:1', x", r"gateways\[0\].listen\[1\]: expected an IP address and a port .*, found 'x'"),
    (GATEWAY % "'0.0.0.0:80', '127.0.0.1:80'", r"gateways\[0\].listen\[1\]: expected a port that is not taken"),
    (
        GATEWAY % "'[::1]:80', '[::1]:80'",
        r"gateways\[0\].listen\[1\]: .* as by gateways\[0\].listen\[0\] \(\[::1\]:80\)",
    ),
    (GATEWAY % "'127.0.0.1:6970'", "admin: expected another port than that of .*, where HTTP is served"),
    ("admin: 0.0.0.0:6969", r"admin: expected another port than that of gateways\[0\].listen\[0\], .*, found 0.0.0.0"),
    ("admin: off", "admin: expected an IP address and a port .*, found false"),
    (
        "shards: [{name: a, memory: 1 MiB}]",
        r"shards\[0\].memory: expected a size from 16 MiB to 31 GiB.*, found '1 MiB'",
    ),
    ("shards: [{name: a, memory: 32 GiB}]", r"shards\[0\].memory: expected a size from 16 MiB to 31 GiB"),
    ("shards: [{name: a, memory: lots}]", r"shards\[0\].memory: expected a size .*, found 'lots'"),
    ("shards: [{name: a, weight: 0}]", r"shards\[0\].weight: expected a number > 0.0, found 0"),
    ("shards: [{name: a, weight: .nan}]", r"shards\[0\].weight: expected a number"),
    ("shards: [{name: a, weight: .inf}]", r"shards\[0\].weight: expected a number"),
    ("shards: [{name: a}, {name: a}]", r"shards\[1\].name: expected a name that is not taken, as by shards\[0\].name"),
    ("shards: [{name: gateway1}]", r"shards\[0\].name: expected a name that is not taken, as by gateways\[0\].name"),
    ("shards: [{name: a}, {name: b}]", "shards: expected exactly one: this version runs one gateway and one shard"),
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


def test_a_peer_outlives_its_longest_interval_by_half():
    assert Config().lifetime == 3270
    assert config.read({"interval": 61}).lifetime == 401


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
