"""The supervisor as a process of its own, with a worker that does as told."""

import contextlib
import itertools
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest

from cluster import start, supervisor, worker
from cluster import watch as watch_file
from common import admin, config_source, sockets
from common.config import Config
from gateway import service, shard_links

WORKER = Path(__file__).with_name("fake_worker.py")
READER = Path(__file__).with_name("fake_reader.py")
CODE = """
import json, socket, sys
from common import config_source, logs
from cluster import supervisor, watch, worker
told = json.loads(sys.argv[1])
logs.set_up("info", "json", sys.stdout)
worker.AGAIN = told["again"]
worker.SETTLED = 100.0  # however slow the machine is
watch.EVERY, watch.PATIENCE, watch.AGAIN = 0.02, told["patience"], told["again"]
supervisor.PATIENCE = told["patience"]
watch.READER = [sys.executable, "-P", told["reader"]]
workers = [
    worker.Worker(name, [sys.executable, "-P", *command], [socket.socket(fileno=fd) for fd in fds], None, kind)
    for name, kind, command, fds in told["workers"]
]
workers[0].settled = told["settled"]
eye = watch.Watch(told["file"], config_source.stamp(told["file"])) if told["file"] else None
sys.exit(supervisor.Supervisor(workers, told["config_fd"], eye).run())
"""


def datagram_socket(port=0, shared=False):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sockets.share(sock, shared)
    sock.bind(("127.0.0.1", port))
    return sock


class Watched:
    """A running supervisor, and what it and its workers say.

    `manners` has for each worker what it is to do; `doors` its sockets, by default two for the first. `settled`: as if
    the first had run for a minute before; `handling`: of SIGCHLD, by whoever starts the supervisor. `file`: what it
    watches; its reader, which does as the file says, and workers that end have `patience`.
    """

    def __init__(
        self,
        *manners,
        doors=None,
        again=30.0,
        more=(),
        settled=False,
        handling=signal.SIG_DFL,
        file=None,
        patience=supervisor.PATIENCE,
    ):
        self.doors = doors or [[datagram_socket(), datagram_socket()]]
        config_fd = start.config_file(Config())
        workers = []
        for place, manner in enumerate(manners):
            name = f"w{place + 1}"
            fds = [door.fileno() for door in self.doors[place]] if place < len(self.doors) else []
            command = [str(WORKER), manner, *(["--name", name] if len(manners) > 1 else []), *map(str, more)]
            workers.append((name, "shard" if manner == "linger" else manner, command, fds))
        told = {
            "again": again,
            "workers": workers,
            "config_fd": config_fd,
            "settled": settled,
            "file": str(file) if file else None,
            "patience": patience,
            "reader": str(READER),
        }
        command = [sys.executable, "-P", "-c", CODE, json.dumps(told)]
        kept = (config_fd, *(fd for *_, fds in workers for fd in fds))
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=kept,
            preexec_fn=lambda: signal.signal(signal.SIGCHLD, handling),
        )
        os.close(config_fd)
        self.unheard = []  # what was said while something else was waited for

    def hear(self, word):
        """The rest of the next line that begins with the word, or of the next log line that contains it."""
        for place, text in enumerate(self.unheard):
            if word in text:
                return self.unheard.pop(place).removeprefix(word).strip()
        for line in self.process.stdout:
            text = json.loads(line)["message"] if line.startswith("{") else line.strip()
            if text.startswith(word) or (line.startswith("{") and word in text):
                return text.removeprefix(word).strip()
            self.unheard.append(text)
        pytest.fail(f"the supervisor ended without a word of {word!r}")

    def end(self):
        """All that is still said, and the exit status."""
        rest = self.process.stdout.read()
        return rest, self.process.wait(10)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        for door in chain.from_iterable(self.doors):
            door.close()


@pytest.fixture
def watch():
    running = []

    def run(*manners, **options):
        running.append(Watched(*manners, **options))
        return running[-1]

    yield run
    for one in running:
        one.close()


