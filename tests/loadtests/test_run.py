"""`make load`: what its command line takes, and one real run."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from ports import free_port
from processes import until

from loadtests import clusters
from loadtests.load import options, trackers
from loadtests.load.scenarios import SCENARIOS

ROOT = Path(options.__file__).parents[2]
RUN = [sys.executable, "-P", "-m", "loadtests.load.run"]


def refused(capsys, *words):
    """What is said of a command line that is refused."""
    with pytest.raises(SystemExit) as ended:
        options.read(list(words))
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err.removeprefix("load: ").strip()


def test_an_unknown_scenario_is_refused_with_the_names_of_all(capsys):
    told = refused(capsys, "steddy")
    assert told == "no scenario 'steddy'; there are " + ", ".join(SCENARIOS)


def test_no_scenario_is_refused_with_the_names_of_all(capsys):
    assert refused(capsys).endswith("There are " + ", ".join(SCENARIOS))


@pytest.mark.parametrize(
    "tracker", ["embeded", "udp://nowhere", "udp://127.0.0.1:0", "udp://127.0.0.1:99999", "ws://a:1"]
)
def test_what_is_no_tracker_is_refused(capsys, tracker):
    told = refused(capsys, "steady", "--tracker", tracker)
    assert told == f"no tracker: {tracker!r}. Expected embedded, cluster, or udp://HOST:PORT of one that runs"


@pytest.mark.parametrize(
    ("name", "why"),
    [("overload", "gives the tracker's processes a quota"), ("restart", "restarts the tracker's processes")],
)
def test_a_scenario_that_holds_the_trackers_processes_starts_its_own(capsys, name, why):
    told = refused(capsys, name, "--tracker", "udp://127.0.0.1:6969")
    assert told == f"{name} {why}: it starts its own (--tracker embedded or cluster)"


@pytest.mark.parametrize(
    "words",
    [
        ["--seconds", "0"],
        ["--scale", "-1"],
        ["--scale", "much"],
        ["--workers", "65"],
        ["--quota", "0.05"],
        ["--sources", "127.0.0.300"],
        ["--report", "/no/such/directory/report.html"],
        ["--results", "/no/such/directory/results.md"],
        ["--summary", "/"],
        ["--hurry"],
    ],
    ids=" ".join,
)
def test_an_option_that_makes_no_sense_is_refused_in_one_line(capsys, words):
    assert words[0] in refused(capsys, "steady", *words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--scale", "much"], "a number above 0"),
        (["--workers", "two"], "0 to 64"),
        (["--quota", "half"], "0.1 to 1 of a core"),
        (["--port", "http"], "0 to 65535"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_no_number_is_refused_with_what_is_expected(capsys, words, expected):
    assert refused(capsys, "overload", *words) == f"argument {words[0]}: expected {expected}, found {words[1]!r}"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["steady", "--quota", "0.5"], "argument --quota: steady has none, only overload does"),
        (["steady", "--port", "0"], "argument --port: it is the web page's, make load-web"),
        (
            ["--web", "--port", "0", "--seconds", "3"],
            "--seconds: the web page runs until it is stopped, and judges nothing",
        ),
        (
            ["--web", "--port", "0", "--report", "a.html"],
            "--report: the web page runs until it is stopped, and judges nothing",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_would_change_nothing_is_refused(capsys, words, why):
    assert refused(capsys, *words).endswith(why)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "0.0.0.0", "::"])
def test_a_source_is_an_address_of_this_machine(capsys, address):
    told = refused(capsys, "steady", "--sources", f"127.0.0.1,{address}")
    assert told == f"argument --sources: {address} is no address of this machine"
    assert options.read(["steady", "--sources", "127.0.0.1, 127.0.0.2"]).sources == ("127.0.0.1", "127.0.0.2")


def test_the_web_page_is_for_plain_scenarios(capsys):
    assert "steady, flash-crowd, churn, scrape-storm" in refused(capsys, "restart", "--web")
    assert options.read(["--web"]).scenario == "steady"


def test_a_web_page_at_a_port_that_somebody_has_is_refused(capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert refused(capsys, "--web", "--port", str(port)) == f"argument --port: {port} is not free"


def test_a_running_tracker_is_known_by_its_address():
    assert trackers.read_address("udp://127.0.0.1:6969") == ("127.0.0.1", 6969)
    assert trackers.read_address("http://[::1]:80") == ("::1", 80)
    assert trackers.read_address("udp://localhost:6969") == ("127.0.0.1", 6969)


@pytest.mark.parametrize("name", trackers.SHAPES)
def test_what_is_started_has_no_address_yet(name):
    assert trackers.read_address(name) is None


def test_the_measured_time_is_the_scenarios_unless_another_is_asked_for():
    assert options.chosen(options.read(["steady"])).seconds == SCENARIOS["steady"].seconds
    assert options.chosen(options.read(["steady", "--seconds", "3"])).seconds == 3


def test_without_ipv6_a_port_is_free_by_ipv4(monkeypatch):
    monkeypatch.setattr(trackers, "has_ipv6", lambda: False)
    with socket.create_server(("::1", free_port()), family=socket.AF_INET6) as server:
        assert trackers.is_free(server.getsockname()[1])


def test_a_cluster_has_ports_that_nobody_has():
    first = trackers.free_port()
    assert all(trackers.is_free(port) for port in range(first, first + trackers.SPAN))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of `steady`: its folder and what it said."""
    folder = tmp_path_factory.mktemp("load")
    words = ["--scale", "0.02", "--seconds", "2", "--report", str(folder / "report.html")]
    words += ["--summary", str(folder / "summary.md"), "--results", str(folder / "results.md")]
    return folder, subprocess.run([*RUN, "steady", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_steady_load_is_answered_right(ran):
    _, run = ran
    assert re.search(r"^passed: every answer is right: none wrong, of [\d,]+$", run.stdout, re.MULTILINE), run
    assert re.search(r"^passed: no request fails after its retransmissions: 0 failed", run.stdout, re.MULTILINE)


def test_the_exit_status_is_the_verdict(ran):
    _, run = ran
    assert run.returncode == (0 if run.stdout.rstrip().endswith(": passed") else 1)
    assert "Traceback" not in run.stderr


def test_the_report_has_every_kind_of_request(ran):
    folder, _ = ran
    page = (folder / "report.html").read_text()
    for kind in ("UDP announce", "UDP connect", "HTTP kept announce", "HTTP one-shot announce"):
        assert f"<td>{kind}</td>" in page
    assert "window.templateArgs" in page


def test_the_summary_tells_processor_time_and_memory_of_the_tracker(ran):
    folder, _ = ran
    assert re.search(
        r"^\| load \| all \| \d+\.\d\d \| [\d.]+% \| \d+\.\d \|$", (folder / "summary.md").read_text(), re.M
    )


def test_one_process_is_called_embedded(ran):
    folder, run = ran
    assert "| load | embedded | " in (folder / "summary.md").read_text()
    assert re.search(r"^tracker, embedded: ", run.stdout, re.MULTILINE)


def test_the_progress_bar_tells_the_seconds_in_80_columns(ran):
    _, run = ran
    assert re.search(r"^load \S+ +[23] s [\d,]+/s, p50 .*, wrong: none$", run.stdout, re.MULTILINE)


def test_the_results_table_has_a_row_of_the_run(ran):
    folder, _ = ran
    assert "| steady | embedded | 0.02 | 0 |" in (folder / "results.md").read_text()


def test_two_workers_make_the_load_together():
    words = ["--scale", "0.02", "--seconds", "1", "--workers", "2"]
    run = subprocess.run([*RUN, "steady", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert re.search(r"^passed: every answer is right: none wrong, of [\d,]+$", run.stdout, re.MULTILINE), run
    assert run.returncode == (0 if run.stdout.rstrip().endswith(": passed") else 1)
    assert run.stderr == ""


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT], ids=lambda sign: sign.name)
def test_what_was_started_ends_with_the_load(sign, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [*RUN, "steady", "--scale", "0.02", "--workers", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        while "announced once" not in process.stdout.readline():
            assert process.poll() is None
        started = clusters.descendants(process.pid)
        send = os.killpg if sign == signal.SIGINT else os.kill  # a terminal's is for the worker too
        send(process.pid, sign)
        _, told = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 1}[sign]
    assert told == ""
    assert len(started) == 4  # the load and its worker, the tracker and its supervisor
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_does_not_answer_is_told_in_one_line():
    words = ["steady", "--tracker", f"udp://127.0.0.1:{free_port()}"]
    run = subprocess.run([*RUN, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert run.stderr == f"load: {words[-1]} does not answer\n"


@pytest.fixture
def web():
    """A web page for a tiny load; its address."""
    words = ["steady", "--web", "--port", "0", "--scale", "0.01"]
    command = [*RUN, *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split()[-1]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0


def ask(url, **form):
    data = urlencode(form).encode() if form else None
    with urlopen(url, data, timeout=30) as answer:
        return json.loads(answer.read())


def test_the_web_page_starts_users_whose_answers_are_counted(web):
    assert ask(web + "/swarm", user_count=3, spawn_rate=3)["success"]
    stats = until(lambda: (found := ask(web + "/stats/requests"))["total_rps"] > 0 and found)
    assert {entry["method"] for entry in stats["stats"]} >= {"UDP"}
    assert stats["user_count"] == 3
    assert stats["errors"] == []
    assert ask(web + "/stop", now="1")["success"]
