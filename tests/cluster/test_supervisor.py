"""The supervisor as a process of its own, with a worker that does as told."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster import start, supervisor
from common.config import Config

WORKER = Path(__file__).with_name("fake_worker.py")
CODE = """
import sys
from common import logs
from cluster import supervisor
logs.set_up("info", "json", sys.stdout)
worker, manner, fds, config_fd = sys.argv[1:]
command = [sys.executable, "-P", worker, manner]
sys.exit(supervisor.Supervisor(command, [int(fd) for fd in fds.split(",")], int(config_fd)).run())
"""


class Watched:
    """A running supervisor, and what it and its workers say."""

    def __init__(self, manner):
        self.doors = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for door in self.doors:
            door.bind(("127.0.0.1", 0))
        config_fd = start.config_file(Config())
        fds = [door.fileno() for door in self.doors]
        command = [sys.executable, "-P", "-c", CODE, str(WORKER), manner, ",".join(map(str, fds)), str(config_fd)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=(*fds, config_fd))
        os.close(config_fd)

    def hear(self, word):
        """The rest of the next line that begins with the word, or of the next log line that contains it."""
        for line in self.process.stdout:
            text = json.loads(line)["message"] if line.startswith("{") else line.strip()
            if text.startswith(word) or (line.startswith("{") and word in text):
                return text.removeprefix(word).strip()
        pytest.fail(f"the supervisor ended without a word of {word!r}")

    def end(self):
        """All that is still said, and the exit status."""
        rest = self.process.stdout.read()
        return rest, self.process.wait(10)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        for door in self.doors:
            door.close()


@pytest.fixture
def watch():
    running = []

    def run(manner):
        running.append(Watched(manner))
        return running[-1]

    yield run
    for one in running:
        one.close()


def test_a_worker_gets_sockets_and_config(watch):
    watched = watch("stay")
    assert watched.hear("interval") == "30m"
    assert watched.hear("doors").split() == [str(door.getsockname()[1]) for door in watched.doors]


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
        client.connect(watched.doors[0].getsockname())
        client.send(b"one")
        assert watched.hear("datagram") == "one"
        client.send(b"two")  # this worker reads no more
        assert "killed by SIGKILL" in watched.hear("worker ended")
        assert watched.hear("datagram") == "two"


def test_a_refused_configuration_ends_it(watch):
    said, status = watch("exit2").end()
    assert status == 1
    assert said.count("doors") == 1
    assert "cannot work with this configuration" in said


def test_five_quick_ends_in_a_row_end_it(watch):
    said, status = watch("exit7").end()
    assert status == 1
    assert said.count("doors") == 5
    assert "exit status 7; 5 in a row ended at once" in said


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


def test_a_command_that_cannot_be_started_counts_as_a_failure(capfd, monkeypatch):
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(signal, "pthread_sigmask", lambda *arguments: None)
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    config_fd = start.config_file(Config())
    assert supervisor.Supervisor(["/nonexistent"], [0], config_fd).run() == 1
    os.close(config_fd)


def test_the_supervisor_is_small():
    code = "import cluster.supervisor; print(open('/proc/self/status').read())"
    status = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    kib = int(status.split("VmRSS:")[1].split()[0])
    assert kib < 16 << 10


def test_an_exit_status_in_words():
    assert supervisor.describe(3) == "exit status 3"
    assert supervisor.describe(-signal.SIGSEGV) == "killed by SIGSEGV"