def test_a_worker_gets_sockets_and_config(watch):
    watched = watch("stay")
    assert watched.hear("interval") == "30m"
    assert watched.hear("doors").split() == [str(door.getsockname()[1]) for door in watched.doors[0]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(watch, number):
    watched = watch("stay")
    watched.hear("doors")
    watched.process.send_signal(number)
    watched.process.send_signal(signal.SIGINT)  # an impatient operator changes nothing
    said, status = watched.end()
    assert status == 0
    assert "signal SIGTERM" in said


def test_a_worker_that_does_not_stop_is_killed(watch):
    watched = watch("deaf")
    watched.hear("doors")
    began = time.monotonic()
    watched.process.send_signal(signal.SIGTERM)
    said, status = watched.end()
    assert status == 0
    assert "is killed" in said
    assert time.monotonic() - began >= supervisor.PATIENCE


def test_hangup_is_passed_on_and_hurts_no_worker_that_is_starting(watch):
    watched = watch("stay")
    watched.hear("started")
    for _ in range(5):
        watched.process.send_signal(signal.SIGHUP)
        time.sleep(0.01)
    watched.hear("doors")
    watched.process.send_signal(signal.SIGHUP)
    watched.hear("signal SIGHUP")
    assert watched.process.poll() is None


def test_datagrams_wait_for_the_next_worker(watch):
    watched = watch("echo")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(watched.doors[0][0].getsockname())
        client.send(b"one")
        assert watched.hear("datagram") == "one"
        client.send(b"two")  # this worker reads no more
        assert "killed by SIGKILL" in watched.hear("ended after")
        assert watched.hear("datagram") == "two"


def test_a_refused_configuration_ends_it(watch):
    said, status = watch("exit2").end()
    assert status == 1
    assert said.count("doors") == 1
    assert "cannot work with this configuration" in said


def test_who_worked_before_is_tried_again_even_if_it_says_that_it_cannot(watch):
    watched = watch("exit2", settled=True)
    for _ in range(2):
        assert "exit status 2; another in" in watched.hear("w1 ended after")
    assert watched.process.poll() is None


def test_who_worked_before_is_waited_for_though_nobody_else_is_left(watch):
    watched = watch("exit1", "exit2", again=0.1, settled=True)
    assert watched.hear("w2 cannot work") == "with this configuration and is taken out for good"
    for many in (5, 6, 7):
        assert f"{many} in a row" in watched.hear("it is taken out")
    watched.process.send_signal(signal.SIGTERM)
    assert watched.end()[1] == 0


@pytest.mark.parametrize("handling", [signal.SIG_IGN, signal.SIG_DFL])
def test_ends_are_noticed_whatever_was_inherited(watch, handling):
    watched = watch("exit7", handling=handling)
    assert "exit status 7" in watched.hear("ended after")


def test_five_short_lives_in_a_row_end_it(watch):
    said, status = watch("exit7").end()
    assert status == 1
    assert said.count("doors") == 5
    assert "exit status 7; 5 in a row ended within 100 s" in said


def test_a_worker_that_ends_well_unasked_is_started_again(watch):
    watched = watch("exit0")
    watched.hear("doors")
    watched.hear("doors")


def test_a_signal_between_two_workers_ends_it(watch):
    watched = watch("exit1")
    for _ in range(4):
        watched.hear("ended after")
    watched.process.send_signal(signal.SIGTERM)
    assert watched.end()[1] == 0


def test_no_worker_outlives_its_supervisor(watch):
    watched = watch("stay")
    watched.hear("doors")
    watched.process.kill()
    watched.hear("orphaned")


def test_a_command_that_cannot_be_started_counts_as_a_failure(watch, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "CODE", CODE.replace("sys.executable", "'/nonexistent'"))
    said, status = watch("stay").end()
    assert status == 1
    assert said.count("ended after") == 5
    assert "exit status 127; 5 in a row ended within 100 s" in said


def test_each_worker_gets_its_own_sockets_and_no_others(watch):
    watched = watch("stay", "stay", "stay", doors=[[datagram_socket()], [datagram_socket()]])
    mine = [inode_of(door.fileno()) for (door,) in watched.doors]
    inherited = [sockets_of(pid) & set(mine) for pid in pids_of(watched, 3)]
    assert inherited == [{mine[0]}, {mine[1]}, set()]


def pids_of(watched, many):
    """The pids of workers w1, w2 and so on, once all have said theirs."""
    said = {}
    while len(said) < many:
        pid, name = watched.hear("ready").split()
        said[name] = int(pid)
    return [said[name] for name in sorted(said)]


def inode_of(fd):
    return f"socket:[{os.fstat(fd).st_ino}]"


def sockets_of(pid):
    """The sockets of a process."""
    return {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_socket()}


def test_gateways_are_stopped_before_shards(watch):
    watched = watch("stay", "stay", "stay")  # the first one has sockets
    pids_of(watched, 3)
    watched.process.send_signal(signal.SIGTERM)
    said, status = watched.end()
    assert status == 0
    assert said.index("signal SIGTERM w1") < said.index("w1 stopped")
    assert all(said.index("w1 stopped") < said.index(f"signal SIGTERM {name}") for name in ("w2", "w3"))


def test_a_gateway_that_does_not_stop_keeps_no_shard_from_it(watch):
    watched = watch("deaf", "stay")
    pids_of(watched, 2)
    watched.process.send_signal(signal.SIGTERM)
    assert watched.hear("signal SIGTERM") == "w1"
    assert "w1 did not stop within" in watched.hear("is killed")
    assert watched.hear("signal SIGTERM") == "w2"
    assert watched.end()[1] == 0


def test_hangup_reaches_all(watch):
    watched = watch("stay", "stay", "stay")
    pids_of(watched, 3)
    watched.process.send_signal(signal.SIGHUP)
    assert {watched.hear("signal SIGHUP") for _ in range(3)} == {"w1", "w2", "w3"}


def test_a_worker_is_started_again_on_its_own(watch):
    watched = watch("stay", "stay")
    first, second = pids_of(watched, 2)
    os.kill(second, signal.SIGKILL)
    pid, name = watched.hear("ready").split()
    assert (name, int(pid) != second) == ("w2", True)
    os.kill(first, 0)  # still there


def test_a_refused_worker_is_left_out_for_good(watch):
    watched = watch("exit2", "stay", again=0.0)
    assert watched.hear("w1 cannot work") == "with this configuration and is taken out for good"
    watched.hear("ready")
    watched.process.send_signal(signal.SIGTERM)
    said, status = watched.end()
    assert status == 0
    assert "w1" not in said


def test_no_worker_left_ends_it(watch):
    said, status = watch("exit7", "exit2").end()
    assert status == 1
    assert ": exit status 7; 5 in a row ended within 100 s, it is taken out" in said
    assert "w2 cannot work with this configuration" in said
    assert "no worker is left" in said


def shared_doors():
    """A socket each of two workers, at the same port."""
    first = datagram_socket(0, shared=True)
    return [[first], [datagram_socket(first.getsockname()[1], shared=True)]]


def answered_by(address, clients=64):
    """Who answers clients of many ports; None for those that nobody answers."""
    names = set()
    for number in range(clients):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(20)
            client.connect(address)
            client.send(b"%d" % number)
            names.add(client.recv(100).split()[1].decode())
    return names


def test_a_worker_in_a_crash_loop_leaves_the_port_to_others(watch):
    doors = shared_doors()
    address = doors[0][0].getsockname()
    watched = watch("exit7", "read", doors=doors)
    for (door,) in doors:
        door.close()  # ours would keep the port's group alive
    assert watched.hear("it is taken out").startswith("w1 ended after")
    assert answered_by(address) == {"w2"}


def test_a_worker_that_was_taken_out_is_tried_again_and_comes_back(watch, tmp_path):
    doors = shared_doors()
    address = doors[0][0].getsockname()
    file = tmp_path / "cured"
    watched = watch("once", "read", doors=doors, again=0.5, more=["--file", file])
    for (door,) in doors:
        door.close()
    assert "6 in a row" in [watched.hear("it is taken out") for _ in range(2)][1]  # one try, then a rest
    file.touch()
    watched.hear("cured")
    assert answered_by(address) == {"w1", "w2"}


def test_a_worker_whose_address_was_taken_meanwhile_is_tried_again(watch):
    doors = [[datagram_socket()]]
    address = doors[0][0].getsockname()
    watched = watch("exit7", "stay", doors=doors, again=0.5)
    doors[0][0].close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        while True:
            watched.hear("it is taken out")
            with contextlib.suppress(OSError):  # this time a try was under way
                other.bind(address)
                break
        assert watched.hear("w1 could not be started:") == "Address already in use"
    watched.unheard.clear()
    watched.hear("w1 started")


def test_the_supervisor_is_small():
    code = "import cluster.supervisor; print(open('/proc/self/status').read())"
    status = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    kib = int(status.split("VmRSS:")[1].split()[0])
    assert kib < 16 << 10


# An edited file


@pytest.fixture
def edit(tmp_path):
    """Writes the file that a supervisor watches; each is another for it, however fast the test is."""
    path = tmp_path / "cluster.yaml"
    seconds = itertools.count(1)

    def write(**told):
        other = path.with_suffix(".new")
        other.write_text(json.dumps(told))
        at = next(seconds)
        os.utime(other, (at, at))
        other.replace(path)
        return path

    write()
    return write


def test_what_an_edit_adds_is_started_and_what_it_removes_ends_in_order(watch, edit):
    watched = watch("stay", "stay", file=edit(), patience=20.0)  # w1 has sockets
    pids_of(watched, 2)
    edit(workers={"w2": ["stay", 0], "w3": ["stay", 1], "w4": ["stay", 0]}, config={"version": 2, "interval": 60})
    said = {name: int(pid) for pid, name in (watched.hear("ready").split() for _ in range(2))}
    assert said.keys() == {"w3", "w4"}
    assert watched.hear("w1 has left:") == "exit status 0"
    assert "signal SIGTERM w1" in watched.unheard
    assert "signal SIGHUP w2" in watched.unheard
    assert watched.hear("version 2") == "of the configuration is taken up"
    assert "interval 30m w2" in watched.unheard and "interval 1m w4" in watched.unheard
    assert len(sockets_of(said["w3"])) == 1
    assert not sockets_of(said["w4"])
    watched.process.send_signal(signal.SIGTERM)
    rest, status = watched.end()
    assert status == 0
    assert "w1" not in rest
    assert rest.index("w3 stopped") < rest.index("signal SIGTERM w4")  # it has sockets


def test_shards_leave_when_they_may(watch, edit):
    """Others must have what they hold: they are told of the configuration, and end by themselves."""
    watched = watch("stay", "linger", "stay", file=edit())
    pids_of(watched, 3)
    edit(workers={"w3": ["stay", 0]}, config={"version": 2})
    assert watched.hear("w1 has left:") == "exit status 0"
    edit(workers={"w3": ["stay", 0]}, config={"version": 3})
    watched.hear("asked for w2- w3")
    assert [watched.hear("signal SIGHUP w2") for _ in range(2)] == ["", ""]
    edit(workers={"w3": ["stay", 0]}, config={"version": 100})
    assert watched.hear("w2 has left:") == "exit status 0"
    assert not any("SIGTERM w2" in text for text in watched.unheard)


def test_a_shard_that_has_not_left_yet_may_stay(watch, edit):
    watched = watch("stay", "linger", file=edit())
    pid = pids_of(watched, 2)[1]
    for name in ("asked for w1 w2", "asked for w1 w2-"):
        edit(workers={"w1": ["stay", 1]}, config={"version": 2})
        watched.hear(name)
    edit(workers={"w1": ["stay", 1], "w2": ["linger", 0]}, config={"version": 3})
    watched.hear("version 3")
    os.kill(pid, signal.SIGKILL)
    assert watched.hear("ready").split()[1] == "w2"  # another in its place


def test_a_shard_that_dies_while_it_leaves_is_not_started_again(watch, edit):
    watched = watch("stay", "linger", file=edit())
    pid = pids_of(watched, 2)[1]
    edit(workers={"w1": ["stay", 1]}, config={"version": 2})
    watched.hear("asked for w1 w2")
    watched.hear("signal SIGHUP w2")
    os.kill(pid, signal.SIGKILL)
    assert watched.hear("w2 has left:") == "killed by SIGKILL"
    edit(workers={"w1": ["stay", 1]}, config={"version": 3})
    assert watched.hear("asked for") == "w1"


def test_shards_that_leave_end_with_all(watch, edit):
    watched = watch("stay", "linger", file=edit())
    pids_of(watched, 2)
    edit(workers={"w1": ["stay", 1]}, config={"version": 2})
    watched.hear("signal SIGHUP w2")
    watched.process.send_signal(signal.SIGTERM)
    rest, status = watched.end()
    assert status == 0
    assert "signal SIGTERM w2" in rest and "w2 stopped" in rest


def test_who_leaves_and_does_not_end_is_killed_and_holds_nothing_up(watch, edit):
    watched = watch("deaf", "stay", file=edit(), patience=1.0)
    first, second = pids_of(watched, 2)
    edit(workers={"w2": ["stay", 0]})
    assert watched.hear("signal SIGTERM") == "w1"
    os.kill(second, signal.SIGKILL)
    pid, name = watched.hear("ready").split()  # meanwhile
    assert (name, int(pid) != second) == ("w2", True)
    assert watched.hear("w1 did not stop") == "within 1 s and is killed"
    assert watched.hear("w1 has left:") == "killed by SIGKILL"
    assert not os.path.exists(f"/proc/{first}")


def test_who_comes_back_waits_for_who_leaves(watch, edit):
    watched = watch("deaf", "deaf", file=edit(), patience=20.0)
    pid = pids_of(watched, 2)[1]
    edit(workers={"w1": ["deaf", 1]})
    assert watched.hear("signal SIGTERM") == "w2"
    edit(workers={"w1": ["deaf", 1], "w2": ["deaf", 0]})
    watched.hear("asked for w1 w2-")
    watched.process.send_signal(signal.SIGHUP)
    watched.hear("asked for w1 w2- w2")  # it is known, and waits
    os.kill(pid, signal.SIGKILL)
    assert watched.hear("w2 has left:") == "killed by SIGKILL"
    assert not any(text.startswith("ready") for text in watched.unheard)
    assert watched.hear("ready").split()[1] == "w2"


def test_a_name_of_another_kind_is_another_worker(watch, edit):
    watched = watch("stay", file=edit(), patience=20.0)
    watched.hear("ready")
    edit(workers={"w1": ["read", 1]})
    assert watched.hear("w1 has left:") == "exit status 0"
    assert watched.hear("ready").split()[1] == "w1"


def test_what_is_refused_changes_nothing_and_is_told_once(watch, edit):
    watched = watch("stay", "stay", file=edit())
    pids_of(watched, 2)
    for _ in range(2):
        edit(refused="cluster.yaml: expected better")
        watched.hear("asked for w1 w2")
    edit(workers={"w1": ["stay", 0], "w2": ["stay", 0]}, config={"version": 2})
    watched.hear("version 2 of the configuration is taken up")
    # Workers are told of both: they read why, then that all is well.
    assert watched.unheard.count("the configuration is not taken up: cluster.yaml: expected better") == 1
    for _ in range(2):
        assert {watched.hear("signal SIGHUP") for _ in range(2)} == {"w1", "w2"}
    watched.process.send_signal(signal.SIGTERM)
    assert "started" not in watched.end()[0]


def test_sighup_has_the_file_read_whether_it_was_edited_or_not(watch, edit):
    watched = watch("stay", file=edit(refused="as it is"))
    watched.hear("ready")
    for _ in range(2):
        watched.process.send_signal(signal.SIGHUP)
        watched.hear("signal SIGHUP")
        assert watched.hear("the configuration is not taken up:") == "as it is"


def test_a_file_that_is_gone_for_long_is_told_and_may_come_back(watch, edit):
    path = edit()
    watched = watch("stay", file=path)
    watched.hear("ready")
    path.unlink()
    assert watched.hear("the configuration is not taken up:") == f"{path}: expected a file, found none"
    edit(workers={"w1": ["stay", 1]}, config={"version": 2})
    watched.hear("version 2 of the configuration is taken up")
    path.unlink()
    watched.process.send_signal(signal.SIGHUP)
    assert watched.hear("the configuration is not taken up:") == f"{path}: expected a file, found none"


def test_a_file_that_is_being_written_is_not_read(edit, monkeypatch):
    read = []
    monkeypatch.setattr(watch_file, "spawn", lambda *_: read.append(1) or 4711)
    path = edit()
    eye = watch_file.Watch(str(path), config_source.stamp(path))

    def look(*, asked=False):
        eye.next, eye.asked = 0.0, asked
        eye.look({"config_fd": 0, "workers": []})
        if eye.channel:
            eye.pid = 0
            eye.channel.close()
        return len(read)

    assert [look(), look()] == [0, 0]
    for version in range(2, 5):
        edit(config={"version": version})
        assert look() == 0
    assert [look(), look()] == [1, 1]
    edit(config={"version": 5})
    assert [look(asked=True), look(), look()] == [2, 2, 2]


def test_an_edit_while_the_last_is_read_is_read_too(watch, edit):
    watched = watch("stay", file=edit(), patience=20.0)
    watched.hear("ready")
    edit(workers={"w1": ["stay", 1]}, config={"version": 2}, hang=0.3)
    watched.hear("hangs")
    edit(workers={"w1": ["stay", 1]}, config={"version": 3})
    watched.hear("version 2 of the configuration is taken up")
    watched.hear("version 3 of the configuration is taken up")


def test_a_reader_that_hangs_is_killed_and_holds_nothing_up(watch, edit):
    watched = watch("stay", file=edit(), patience=3.0)
    first = int(watched.hear("ready"))
    path = edit(hang=600)
    reader = int(watched.hear("hangs"))
    os.kill(first, signal.SIGKILL)
    watched.hear("ready")  # meanwhile
    refused = watched.hear("the configuration is not taken up:")
    assert refused == f"{path}: could not be looked at: that took more than 3 s"
    assert not os.path.exists(f"/proc/{reader}")
    edit(workers={"w1": ["stay", 1]}, config={"version": 2})
    watched.hear("version 2 of the configuration is taken up")


@pytest.mark.parametrize(
    ("manner", "why"),
    [({"exit": 3}, "exit status 3"), ({"short": 1, "workers": {"w1": ["stay", 1]}}, "its answer does not add up")],
)
def test_a_reader_that_fails_is_told_and_tried_again(watch, edit, manner, why):
    path = edit()
    watched = watch("stay", file=path, again=0.1)
    watched.hear("ready")
    edit(**manner)
    refused = watched.hear("the configuration is not taken up:")
    assert refused == f"{path}: could not be looked at: {why}"
    for _ in range(2):
        watched.hear("asked for w1")
    assert not any("not taken up" in text for text in watched.unheard)


def test_a_signal_while_a_reader_hangs_ends_all(watch, edit):
    watched = watch("stay", file=edit(), patience=20.0)
    watched.hear("ready")
    edit(hang=600)
    reader = int(watched.hear("hangs"))
    watched.process.send_signal(signal.SIGTERM)
    rest, status = watched.end()
    assert status == 0
    assert "signal SIGTERM" in rest
    assert not os.path.exists(f"/proc/{reader}")


def test_a_signal_while_a_worker_leaves_ends_all(watch, edit):
    watched = watch("deaf", "stay", file=edit(), patience=20.0)
    pid = pids_of(watched, 2)[0]
    edit(workers={"w2": ["stay", 0]})
    watched.hear("signal SIGTERM w1")
    watched.process.send_signal(signal.SIGTERM)
    watched.hear("signal SIGTERM w1")
    os.kill(pid, signal.SIGKILL)
    rest, status = watched.end()
    assert status == 0
    assert "w1 stopped" in rest and "w2 stopped" in rest


def test_a_node_without_workers_waits_for_another_edit(watch, edit):
    watched = watch("stay", file=edit())
    watched.hear("ready")
    edit()
    watched.hear("the configuration has nothing for this node to run")
    assert watched.hear("w1 has left:") == "exit status 0"
    edit(workers={"w5": ["stay", 0]})
    assert watched.hear("ready").split()[1] == "w5"


def test_who_refused_the_old_configuration_may_try_the_new(watch, edit):
    watched = watch("stay", "exit2", file=edit())
    watched.hear("w2 cannot work")
    pids_of(watched, 2)
    edit(workers={"w1": ["stay", 1], "w2": ["exit2", 0]}, config={"version": 2})
    watched.hear("w2 cannot work")
    assert watched.hear("ready").split()[1] == "w2"


def test_more_sockets_than_a_message_holds(watch, edit):
    watched = watch("stay", file=edit())
    watched.hear("ready")
    edit(workers={"w1": ["stay", 1], "w2": ["stay", 600]})
    pid, name = watched.hear("ready").split()
    assert len(sockets_of(int(pid))) == 600


def test_a_supervisor_does_not_grow_with_edits(watch, edit):
    watched = watch("stay", file=edit(), patience=20.0)
    watched.hear("ready")
    kept = set()
    for version in range(2, 8):
        edit(workers={"w1": ["stay", 1], f"w{version}": ["stay", 1]}, config={"version": version})
        assert watched.hear("ready").split()[1] == f"w{version}"
        if version > 2:
            watched.hear(f"w{version - 1} has left:")
        watched.hear("asked for")
        kept.add(len(os.listdir(f"/proc/{watched.process.pid}/fd")))
    assert len(kept) == 1


def life(one, seconds, status=7):
    """A process that ends after so long."""
    one.started = time.monotonic() - seconds
    one.ended(status)


@pytest.mark.parametrize("seconds", [0.0, 6.0, 0.9 * worker.SETTLED])
def test_five_lives_of_less_than_a_minute_in_a_row_are_a_crash_loop(seconds):
    one = worker.Worker("w", ["/nonexistent"], [], None)
    life(one, 0.0)
    life(one, worker.SETTLED)  # no part of it
    for _ in range(worker.MOST_SHORT):
        assert not one.out
        life(one, seconds)
    assert one.out
    assert one.due < math.inf


def test_workers_that_settle_are_never_taken_out():
    one = worker.Worker("w", ["/nonexistent"], [], None)
    for _ in range(worker.MOST_SHORT):
        life(one, worker.SETTLED)
        for _ in range(worker.MOST_SHORT - 1):
            life(one, 0.0)
        assert not one.out
    life(one, worker.SETTLED)
    assert one.delay == 2 * worker.FIRST_DELAY


def test_a_configuration_is_refused_for_good_only_by_who_never_worked_with_it():
    new, old = (worker.Worker(name, ["/nonexistent"], [], None) for name in ("new", "old"))
    life(new, 6.0, worker.REFUSED)
    assert (new.out, new.due) == (True, math.inf)
    life(old, worker.SETTLED)
    life(old, 0.0, worker.REFUSED)
    assert not old.out


def test_an_exit_status_in_words():
    assert worker.describe(3) == "exit status 3"
    assert worker.describe(-signal.SIGSEGV) == "killed by SIGSEGV"


def test_a_gateway_has_time_enough_to_end_in_order():
    assert shard_links.LAST_WAIT + max(service.PATIENCE, admin.PATIENCE) < supervisor.PATIENCE
