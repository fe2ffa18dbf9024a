"""A worker for the supervisor's tests: says what it got, then does what its first argument tells it."""

import contextlib
import os
import select
import signal
import socket
import sys
import time

from common import config, config_source

manner, *options = sys.argv[1:] if not sys.argv[1].startswith("--") else ["read", *sys.argv[1:]]
given = dict(zip(options[::2], options[1::2], strict=True))
name = given.get("--name", "")


def say(*words):
    with contextlib.suppress(BrokenPipeError):  # the test is over
        os.write(1, " ".join(map(str, (*words, name))).strip().encode() + b"\n")  # at once: others write there too


def end(number, frame):
    say("signal", signal.Signals(number).name)
    if manner != "deaf":
        sys.exit(0)


def hang_up(number, frame):
    say("signal SIGHUP")
    if manner == "linger" and configured().version >= 100:
        sys.exit(0)


def configured():
    return config.read(config_source.read(int(given["--config-fd"])).config)


signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGHUP, hang_up)
say("interval", configured().interval)
say("user", os.getuid(), os.getgid(), *os.getgroups())
doors = [socket.socket(fileno=int(fd)) for fd in given.get("--fds", "").split(",") if fd]
say("doors", *(door.getsockname()[1] for door in doors))
say("ready", os.getpid())

if manner.startswith("exit"):
    sys.exit(int(manner[4:]))
if manner == "echo":  # one datagram a life
    doors[0].setblocking(True)
    say("datagram", doors[0].recv(100).decode())
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
if manner == "once":  # fails until a file is there
    if os.path.exists(given["--file"]):
        say("cured")
    else:
        sys.exit(7)
parent_pipe = int(given["--parent-pipe"])
if manner in ("read", "once") and doors:
    while parent_pipe not in select.select([doors[0], parent_pipe], [], [])[0]:
        datagram, sender = doors[0].recvfrom(100)
        doors[0].sendto(datagram + b" " + name.encode(), sender)
os.read(parent_pipe, 1)
say("orphaned")
