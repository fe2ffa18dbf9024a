"""The commands as an operator meets them: what they print, and their exit status."""

import os
import re
import socket
import subprocess
import sys
import termios
from contextlib import suppress

import pytest
from trackers import Process

HASH = "ab" * 20


def shoal(*arguments, **options):
    command = [sys.executable, "-P", "-m", "cluster", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def refused(ended, status=2):
    """The one line of an operator's mistake."""
    assert ended.returncode == status, ended
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("shoal: ")
    return line


def test_the_version_is_told():
    assert shoal("--version").stdout.startswith("shoal, version ")


def test_help_lists_the_commands():
    assert all(name in shoal("--help").stdout for name in ("up", "check", "keys", "announce", "scrape"))


def test_check_says_what_a_file_means(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("interval: 20m\ndata: /srv/shoal\nshards: [{name: big, memory: 2 GiB}]\nadmin: null\n")
    told = shoal("check", file)
    assert told.returncode == 0
    assert told.stdout.startswith(f"{file}: fine")
    for part in ("0.0.0.0:6969, [::]:6969 (UDP and HTTP)", "shard big", "2 GiB", "listed for 38m", "/srv/shoal"):
        assert part in told.stdout


CLUSTER = """
nodes: [{name: vps1%s}, {name: vps2%s}]
insecure: true
user: shoal
gateways: [{name: g1, node: vps1}, {name: g2, node: vps2, listen: ["192.0.2.2:80"]}]
shards:
  - {name: heavy, node: vps1, link: "tcp://192.0.2.1:7101", bind: "tcp://10.0.0.1:7101", weight: 3}
  - {name: light, node: vps2, link: "tcp://[2001:db8::2]:7101", memory: 2 GiB}
"""
SHARDS = ("shard heavy", "shard light")


def rows(file):
    """What `check` tells of each process: its node, its admin address, and the rest."""
    told = shoal("check", file)
    assert (told.returncode, told.stderr) == (0, "")
    found = re.findall(r"^(\S+) +((?:gateway|shard) \S+) +(\S+) +(.*\S)", told.stdout, re.MULTILINE)
    return {process: (node, admin, does) for node, process, admin, does in found}, told.stdout


def test_on_a_terminal_a_table_fits_its_width_and_in_a_pipe_its_rows_are_whole(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER % ("", ""))
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    with open(ours, "rb", buffering=0) as shown:
        with open(theirs, "wb", buffering=0) as terminal:
            command = [sys.executable, "-P", "-m", "cluster", "check", file]
            env = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
            process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=env)
        told = b""
        with suppress(OSError):  # EIO: its end
            while part := shown.read(4096):
                told += part
    assert process.wait(60) == 0
    _, *lines = re.sub(r"\x1b\[\d*m", "", told.decode()).splitlines()
    assert max(map(len, lines)) == 60
    assert re.search(r"^.*shard heavy +.*at most 1 GiB", shoal("check", file).stdout, re.MULTILINE)


def test_check_says_what_runs_where(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER % ("", ""))
    processes, told = rows(file)
    assert processes["gateway g1"] == ("vps1", "127.0.0.1:6970", "listens on 0.0.0.0:6969, [::]:6969 (UDP and HTTP)")
    assert processes["gateway g2"] == ("vps2", "127.0.0.1:6970", "listens on 192.0.2.2:80 (UDP and HTTP)")
    node, admin, does = processes["shard heavy"]
    assert (node, admin) == ("vps1", "127.0.0.1:6971")
    assert does.startswith("tcp://192.0.2.1:7101 (in clear, listens on tcp://10.0.0.1:7101); ")
    assert does.endswith(", weight 3; at most 1 GiB")
    assert processes["shard light"][2].startswith("tcp://[2001:db8::2]:7101 (in clear); ")
    shares = [int(re.search(r"; (\d+) of 1024 slices \(\d+\.\d%\)", processes[name][2])[1]) for name in SHARDS]
    assert sum(shares) == 1024
    assert shares[0] > 2 * shares[1]
    for part in (
        "in clear, as nodes have no keys",
        "workers run as shoal",
        f"in {tmp_path}/keys",
        "1024, each kept by 1",
    ):
        assert part in told


def test_check_says_what_shards_have_with_replicas(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("data: /srv\nreplicas: 1\nshards: [{name: s}, {name: t}, {name: u}, {name: idle, weight: 0}]\n")
    processes, told = rows(file)
    assert "1024, each kept by 2 shards" in told
    found = [re.search(r"; (\d+) of 1024 .*, with replicas (\d+) ", processes[f"shard {name}"][2]) for name in "stu"]
    owned, kept = zip(*((int(match[1]), int(match[2])) for match in found), strict=True)
    assert (sum(owned), sum(kept)) == (1024, 2048)
    assert "; 0 of 1024 slices (0.0%), with replicas 0 (0.0%), weight 0; " in processes["shard idle"][2]


def test_check_says_that_replicas_lack_shards(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("data: /srv\nreplicas: 1\nshards: [{name: s}, {name: idle, weight: 0}]\n")
    _, told = rows(file)
    assert "1024, each kept by 1 shard, as no more have a weight; 2 are asked for" in told


def test_check_says_that_links_are_encrypted(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER % (f", key: '{'a' * 40}'", f", key: '{'b' * 40}'"))
    processes, told = rows(file)
    assert all("(encrypted" in processes[name][2] for name in SHARDS)
    assert "encrypted, by the nodes' keys" in told


def test_check_of_several_processes_on_one_machine(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("data: /srv\nadmin: null\nshards: [{name: s}, {name: t, link: 'ipc:///run/[red]t'}]\n")
    processes, told = rows(file)
    assert "tcp:// links" not in told
    assert processes["gateway gateway1"][:2] == ("-", "none")
    assert processes["shard s"][2].startswith("ipc:///srv/run/s (on this machine alone); ")
    assert processes["shard t"][2].startswith("ipc:///run/[red]t (on this machine alone); ")


@pytest.mark.parametrize("command", [["check"], ["up", "--config"]])
def test_a_bad_file_is_one_line(tmp_path, command):
    file = tmp_path / "cluster.yaml"
    file.write_text("interval: 1s\n")
    assert f"{file}: interval: expected a duration" in refused(shoal(*command, file))
    assert "expected a readable file, found no such file" in refused(shoal(*command, tmp_path / "no.yaml"))


def test_up_refuses_a_port_in_use(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        file = tmp_path / "cluster.yaml"
        file.write_text(f"data: {tmp_path}/data\ngateways: [{{name: g, listen: ['{listen}']}}]\n")
        line = refused(shoal("up", "--config", file))
    assert f"gateways[0].listen[0]: cannot listen on {listen} (UDP): Address already in use" in line


def test_up_refuses_keys_that_others_may_read(tmp_path):
    (tmp_path / "cluster.key").write_text("")
    (tmp_path / "cluster.key").chmod(0o644)
    file = tmp_path / "cluster.yaml"
    file.write_text(f"data: {tmp_path}\n")
    assert "others may read it" in refused(shoal("up", "--config", file))


def test_a_user_without_a_home_is_told(tmp_path):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("STATE_DIRECTORY", "XDG_STATE_HOME")
    }
    assert "data: expected a directory" in refused(shoal("up", env=environment | {"HOME": "~"}))


@pytest.mark.parametrize("command", ["announce", "scrape"])
def test_the_client_refuses_what_makes_no_sense(command):
    assert "this version speaks udp:// and http:// only" in refused(
        shoal(command, "https://127.0.0.1:1/announce", HASH)
    )
    assert "expected a URL such as http://" in refused(shoal(command, "http://127.0.0.1:0/announce", HASH))
    assert "expected an info-hash" in refused(shoal(command, "http://127.0.0.1:1", "abc"))
    assert "expected an IP address" in refused(shoal(command, "http://127.0.0.1:1", HASH, "--source", "here"))
    assert "expected an info-hash" in refused(shoal(command, "udp://127.0.0.1:1", "abc"))
    assert "expected an IP address" in refused(shoal(command, "udp://127.0.0.1:1", HASH, "--source", "here"))
    assert shoal(command, "udp://127.0.0.1:1").returncode == 2


@pytest.mark.parametrize("command", ["announce", "scrape"])
def test_no_answer_is_one_line(command):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        port = mute.getsockname()[1]
        line = refused(shoal(command, f"udp://127.0.0.1:{port}", HASH, "--timeout", "0.05"), status=1)
        assert f"127.0.0.1 port {port}: no answer to 3 requests" in line
    assert "nowhere.invalid" in refused(shoal(command, "udp://nowhere.invalid:1", HASH), status=1)


@pytest.mark.parametrize("command", ["announce", "scrape"])
def test_no_answer_over_http_is_one_line(command):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        line = refused(shoal(command, f"http://127.0.0.1:{port}", HASH, "--timeout", "0.05"), status=1)
        assert f"127.0.0.1 port {port}: no answer in 0.15 s" in line


def test_http_shows_what_udp_shows(tmp_path):
    with Process(tmp_path) as tracker:
        for host in ("127.0.0.1", "[::1]"):
            port = tracker.addresses[host == "[::1]"][1]
            told = shoal("announce", f"HTTP://{host}:{port}", HASH, "--event", "started", "--port", "7000")
            assert (told.returncode, told.stderr) == (0, "")
        tables = {}
        for scheme in ("udp", "http"):
            url = f"{scheme}://127.0.0.1:{tracker.addresses[0][1]}/announce"
            asked = shoal("announce", url, HASH, "--left", "5", "--port", "7001", "--source", "127.0.0.2")
            counts, _, peers = asked.stdout.partition("\n")
            assert counts.startswith("seeders: 2, leechers: 1, ")
            tables[scheme] = (peers, shoal("scrape", url, HASH, "00" * 20).stdout)
    assert "127.0.0.1  7000" in tables["udp"][0]
    assert "::1        7000" in tables["http"][0]
    assert tables["udp"][0] in tables["http"][0]
    assert tables["udp"][1] == tables["http"][1]
    assert HASH in tables["udp"][1]


def test_the_trackers_refusal_over_http_is_one_line(tmp_path):
    with Process(tmp_path) as tracker:
        url = f"http://127.0.0.1:{tracker.addresses[0][1]}/announce?{'a=b&' * 120}c=d"
        assert "answered: too many parameters" in refused(shoal("announce", url, HASH), status=1)


def test_a_command_imports_only_what_it_needs():
    code = "import cluster.__main__, sys; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"rich", "yaml", "msgspec", "aiohttp", "uvloop", "bencode2", "http", "zmq"} & set(loaded)
