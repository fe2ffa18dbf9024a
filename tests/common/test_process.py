"""What every worker is: how it is started, told to stop, and what its exit status says."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_port
from trackers import get

from common import config, config_source, process
from common.config_errors import ConfigError
from common.process import AdminError, AdminServer, Periodic
from common.values import Endpoint

ROOT = Path(__file__).parents[2]
PATIENCE = 20
# A worker that says what it is told, and fails as its name demands.
WORKER = """
import sys
from common import process
from common.config_errors import ConfigError
from common.process import AdminError

class Mistake(Exception):
    pass

class Worker:
    config_refused = ""
    own = None
    admin = None

    def __init__(self, start):
        self.name = start.name
        if self.name == "unfit":
            raise ConfigError("shards", "another", "this")

    async def start(self):
        if self.name == "mistaken":
            raise Mistake("the operator's to mend")
        if self.name == "deprived":
            raise AdminError("admin: taken")
        if self.name == "broken":
            raise RuntimeError("a bug")

    async def stop(self):
        print("stopped", flush=True)

    def hang_up(self):
        print("hung up", flush=True)

    def reconfigure(self, config):
        print("version", config.version, flush=True)

    def tell(self):
        print("up", flush=True)

sys.exit(process.run("worker", Worker, (Mistake,), sys.argv[1:]))
"""


@pytest.fixture
def shards():
    return config.read({"shards": [{"name": "shard1"}, {"name": "shard2"}]}).shards


def test_a_process_is_chosen_by_its_name(shards):
    assert process.choose(shards, "shard2", "shards") is shards[1]


def test_the_only_process_needs_no_name(shards):
    assert process.choose(shards[:1], "", "shards") is shards[0]


@pytest.mark.parametrize(("name", "found"), [("", "none"), ("shard3", "'shard3'")])
def test_a_process_that_is_not_there_is_refused_in_one_line(shards, name, found):
    with pytest.raises(ConfigError) as raised:
        process.choose(shards, name, "shards")
    line = str(raised.value)
    assert "shard1, shard2" in line and "--name" in line and found in line
    assert "\n" not in line


def test_the_only_process_has_its_own_name_too(shards):
    with pytest.raises(ConfigError):
        process.choose(shards[:1], "shard2", "shards")


# Arguments


def test_a_file_and_a_name(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("slices: 64\n")
    start = process.read_arguments("worker", ["--config", str(path), "--name", "one"])
    assert (start.config.slices, start.name, start.sockets, start.parent_pipe) == (64, "one", None, None)


def test_what_a_supervisor_hands_over(tmp_path):
    blob = tmp_path / "blob"
    with blob.open("w+b") as file, socket.socket() as first, socket.socket(type=socket.SOCK_DGRAM) as second:
        config_source.write(file.fileno(), {"slices": 128})
        file.seek(3)  # others have read it before
        fds = f"{first.detach()},{second.detach()}"
        words = ["--config-fd", str(file.fileno()), "--fds", fds, "--parent-pipe", "77"]
        start = process.read_arguments("worker", words)
        assert (start.config.slices, start.name, start.parent_pipe) == (128, "", 77)
        assert [sock.type for sock in start.sockets] == [socket.SOCK_STREAM, socket.SOCK_DGRAM]
        for sock in start.sockets:
            sock.close()


def test_no_sockets_are_not_the_same_as_sockets_of_ones_own(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("")
    assert process.read_arguments("worker", ["--config", str(path), "--fds", ""]).sockets == []


# Periodic tasks


def on_loop(test):
    def run(*wanted, **words):
        asyncio.run(test(*wanted, **words))

    run.__name__ = test.__name__
    run.__wrapped__ = test
    return run


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


@on_loop
async def test_a_task_is_done_again_and_again():
    periodic = Periodic({"shard": "one"})
    done = []
    periodic.every(0.001, "task", lambda: done.append(1))
    await until(lambda: len(done) >= 3)
    assert periodic.health() == {"ok": True, "status": "ok", "failed_tasks": [], "kernel_faults": 0, "shard": "one"}
    assert periodic.healthy()
    periodic.cancel()


@on_loop
async def test_a_task_that_fails_is_told_of_and_done_again(caplog):
    periodic = Periodic({})
    fails = True

    def task():
        if fails:
            raise RuntimeError("no luck")

    periodic.every(0.001, "unlucky", task)
    periodic.every(0.001, "other", lambda: None)
    await until(lambda: len(caplog.records) >= 2)
    assert periodic.health()["failed_tasks"] == ["unlucky"]
    assert periodic.health()["status"] == "failing"
    assert not periodic.healthy()
    assert "a periodic task failed: unlucky" in caplog.text and "no luck" in caplog.text
    fails = False
    await until(periodic.healthy)
    periodic.cancel()


@on_loop
async def test_a_task_may_say_when_to_come_again():
    periodic = Periodic({})
    patient, others = [], []

    def task():
        patient.append(1)
        return 3600.0

    periodic.every(0.001, "patient", task)
    periodic.every(0.001, "other", lambda: others.append(1))
    await until(lambda: len(others) >= 5)
    assert len(patient) == 1
    periodic.cancel()


@on_loop
async def test_cancelled_tasks_are_not_done_any_more():
    periodic = Periodic({})
    done = []
    periodic.every(0.001, "task", lambda: done.append(1))
    await until(lambda: done)
    periodic.cancel()
    many = len(done)
    ended = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, ended.set)
    await ended.wait()
    assert len(done) == many


# The admin address


@on_loop
async def test_the_admin_address_shows_health():
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    server = AdminServer(endpoint, lambda: {"ok": True})
    await server.start()
    assert await asyncio.to_thread(get, str(endpoint), "/health") == (200, '{"ok": true}')
    await server.stop()


@on_loop
async def test_no_admin_address_is_none():
    server = AdminServer(None, dict)
    await server.start()
    await server.stop()


@on_loop
async def test_an_admin_address_that_is_taken_is_refused_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = Endpoint(f"127.0.0.1:{taken.getsockname()[1]}")
        server = AdminServer(endpoint, dict)
        with pytest.raises(AdminError, match=f"^admin: cannot listen on {endpoint} "):
            await server.start()
        await server.stop()


@on_loop
async def test_an_admin_address_moves_as_soon_as_the_other_is_free(caplog, monkeypatch):
    monkeypatch.setattr(process, "MOVE_AGAIN", 0.001)
    old, new = (Endpoint(f"127.0.0.1:{free_port()}") for _ in range(2))
    server = AdminServer(old, lambda: {"ok": True})
    await server.start()
    with socket.create_server(("127.0.0.1", new.port)):
        server.move(new)
        await until(lambda: caplog.messages)
        line = caplog.messages[0]
        assert line.startswith(f"admin: cannot listen on {new} (TCP): ") and line.endswith("; it is tried again")
        with pytest.raises(OSError):
            await asyncio.to_thread(get, str(old), "/health")
    await server.moving
    assert await asyncio.to_thread(get, str(new), "/health") == (200, '{"ok": true}')
    await server.stop()


@on_loop
async def test_an_admin_address_that_moves_on_meanwhile_ends_at_the_last():
    ends = [Endpoint(f"127.0.0.1:{free_port()}") for _ in range(3)]
    server = AdminServer(ends[0], lambda: {"ok": True})
    await server.start()
    for end in (ends[1], None, ends[2]):
        server.move(end)
    await server.moving
    assert await asyncio.to_thread(get, str(ends[2]), "/health") == (200, '{"ok": true}')
    server.move(ends[2])
    server.move(None)
    await server.moving
    with pytest.raises(OSError):
        await asyncio.to_thread(get, str(ends[2]), "/health")
    await server.stop()


@on_loop
async def test_a_server_may_stop_while_its_address_moves():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = AdminServer(None, dict)
        await server.start()
        server.move(Endpoint(f"127.0.0.1:{taken.getsockname()[1]}"))
        await asyncio.sleep(0)
        await server.stop()
    assert server.moving.cancelled()


# A whole process


@pytest.fixture
def launch(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("log: {format: json}\n")
    running = []

    def launch(*words, pass_fds=(), file=path):
        command = [sys.executable, "-P", "-c", WORKER, *(["--config", str(file)] if file else []), *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, pass_fds=pass_fds, env=environment, **pipes))
        return running[-1]

    yield launch
    for one in running:
        one.kill()
        one.communicate()


def lines_of(one):
    """All that a process writes until its end, and its exit status."""
    out, err = one.communicate(timeout=PATIENCE)
    return out.splitlines(), err.splitlines(), one.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_ends_in_order_when_it_is_told(launch, number):
    one = launch("--name", "well")
    assert one.stdout.readline() == "up\n"
    one.send_signal(number)
    assert lines_of(one) == (["stopped"], [], 0)


def test_sighup_is_passed_on_and_ends_nothing(launch):
    one = launch("--name", "well")
    assert one.stdout.readline() == "up\n"
    for _ in range(2):
        one.send_signal(signal.SIGHUP)
        assert one.stdout.readline() == "hung up\n"
    one.terminate()
    assert lines_of(one) == (["stopped"], [], 0)


def test_an_edited_file_is_taken_up_without_a_signal(launch, tmp_path):
    path = tmp_path / "cluster.yaml"
    one = launch("--name", "well")
    assert one.stdout.readline() == "up\n"
    path.write_text("version: 7\nlog: {format: json}\n")
    assert one.stdout.readline() == "version 7\n"
    path.write_text("version: 7\nlog: {format: json\n")
    assert "the configuration is not taken up" in one.stderr.readline()
    path.write_text("version: 8\nlog: {format: json}\n")
    assert one.stdout.readline() == "version 8\n"
    one.terminate()
    assert lines_of(one) == (["stopped"], [], 0)


def test_sighup_has_what_was_handed_over_read_again(launch, tmp_path):
    with (tmp_path / "handed").open("w+b") as handed:
        fd = handed.fileno()
        config_source.write(fd, {"version": 3})
        one = launch("--name", "well", "--config-fd", str(fd), pass_fds=(fd,), file=None)
        assert one.stdout.readline() == "up\n"
        config_source.write(fd, {"version": 4})
        one.send_signal(signal.SIGHUP)
        assert sorted(one.stdout.readline() for _ in range(2)) == ["hung up\n", "version 4\n"]
        one.terminate()
        assert lines_of(one) == (["stopped"], [], 0)


def test_what_is_never_whole_is_one_line_and_status_1_as_it_may_come(launch, tmp_path):
    with (tmp_path / "handed").open("w+b") as handed:
        fd = str(handed.fileno())
        out, err, status = lines_of(launch("--config-fd", fd, pass_fds=(handed.fileno(),), file=None))
    assert (out, err, status) == ([], ["worker: the configuration that was handed over is not whole"], 1)


def test_a_worker_ends_in_order_when_its_supervisor_is_gone(launch):
    theirs, mine = os.pipe()
    one = launch("--name", "well", "--parent-pipe", str(theirs), pass_fds=(theirs,))
    os.close(theirs)
    assert one.stdout.readline() == "up\n"
    os.close(mine)
    assert lines_of(one) == (["stopped"], [], 0)


@pytest.mark.parametrize(
    ("name", "told", "status"),
    [
        ("unfit", "shards: expected another, found this", 2),
        ("mistaken", "the operator's to mend", 1),
        ("deprived", "admin: taken", 1),
    ],
)
def test_what_the_operator_must_mend_is_one_line_and_status_2_only_if_it_cannot_pass(launch, name, told, status):
    out, err, ended_with = lines_of(launch("--name", name))
    assert (out, ended_with) == ([], status)
    (line,) = err
    assert told in line


def test_a_bug_is_a_traceback(launch):
    _, err, status = lines_of(launch("--name", "broken"))
    assert status == 1
    assert "RuntimeError: a bug" in err[-1]


def test_a_file_that_is_not_there_is_one_line_and_status_2(launch, tmp_path):
    out, err, status = lines_of(launch(file=tmp_path / "none.yaml"))
    assert (out, status) == ([], 2)
    (line,) = err
    assert line.startswith("worker: ") and "none.yaml" in line


def test_a_worker_needs_a_configuration():
    with pytest.raises(SystemExit) as ended:
        process.read_arguments("worker", ["--name", "one"])
    assert ended.value.code == 2
