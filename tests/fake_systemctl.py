"""systemctl where no systemd is: starts, stops, restarts, disables and reloads a service as its unit and drop-ins say.

It knows ExecStart, ExecReload (a SIGHUP), User, StateDirectory, LimitNOFILE, TimeoutStopSec and KillMode=mixed; what
is for safety alone it leaves out. What the service writes is in /run/NAME.log.
"""

import os
import pwd
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

UNITS = Path("/etc/systemd/system")


class Service:
    """A service of this name."""

    def __init__(self, name):
        self.name = name.removesuffix(".service")
        self.settings = {}
        unit = UNITS / f"{self.name}.service"
        for file in (unit, *sorted(unit.with_name(f"{unit.name}.d").glob("*.conf"))):
            for line in file.read_text().splitlines():
                key, equals, value = line.partition("=")
                if equals and not line.startswith("#"):
                    self.settings[key.strip()] = value.strip()  # the last counts
        self.pid_file = Path(f"/run/{self.name}.pid")

    def pid(self):
        """Of its main process, 0 without one."""
        try:
            pid = int(self.pid_file.read_text())
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return 0
        return 0 if state == "Z" else pid

    def start(self):
        """Start it if it does not run."""
        if self.pid():
            return
        user = pwd.getpwnam(self.settings["User"])
        state = Path("/var/lib") / self.settings["StateDirectory"]
        state.mkdir(exist_ok=True)
        os.chown(state, user.pw_uid, user.pw_gid)
        files = min(int(self.settings["LimitNOFILE"]), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        with open(f"/run/{self.name}.log", "ab") as log:
            process = subprocess.Popen(
                shlex.split(self.settings["ExecStart"]),
                user=user.pw_uid,
                group=user.pw_gid,
                extra_groups=[],
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "STATE_DIRECTORY": str(state)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid_file.write_text(str(process.pid))

    def stop(self):
        """Stop it, by force if it takes too long."""
        if pid := self.pid():
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + int(self.settings["TimeoutStopSec"])
            while self.pid():
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                    sys.exit(f"{self.name}: did not stop in time")
                time.sleep(0.05)

    def restart(self):
        """Stop and start it."""
        self.stop()
        self.start()

    def disable(self):
        """It is not started at the next boot; with --now it stops as well."""
        assert "--now" in sys.argv
        self.stop()

    def reload(self):
        """SIGHUP to its main process."""
        assert "kill -HUP $MAINPID" in self.settings["ExecReload"]
        os.kill(self.pid(), signal.SIGHUP)


words = [word for word in sys.argv[1:] if not word.startswith("-")]
verb = words[0]
if verb == "enable" and "--now" in sys.argv:
    verb = "start"
if verb != "daemon-reload":
    for name in words[1:]:
        if name != "nftables":  # its rules are loaded by a line of their own
            getattr(Service(name), verb)()
