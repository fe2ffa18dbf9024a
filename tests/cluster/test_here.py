"""`shoal check --here`: what of a machine would keep a node from running, found without changing anything."""

import json
import os
import pwd
import shutil
import socket
from pathlib import Path

import yaml
from processes import shoal, shoal_refuses

ROOT = os.geteuid() == 0
ME = pwd.getpwuid(os.geteuid()).pw_name
OTHER = pwd.getpwnam("nobody" if ME != "nobody" else "daemon")
AS_OTHER = {"user": OTHER.pw_uid, "group": OTHER.pw_gid, "extra_groups": []} if ROOT else {}
LOW = 1  # a port that nobody but root may take; so is the next one
IS_LOW = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) > LOW + 1  # not in some containers
PRIVILEGED = "only root may listen there, or who has CAP_NET_BIND_SERVICE"


def write(directory, **settings):
    """A file of a gateway and two shards."""
    file = directory / "cluster.yaml"
    wanted = {
        "data": str(directory / "data"),
        "admin": None,
        "gateways": [{"name": "g1", "listen": ["127.80.0.1:0"]}],
        "shards": [{"name": "s1"}, {"name": "s2"}],
        **settings,
    }
    file.write_text(yaml.safe_dump(wanted))
    return file


def look(file, *more, **options):
    """The lines of what is wrong here."""
    ended = shoal("check", file, "--here", *more, **options)
    assert ended.stderr == ""
    assert ended.stdout.startswith(f"{file}: fine")
    lines = [line.removeprefix("here: ") for line in ended.stdout.splitlines() if line.startswith("here: ")]
    if ended.returncode == 0:
        assert lines == ["fine"]
        return []
    assert ended.returncode == 1
    return lines


def test_nothing_is_wrong_and_nothing_is_made(place):
    assert look(write(place)) == []
    assert look(write(place, shards=[{"name": "s1"}])) == []  # embedded
    assert [path.name for path in place.iterdir()] == ["cluster.yaml"]


def test_without_the_option_the_machine_does_not_matter(place):
    assert shoal("check", write(place, user="nobody-has-this-name")).returncode == 0


def test_a_user_that_is_not_there(place):
    (line,) = look(write(place, user="nobody-has-this-name"))
    assert line == "user: expected a user of this machine, found 'nobody-has-this-name'"


def test_directories_that_cannot_be_written_nor_made(place):
    (place / "data").mkdir(mode=0o555)
    (place / "locked").mkdir(mode=0o555)
    (line,) = look(write(place), **AS_OTHER)
    assert line == f"data: {place}/data: this user cannot write there"
    lines = look(write(place, data=f"{place}/locked/deep/data", keys=f"{place}/data"), **AS_OTHER)
    assert lines == [
        f"data: {place}/locked/deep/data: cannot be made, as {place}/locked cannot be written",
        f"keys: {place}/data: this user cannot write there",
    ]


def test_directories_of_root_are_not_the_users(place):
    file = write(place, user=OTHER.pw_name)
    if not ROOT:
        assert look(file)[0].startswith("user: expected a start by root")
        return
    assert look(file) == []  # it is made for the user
    (place / "data/run").mkdir(mode=0o700, parents=True)
    wrong = f"{OTHER.pw_name}, whom workers run as, cannot write there"
    assert look(file)[0] == f"data: {place}/data: {wrong}"
    shutil.chown(place / "data", OTHER.pw_name)
    (place / "data/run").chmod(0o755)
    assert look(file) == [f"data: {place}/data/run: {wrong}"]
    place.chmod(0o700)
    assert "may not enter it: chmod o+x" in look(file)[0]


def test_ports_that_are_for_root(place):
    shards = [{"name": "s1", "link": f"tcp://127.80.0.1:{LOW + 1}"}, {"name": "s2", "link": "tcp://127.80.0.1:7102"}]
    settings = {"gateways": [{"name": "g1", "listen": [f"127.80.0.1:{LOW}"]}], "shards": shards, "insecure": True}
    (place / "data").mkdir()
    (place / "data").chmod(0o777)
    link = [f"s1: link: 127.80.0.1:{LOW + 1}: {PRIVILEGED}"] if IS_LOW else []
    listen = [f"g1: listen: 127.80.0.1:{LOW}: {PRIVILEGED}"] if IS_LOW else []
    assert look(write(place, **settings), **AS_OTHER) == listen + link
    if ROOT:  # opens it for a gateway before that becomes the user, but not a shard's
        assert look(write(place, **settings, user=OTHER.pw_name)) == link
        assert look(write(place, **settings)) == []


def test_addresses_of_other_machines(place):
    gateways = [{"name": "g1", "listen": ["192.0.2.1:6969", "[2001:db8::1]:6969"]}]
    lines = look(write(place, gateways=gateways, admin="192.0.2.1:6970"))
    assert [line.rpartition(": ")[0] for line in lines] == [
        "g1: listen: 192.0.2.1:6969",
        "g1: listen: [2001:db8::1]:6969",
        *(f"{name}: admin: 192.0.2.1:{port}" for name, port in (("g1", 6970), ("s1", 6971), ("s2", 6972))),
    ]
    assert lines[0].endswith("it is no address of this machine")


def test_a_port_that_is_taken_may_be_the_trackers_own(place):
    with socket.create_server(("127.80.0.1", 0)) as taken:
        listen = f"127.80.0.1:{taken.getsockname()[1]}"
        assert look(write(place, gateways=[{"name": "g1", "listen": [listen]}])) == []


def test_a_file_that_is_older_than_what_was_taken_up(place):
    (place / "data").mkdir()
    kept = place / "data/taken-up-node.json"
    kept.write_text(json.dumps(yaml.safe_load(write(place, version=4).read_text())))
    assert look(write(place, version=4)) == []
    (line,) = look(write(place, version=3))
    assert line.startswith("version: expected at least 4, which was taken up before")
    assert line.endswith(f"({kept} says so; remove it if this is another cluster), found 3")
    kept.write_text("what no version of Shoal wrote")
    assert look(write(place, version=3)) == []


def test_a_node_of_several_needs_the_keys_that_they_share(place):
    nodes = [{"name": "vps1"}, {"name": "vps2"}]
    gateways = [{"name": "g1", "node": "vps1", "listen": ["127.80.0.1:0"]}]
    shards = [{"name": f"s{at}", "node": f"vps{at}", "link": f"tcp://127.80.0.1:710{at}"} for at in (1, 2)]
    file = write(place, nodes=nodes, gateways=gateways, shards=shards, insecure=True, keys=str(place / "keys"))
    assert "--node: expected one of vps1, vps2" in shoal_refuses("check", file, "--here")
    (line,) = look(file, "--node", "vps1")
    assert line.startswith(f"keys: {place}/keys/cluster.key: there is no such file")
    assert shoal("keys", "make", "--config", file).returncode == 0
    assert look(file, "--node", "vps1") == []
    (place / "keys/connection-id.key").unlink()
    assert look(file, "--node", "vps1")[0].startswith(f"keys: {place}/keys/connection-id.key: there is no such file")
    assert look(file, "--node", "vps2") == []  # has no gateway
