"""Whom the workers of `shoal up` run as. As root all of it; otherwise that it is refused."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

ROOT = os.geteuid() == 0
ME = pwd.getpwuid(os.geteuid()).pw_name
OTHER = pwd.getpwnam("nobody" if ME != "nobody" else "daemon")
THEM = OTHER.pw_name
AS_OTHER = {"user": OTHER.pw_uid, "group": OTHER.pw_gid, "extra_groups": []}
REFUSED = f"user: expected a start by root, who can become {THEM}, or by {THEM}, found user {ME}"
CODE = """
import sys
from pathlib import Path
from cluster import __main__, start
start.module = lambda process: "fake_worker"
sys.argv[1:1] = ["up", "--config"]
__main__.main()
"""


def write(directory, **settings):
    """A file of two gateways at one port, and two shards."""
    file = directory / "cluster.yaml"
    port = settings.pop("port", 0)
    listen = {"listen": [f"127.80.0.1:{port}"]}
    wanted = {
        "data": str(directory / "data"),
        "admin": None,
        "gateways": [{"name": "g1", **listen}, {"name": "g2", **listen}],
        "shards": [{"name": "s1"}, {"name": "s2"}],
        **settings,
    }
    file.write_text(json.dumps(wanted))
    return file


def up(file, **options):
    """`shoal up` with workers that do as the fake one does."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-P", "-c", CODE, str(file)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, text=True, env=environment, **pipes, **options)


def refusal(file, **options):
    """The one line with which it refuses."""
    process = up(file, **options)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 2, said
    (line,) = said.splitlines()
    return line


def low_port():
    """A free port that only root may take."""
    for port in range(80, 1024):
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            socket.socket() as streams,
        ):
            datagrams.bind(("127.80.0.1", port))
            streams.bind(("127.80.0.1", port))
            return port
    raise AssertionError("no port below 1024 is free")


def words_of(process, word, many):
    """The rest of the lines that begin with the word, once there are so many."""
    found = []
    for line in process.stdout:
        if line.startswith(word):
            found.append(line.removeprefix(word).split())
        if len(found) == many:
            return found
    raise AssertionError(f"it ended with {process.wait()}, said {word!r} {len(found)} times")


def answering(address):
    """Who answers clients of many ports."""
    names = set()
    for _ in range(64):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(20)
            client.connect(address)
            client.send(b"who")
            names.add(client.recv(100).split()[1].decode())
    return names


def test_gateways_of_a_low_port_run_as_the_user(place):
    if not ROOT:
        assert REFUSED in refusal(write(place, user=THEM))
        return
    port = low_port()
    with up(write(place, user=THEM, port=port)) as process:
        try:
            groups = {str(group) for group in os.getgrouplist(THEM, OTHER.pw_gid)}
            users = words_of(process, "user", 4)
            assert sorted(name for *_, name in users) == ["g1", "g2", "s1", "s2"]
            for uid, gid, *mine, _ in users:
                assert (int(uid), int(gid), set(mine)) == (OTHER.pw_uid, OTHER.pw_gid, groups)
            words_of(process, "ready", 1)
            assert answering(("127.80.0.1", port)) == {"g1", "g2"}
            for path, mode in ((place / "data", 0o700), (place / "data/run", 0o700)):
                assert stat.S_IMODE(path.stat().st_mode) == mode
                assert path.stat().st_uid == OTHER.pw_uid
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_a_worker_that_comes_back_runs_as_the_user_too(place):
    if not ROOT:
        assert REFUSED in refusal(write(place, user=THEM))
        return
    with up(write(place, user=THEM, port=low_port())) as process:
        try:
            pid, name = words_of(process, "ready", 1)[0]
            os.kill(int(pid), signal.SIGKILL)
            for uid, *_, again in iter(lambda: words_of(process, "user", 1)[0], None):
                assert int(uid) == OTHER.pw_uid
                if again == name:
                    break
        finally:
            process.kill()


def test_the_second_start_finds_what_the_first_made(place):
    if not ROOT:
        assert REFUSED in refusal(write(place, user=THEM))
        return
    for _ in range(2):
        with up(write(place, user=THEM)) as process:
            words_of(process, "ready", 4)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_who_is_not_root_cannot_become_another(place):
    place.chmod(0o777)
    me, options = (THEM, AS_OTHER) if ROOT else (ME, {})
    line = refusal(write(place, user="root"), **options)
    assert line.endswith(f"user: expected a start by root, who can become root, or by root, found user {me}")


def test_who_is_that_user_already_needs_no_root(place):
    place.chmod(0o777)
    me, options = (THEM, AS_OTHER) if ROOT else (ME, {})
    with up(write(place, user=me), **options) as process:
        uids = {int(uid) for uid, *_ in words_of(process, "user", 4)}
        assert uids == {pwd.getpwnam(me).pw_uid}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_user_that_does_not_exist_is_refused(place):
    line = refusal(write(place, user="no-such-user"))
    assert line.endswith("cluster.yaml: user: expected a user of this machine, found 'no-such-user'")


def test_a_key_that_the_user_cannot_read_is_named(place):
    if not ROOT:
        assert REFUSED in refusal(write(place, user=THEM))
        return
    file = write(place)
    with up(file) as process:  # as root: the keys are root's
        words_of(process, "ready", 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    file = write(place, user=THEM)
    data = place / "data"
    remedy = f"chown -R {THEM} {data}"
    assert f"{data}: {THEM}, whom workers run as, may not enter it: {remedy}" in refusal(file)
    data.chmod(0o755)
    assert f"{data}/run: cannot be made with mode 0700: Operation not permitted" in refusal(file)
    shutil.rmtree(data / "run")
    assert refusal(file).endswith(f"workers run as {THEM}: {remedy}")
    os.chown(data, OTHER.pw_uid, OTHER.pw_gid)
    line = refusal(file)
    assert f"{data}/cluster.key: cannot be read: Permission denied; workers run as {THEM}: {remedy}" in line


def test_a_directory_that_the_user_cannot_reach_is_named(place):
    if not ROOT:
        assert REFUSED in refusal(write(place, user=THEM))
        return
    place.chmod(0o700)
    line = refusal(write(place, user=THEM))
    assert line.endswith(f"{place}: {THEM}, whom workers run as, may not enter it: chmod o+x {place}")


def test_root_is_warned_unless_it_is_named(place):
    for user, warned in ((None, ROOT), (ME, False)):
        with up(write(place, user=user)) as process:
            heard = []
            for line in process.stdout:
                heard.append(line)
                if line.startswith("ready"):
                    break
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read()
            assert process.wait(20) == 0
        assert ("workers run as root" in "".join(heard) + rest) is warned
