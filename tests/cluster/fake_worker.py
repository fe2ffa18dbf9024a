"""A worker for the supervisor's tests: says what it got, then does what its first argument tells it."""

import os
import signal
import socket
import sys
import time

from common import config

manner, *options = sys.argv[1:]
given = dict(zip(options[::2], options[1::2], strict=True))


def say(*words):
    print(*words, flush=True)


def end(number, frame):
    say("signal", signal.Signals(number).name)
    if manner != "deaf":
        sys.exit(0)


signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGHUP, lambda number, frame: say("signal SIGHUP"))
say("interval", config.decode(os.read(int(given["--config-fd"]), 1 << 20)).interval)
doors = [socket.socket(fileno=int(fd)) for fd in given["--fds"].split(",")]
say("doors", *(door.getsockname()[1] for door in doors))

if manner.startswith("exit"):
    sys.exit(int(manner[4:]))
if manner == "echo":  # one datagram a life
    doors[0].setblocking(True)
    say("datagram", doors[0].recv(100).decode())
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
os.read(int(given["--parent-pipe"]), 1)
say("orphaned")
