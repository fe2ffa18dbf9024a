"""`shoal keys` as an operator meets it: what it makes, what it prints, and its exit status."""

import json
import re
import stat
import subprocess
import sys

import pytest
import zmq

from common import keys

TWO = """
nodes:
  - name: vps1
{vps1}
  - name: vps2
{vps2}
gateways:
  - {{name: g1, node: vps1}}
  - {{name: g2, node: vps2}}
shards:
  - {{name: s1, node: vps1, link: "tcp://192.0.2.1:7101"}}
  - {{name: s2, node: vps2, link: "tcp://192.0.2.2:7101"}}
"""
ANY = zmq.curve_keypair()[0].decode()


def shoal(*arguments, **options):
    command = [sys.executable, "-P", "-m", "cluster", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def refused(ended):
    """The one line of an operator's mistake."""
    assert (ended.returncode, ended.stdout) == (2, ""), ended
    (line,) = ended.stderr.splitlines()
    assert line.startswith("shoal: ")
    return line


@pytest.fixture
def file(tmp_path):
    """A cluster of two nodes whose keys are yet to be made."""
    return write(tmp_path / "cluster.yaml")


def write(file, **public):
    lines = {name: f'    key: "{public[name]}"' if name in public else "" for name in ("vps1", "vps2")}
    file.write_text(TWO.format(**lines))
    return file


def make(file, *options, status=0):
    ended = shoal("keys", "make", "--config", file, *options)
    assert (ended.returncode, ended.stderr) == (status, ""), ended
    return ended.stdout


def listed(file, status=0):
    ended = shoal("keys", "list", "--config", file, "--json")
    assert (ended.returncode, ended.stderr) == (status, ""), ended
    return {key["file"]: key for key in json.loads(ended.stdout)["files"]}


def contents(directory):
    return {path.name: path.read_text() for path in directory.iterdir()}


def public_keys(told):
    """What an operator copies into the file, by node."""
    return dict(re.findall(r'^(\S+): the configuration .*\n    key: "(\S{40})"$', told, re.MULTILINE))


def test_make_makes_what_is_missing_and_prints_what_the_file_needs(file):
    told = make(file)
    directory = file.parent / "keys"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert set(contents(directory)) == {"cluster.key", "connection-id.key", "vps1.key", "vps2.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert all(f"{directory}/{name}: made\n" in told for name in contents(directory))
    assert "all nodes need these very files" in told
    assert told.count("the configuration lacks its public key; add this line to the node:") == 2
    assert public_keys(told) == {name: keys.load_node_key(directory, name).public for name in ("vps1", "vps2")}


def test_what_make_prints_makes_the_file_whole(file):
    assert "keys for all nodes (`shoal keys`)" in refused(shoal("check", file))
    write(file, **public_keys(make(file)))
    assert shoal("check", file).returncode == 0
    told = make(file)
    assert told.count("the configuration has its public key:") == 2
    assert "lacks" not in told
    assert "ANOTHER" not in told


def test_make_replaces_nothing(file):
    make(file)
    before = contents(file.parent / "keys")
    told = make(file)
    assert contents(file.parent / "keys") == before
    assert told.count(": there already") == 4
    assert "these very files" not in told


def test_another_public_key_in_the_file_is_told(file):
    own = public_keys(make(file))["vps1"]
    told = make(write(file, vps1=ANY), status=1)
    assert f'vps1: the configuration has ANOTHER public key; that of the file here is:\n    key: "{own}"' in told
    assert "vps2: the configuration lacks" in told


def test_a_node_can_make_its_own(file):
    told = make(file, "--node", "vps2")
    assert list(contents(file.parent / "keys")) == ["vps2.key"]
    assert list(public_keys(told)) == ["vps2"]


def test_a_secret_that_another_machine_has_is_not_made_anew(file):
    told = make(write(file, vps2=ANY))
    assert "vps2: the configuration has its public key; the secret is not here, and not made anew" in told
    assert set(contents(file.parent / "keys")) == {"cluster.key", "connection-id.key", "vps1.key"}


def test_a_secret_that_is_lost_is_made_anew_when_its_node_is_named(file):
    told = make(write(file, vps1=ANY), "--node", "vps1", status=1)
    assert "ANOTHER" in told
    assert public_keys(told)["vps1"] == keys.load_node_key(file.parent / "keys", "vps1").public


def test_a_node_that_is_not_there_is_one_line(file, tmp_path):
    assert "--node: expected one of vps1, vps2, found 'vps3'" in refused(
        shoal("keys", "make", "--config", file, "--node", "vps3")
    )
    alone = tmp_path / "alone.yaml"
    alone.write_text("")
    assert "--node: expected none, as `nodes` is empty, found 'vps1'" in refused(
        shoal("keys", "make", "--config", alone, "--node", "vps1")
    )
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("command", ["make", "list", "rotate"])
def test_a_bad_file_is_one_line(tmp_path, command):
    file = tmp_path / "cluster.yaml"
    file.write_text("nodes: [{name: vps1, key: secret}]\n")
    assert f"{file}: nodes[0].key: expected a public key" in refused(shoal("keys", command, "--config", file))


def test_keys_that_cannot_be_used_are_one_line(file):
    make(file)
    (file.parent / "keys/cluster.key").chmod(0o644)
    assert "cluster.key: others may read it (mode 0644)" in refused(shoal("keys", "make", "--config", file))
    (file.parent / "keys/connection-id.key").unlink()
    assert "connection-id.key: cannot be read" in refused(shoal("keys", "rotate", "--config", file))


def test_list_tells_what_is_there(file):
    assert [(key["file"], key["state"]) for key in listed(file, status=1).values()] == [
        ("cluster.key", "missing"),
        ("connection-id.key", "missing"),
        ("vps1.key", "not made yet"),
        ("vps2.key", "not made yet"),
    ]
    public = public_keys(make(file))
    found = listed(write(file, vps1=public["vps1"]))
    assert found["vps1.key"] == {
        "file": "vps1.key",
        "mode": "0600",
        "public": public["vps1"],
        "state": "agrees",
        "wrong": False,
    }
    assert (found["vps2.key"]["public"], found["vps2.key"]["state"]) == (public["vps2"], "not in the file")
    assert found["cluster.key"]["state"] == "fine"


def test_list_misses_no_key_of_gateways_where_there_are_none(file):
    make(file)
    file.write_text(file.read_text().replace("{name: g2, node: vps2}", "{name: g2, node: vps1}"))
    directory = file.parent / "keys"
    write_back = (directory / "connection-id.key").read_text()
    (directory / "connection-id.key").unlink()
    assert listed(file, status=1)["connection-id.key"]["state"] == "missing"  # vps1 is here too
    (directory / "vps1.key").unlink()
    found = listed(file)["connection-id.key"]
    assert (found["state"], found["wrong"]) == ("not needed, as no gateway is here", False)
    (directory / "connection-id.key").write_text(write_back)
    assert listed(file, status=1)["connection-id.key"]["wrong"]  # its mode: one that is there must be right
    (directory / "connection-id.key").unlink()
    (directory / "vps2.key").unlink()
    assert listed(file, status=1)["connection-id.key"]["state"] == "missing"  # whose machine this is nobody knows


def test_list_tells_what_is_wrong(file):
    make(file)
    directory = file.parent / "keys"
    (directory / "cluster.key").chmod(0o640)
    (directory / "connection-id.key").write_text("")
    (directory / "vps2.key").write_text("shoal node key 1\n")
    found = listed(write(file, vps1=ANY, vps2=public_of(file, "vps1")), status=1)
    assert found["vps1.key"]["state"] == "ANOTHER in the file"
    assert found["vps2.key"]["state"] == "its lines are not public, secret"
    assert (found["cluster.key"]["mode"], found["cluster.key"]["state"][:18]) == ("0640", "others may read it")
    assert found["connection-id.key"]["state"].startswith("not a key file of this version")
    assert all(key["wrong"] for key in found.values())


def public_of(file, node):
    return keys.load_node_key(file.parent / "keys", node).public


def test_list_knows_keys_of_other_machines_and_of_nobody(file):
    make(file)
    directory = file.parent / "keys"
    (directory / "vps2.key").rename(directory / "gone.key")
    (directory / "notes.txt").write_text("")
    found = listed(write(file, vps1=public_of(file, "vps1"), vps2=ANY))
    assert (found["vps2.key"]["public"], found["vps2.key"]["state"]) == (ANY, "not here")
    assert found["gone.key"]["state"] == "of no node"
    assert "notes.txt" not in found


def test_the_table_has_public_keys_whole_and_no_secrets(file):
    make(file)
    table = shoal("keys", "list", "--config", file).stdout
    directory = file.parent / "keys"
    assert table.startswith(f"{directory}:\n")
    for node in ("vps1", "vps2"):
        key = keys.load_node_key(directory, node)
        assert re.search(rf"^{node}\.key +0600 +{re.escape(key.public)} ", table, re.MULTILINE)
        shown = table + make(file) + json.dumps(listed(file))
        assert key.secret not in shown
        assert keys.load(directory).cluster.hex() not in shown


def test_rotate_replaces_the_key_of_connection_ids(file):
    make(file)
    directory = file.parent / "keys"
    before = contents(directory)
    told = shoal("keys", "rotate", "--config", file)
    assert (told.returncode, told.stderr) == (0, "")
    assert "within a second" in told.stdout
    assert "copy it to the other nodes" in told.stdout
    after = contents(directory)
    assert {name for name in before if before[name] != after[name]} == {"connection-id.key"}
    rotated = keys.load(directory).connection_id
    assert f"current {rotated.previous.hex()}\n" in before["connection-id.key"]


def test_without_a_file_the_keys_are_those_of_the_embedded_tracker(tmp_path):
    environment = {"STATE_DIRECTORY": str(tmp_path / "state")}
    told = shoal("keys", "make", env=environment)
    assert told.returncode == 0
    assert f"{tmp_path}/state/cluster.key: made" in told.stdout
    assert set(contents(tmp_path / "state")) == {"cluster.key", "connection-id.key"}
    assert shoal("keys", "list", env=environment).returncode == 0
    told = shoal("keys", "rotate", env=environment)
    assert told.returncode == 0
    assert "other nodes" not in told.stdout


def test_a_place_that_cannot_be_is_one_line(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(f"keys: {tmp_path}/cluster.yaml\n")
    assert "the directory of key files is a file" in refused(shoal("keys", "make", "--config", file))
    assert "cannot be read: Not a directory" in refused(shoal("keys", "list", "--config", file))
