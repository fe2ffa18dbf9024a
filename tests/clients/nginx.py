"""nginx in front of a tracker, as docs/operate.md has it: connections kept, X-Forwarded-For appended."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack

import pytest

# The listening sockets are inherited, so that no port is looked for and nobody waits: they listen already.
CONFIG = """
daemon off;
worker_processes 1;
{user}
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream tracker {{ server {upstream}; keepalive 8; }}
    server {{
        {listen}
        location / {{
            proxy_pass http://tracker;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""


class Nginx:
    """A child that listens on loopback ports of both families; `addresses` are those to ask. A context manager."""

    def __init__(self, folder, upstream):
        self.log = folder / "nginx.log"
        self.addresses = []
        binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        if binary is None:
            pytest.fail("nginx is missing; this installs it: sudo apt-get install -y nginx-light", pytrace=False)
        with ExitStack() as stack:
            sockets = [
                stack.enter_context(socket.create_server(("127.0.0.1", 0))),
                stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6)),
            ]
            for sock in sockets:
                sock.setblocking(False)
            self.addresses = [sock.getsockname()[:2] for sock in sockets]
            (_, port), (_, port6) = self.addresses
            listen = f"listen 127.0.0.1:{port}; listen [::1]:{port6};"
            file = folder / "nginx.conf"
            user = "user root;" if os.geteuid() == 0 else ""  # or the worker could not use the folder
            file.write_text(CONFIG.format(upstream="{}:{}".format(*upstream), listen=listen, user=user))
            fds = [sock.fileno() for sock in sockets]
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    [binary, "-e", "stderr", "-p", str(folder), "-c", str(file)],
                    stdout=log,
                    stderr=log,
                    pass_fds=fds,
                    env={**os.environ, "NGINX": "".join(f"{fd};" for fd in fds)},
                    start_new_session=True,
                )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # its worker too, if it did not end
            self.process.wait()
