"""A reader of edited configurations for the supervisor's tests: the file says what it is to do, and to answer."""

import json
import os
import socket
import sys
import time
from pathlib import Path

WORKER = str(Path(__file__).with_name("fake_worker.py"))

request = json.loads(sys.argv[1])
told = json.loads(Path(request["file"]).read_text())
print("asked for", *(f"{each['name']}{'-' * each['leaving']}" for each in request["workers"]), flush=True)
if "exit" in told:
    sys.exit(told["exit"])
if "hang" in told:
    print("hangs", os.getpid(), flush=True)
    time.sleep(told["hang"])
opened = []
workers = []
for name, (manner, doors) in told.get("workers", {}).items():
    for _ in range(doors):
        opened.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        opened[-1].bind(("127.0.0.1", 0))
    arguments = [WORKER, manner, "--name", name, *told.get("more", [])]
    kind = "shard" if manner == "linger" else manner
    workers.append({"name": name, "kind": kind, "arguments": arguments, "sockets": doors})
answer = {"refused": told.get("refused", ""), "config": {"version": 1, **told.get("config", {})}, "workers": workers}
fd = os.memfd_create("answer")
os.write(fd, json.dumps(answer).encode())
with socket.socket(fileno=request["channel"]) as channel:
    fds = [fd, *(sock.fileno() for sock in opened)]
    fds = fds[: len(fds) - told.get("short", 0)]
    for at in range(0, len(fds), 250):
        socket.send_fds(channel, [b"+"], fds[at : at + 250])
