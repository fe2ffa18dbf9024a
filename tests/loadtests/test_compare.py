"""`make compare`: what is judged invalid, what is told of trackers that are missing, and a round on real ones."""

import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from processes import until
from rich.console import Console
from rich.progress import Progress

from loadtests import clusters, compare, compare_results, rivals
from loadtests.clusters import Run
from loadtests.compare_results import Contest, Entry
from loadtests.http_check import Announce, Check, fill
from loadtests.http_load import LOCAL

FINE = {"answers": 1000, "sent": 1000, "rps": 50_000, "peers_per_announce": 50, "p50_us": 100, "p99_us": 900}
WRK = """\
Running 1s test @ http://127.0.0.1:7790/
  1 threads and 64 connections
    Latency    83.40ms   22.10ms 124.62ms   80.11%
  729 requests in 1.01s, 214.82KB read
  Socket errors: connect 1, read 20, write 3, timeout 4
  Non-2xx or 3xx responses: 5
Requests/sec:    719.27
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def entry(name, *costs, ours=False, judged=clusters.WRONG, **found):
    """A tracker whose rounds cost so many microseconds an answer."""
    made = Entry(name, judged, ours)
    made.runs = [Run([FINE | found], Counter(other=int(cost * FINE["answers"] * 1000))) for cost in costs]
    return made


def contest(kind, *entries):
    return Contest("A load", kind, [entry("floor", 5.0, 8.0, 4.0, judged=()), *entries])


def row(found, name):
    """The cells of a tracker's row by the titles of their columns; what is invalid is under ""."""
    cells = next(cells for cells in compare_results.rows(found) if cells[0] == name)
    return dict(zip(compare_results.HEADERS[found.kind][1:], cells[1:], strict=True))


# Tables


def test_a_ratio_is_of_the_same_round():
    found = contest("closed", entry("shoal", 10.0, 10.0, 5.0))
    assert row(found, "shoal")["of the floor"] == "0.80"  # of 0.5, 0.8 and 0.8
    assert row(found, "shoal")["us an answer"] == "10.00"
    assert row(found, "floor")["of the floor"] == "1.00"
    assert row(found, "shoal")[""] == row(found, "floor")[""] == ""


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"errors": 2}, "6 errors"),
        ({"malformed": 1}, "3 malformed"),
        ({"strangers": 7}, "21 strangers"),
        ({"own": 1}, "3 own"),
        ({"answers": 0}, "no answers"),
        ({"peers_per_announce": 40}, "40.0 peers an answer, another gave 50.0"),
        ({"lost": 20}, "2.0% lost"),
    ],
)
def test_a_row_whose_work_was_not_done_is_invalid_with_the_reason(found, reason):
    told = contest("open", entry("bad", 9.0, 9.0, 9.0, **found), entry("good", 9.0, 9.0, 9.0))
    assert row(told, "bad")[""] == f"INVALID: {reason}"
    assert row(told, "good")[""] == ""


def test_in_the_closed_loop_a_loss_is_printed_and_not_judged():
    found = contest("closed", entry("other", 9.0, lost=20))
    assert (row(found, "other")["lost"], row(found, "other")[""]) == ("2.00%", "")


def test_who_lists_the_asker_is_told_and_judged_only_if_that_is_asked():
    found = contest("closed", entry("other", 9.0, judged=("errors", "malformed", "strangers"), own=500))
    assert (row(found, "other")["own"], row(found, "other")[""]) == ("50%", "")


def test_a_tracker_that_failed_keeps_its_row():
    dead = entry("dead", 9.0)
    dead.fault = "ended with 3"
    never = entry("never")
    never.fault = "does not start"
    found = contest("kept", dead, never)
    assert row(found, "dead")[""] == "INVALID: ended with 3"
    assert row(found, "dead")["of the floor"] == "0.56"
    assert row(found, "never")[""] == "INVALID: does not start"


def test_who_is_ahead_of_shoal_is_told():
    slow, fast, invalid = entry("slow", 9.0), entry("fast", 6.0), entry("invalid", 1.0, errors=1)
    found = contest("one-shot", entry("shoal", 8.0, ours=True), entry("shoal-tcp", 7.5, ours=True), slow, fast, invalid)
    assert compare_results.ahead([found]) == [
        "A load, us an answer, of shoal: fast (0.75 of its)",
        "A load, us an answer, of shoal-tcp: fast (0.80 of its)",
    ]
    found = contest("closed", entry("shoal", 8.0, ours=True), slow)
    assert compare_results.ahead([found]) == ["A load, us an answer, of shoal: none"]
    found = contest("closed", entry("shoal", 8.0, ours=True, errors=1), slow)
    assert compare_results.ahead([found]) == ["A load: shoal has no valid row"]


def test_an_open_loop_is_told_by_latency_and_by_cost():
    slower = entry("slower", 6.0, p50_us=300, p99_us=900)
    found = contest("open", entry("shoal", 8.0, ours=True, p50_us=200, p99_us=1000), slower)
    assert compare_results.ahead([found]) == [
        "A load, p50, of shoal: none",
        "A load, p99, of shoal: slower (0.90 of its)",
        "A load, us an answer, of shoal: slower (0.75 of its)",
    ]
    found = contest("open", entry("shoal", 8.0, ours=True, errors=1), slower)
    assert compare_results.ahead([found]) == ["A load: shoal has no valid row"]


def test_invalid_rows_of_shoal_are_counted_and_others_are_results(capsys):
    good, bad = entry("shoal", 8.0, ours=True), entry("shoal-tcp", 8.0, ours=True, errors=1)
    found = contest("closed", good, bad, entry("other", 8.0, errors=1))
    assert compare_results.show(Console(width=150), [found, found], ["thing: no such crate"]) == 2
    told = capsys.readouterr().out
    assert "not installed: thing: no such crate" in told
    assert told.count("INVALID: 1 errors") == 4


def test_quartiles_do_not_leave_the_values():
    assert clusters.quartiles([1.0, 2.0]) == (1.25, 1.5, 1.75)
    assert clusters.quartiles([3.0]) == (3.0, 3.0, 3.0)


def test_a_table_is_markdown():
    lines = compare_results.markdown(("", "us"), [["a|b", "1"]]).splitlines()
    assert lines == ["|  | us |", "|---|---|", "| a/b | 1 |"]


def test_the_picture_shows_cut_and_invalid_bars(tmp_path):
    found = contest("closed", entry("shoal", 6.0, ours=True), entry("slow", 600.0), entry("bad", 9.0, errors=1))
    compare_results.draw([found, contest("kept", entry("shoal", 6.0, ours=True))], tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_wrks_report_is_read():
    assert clusters.read_wrk(WRK) == {
        "answers": 729, "sent": 757, "lost": 5, "closed": 23, "errors": 5, "rps": 719.27
    }  # fmt: skip
    assert clusters.read_wrk("  9 requests in 1.0s\n")["sent"] == 9


def test_a_load_ends_with_who_began_it():
    script = "from loadtests import clusters; print(clusters.begin_load(['sleep', '600']).pid, flush=True); input()"
    command = [sys.executable, "-P", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        load = Path(f"/proc/{process.stdout.readline().strip()}")
        assert load.exists()
        process.kill()
    until(lambda: not load.exists())


# Answers of HTTP


def announces(many=20):
    """Leechers of one swarm."""
    return [Announce(f"/announce?{port}", bytes(20), port, True) for port in range(1, many + 1)]


def body(*ports, host=LOCAL, end=b""):
    peers = b"".join(host + port.to_bytes(2) for port in ports)
    return b"d8:intervali9e5:peers%d:%be" % (len(peers), peers) + end


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (body(*range(2, 21)), ""),
        (body(*range(2, 21), end=b"\r\n"), ""),
        (body(*range(1, 20)), "1 own"),
        (body(*range(2, 20), 99), "1 strangers"),
        (body(*range(2, 21), host=bytes(4)), "19 strangers"),
        (body(*range(2, 11)), "9.0 peers an answer of 19.0"),
        (body(*range(2, 21), end=b"x"), "1 malformed"),
        (b"d5:peers5:12345e", "1 malformed"),
        (b"not bencode", "1 malformed"),
        (b"i5e", "1 malformed"),
        (b"d14:failure reason2:noe", "1 errors"),
    ],
)
def test_an_http_answer_is_judged_by_what_was_announced(answer, fault):
    check = Check(announces())
    check.judge(check.samples[0], 200, answer)
    assert check.fault(clusters.WRONG) == (
        f"of 20 answers checked: {fault}" if fault[:1].isdigit() and "." not in fault else fault
    )


def test_an_asker_that_is_listed_does_not_stand_for_another_peer():
    check = Check(announces(3))
    check.judge(check.samples[0], 200, body(1, 2))
    assert check.fault(("strangers",)) == "1.0 peers an answer of 2.0"


def test_a_status_that_is_not_200_is_malformed():
    check = Check(announces())
    check.judge(check.samples[0], 404, body(2))
    assert check.fault(clusters.WRONG) == "of 20 answers checked: 1 malformed"


def test_a_tracker_that_cannot_be_filled_is_out():
    with pytest.raises(RuntimeError, match="^gives an announce no answer: .*refused"):
        fill(free_port(), announces(2))


def test_an_http_answer_that_does_not_come_is_lost():
    check = Check(announces(3))
    check.ask(free_port())
    assert check.fault(()) == "of 3 answers checked: 3 lost"


# Trackers that are missing


def test_a_tracker_that_cannot_be_installed_is_named_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found, missing = rivals.find(tmp_path)
    assert found == []
    assert missing == [
        "opentracker: no command opentracker (Debian's package of that name)",
        *(
            f"{name}: no command cargo to install or run it with"
            for name in ("aquatic-uring", "aquatic-mio", "aquatic-http")
        ),
        "bittorrent-tracker: no command npm to install or run it with",
    ]


def test_an_installer_that_fails_is_quoted_and_not_tried_twice(tmp_path, capsys):
    script = "echo Compiling thiserror; echo; echo 'error: no network'; echo 'error: it failed'; exit 1"
    told = f"error: no network (more in {tmp_path / 'thing.log'})"
    for tried in ("sh", "no such command"):
        with pytest.raises(rivals.MissingError) as caught:
            rivals.install(tmp_path, "thing", [tried, "-c", script])
        assert str(caught.value) == told
    assert capsys.readouterr().out.count("installing thing") == 1


@pytest.mark.parametrize(("text", "line"), [("one\n\ntwo\n", "two"), ("", "it failed without a word")])
def test_an_installer_without_an_error_line_is_quoted_by_its_last(text, line):
    assert rivals.reason(text) == line


def test_what_is_installed_is_used_again(tmp_path):
    binary = tmp_path / f"aquatic_udp-{rivals.AQUATIC}" / "bin" / "aquatic_udp"
    binary.parent.mkdir(parents=True)
    binary.touch()
    (rival,), missing = rivals.find(tmp_path, ["aquatic-mio"])
    assert missing == []
    assert rival.command(tmp_path, 7000) == [str(binary), "-c", str(tmp_path / "aquatic-mio.toml")]
    text = (tmp_path / "aquatic-mio.toml").read_text()
    assert "use_io_uring = false" in text
    assert 'address = "127.0.0.1:7000"' in text


# Options


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tracker", "mine"], "not NAME:PORT:COMMAND: mine"),
        (["--tracker", "mine:7000:"], "not NAME:PORT:COMMAND: mine:7000:"),
        (["--tracker", "mine:70000:x"], "no port: 70000"),
        (["--tracker", "mine:x:x"], "no port: x"),
        (["--tracker", "shoal:7000:x"], "the name shoal is given twice"),
        (["--tracker", "a:7000:x", "--tracker", "a:7001:x"], "the name a is given twice"),
        (["--trackers", "shoal,torrust"], "unknown: torrust"),
        (["--protocols", "ws"], "unknown: ws"),
        (["--rounds", "0"], "no number above zero: 0"),
        (["--seconds", "nan"], "no number above zero: nan"),
        (["--rate", "many"], "no number above zero: many"),
        (["--first-port", "65000"], "no room for other ports above 65000"),
        (["--write", "/no/such/folder/x.md"], "no folder /no/such/folder to write to"),
        (["--write", "/"], "/ is a folder"),
        (["--picture", "x.txt"], "not a name that ends with .png: x.txt"),
    ],
)
def test_a_wrong_option_is_one_clear_line(words, told, capsys):
    with pytest.raises(SystemExit) as caught:
        compare.main(words)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_without_the_yardstick_it_says_what_is_needed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clusters, "YARDSTICK", tmp_path)
    assert compare.main([]) == 2
    assert capsys.readouterr().err == f"no yardstick in {tmp_path}: set YARDSTICK to the folder with udpload.c\n"


# Real trackers


def test_a_tracker_of_the_command_line_is_started_to_see_what_it_speaks(tmp_path):
    port, silent = free_port(), free_port()
    file = clusters.write_config(tmp_path / "shoal", port, clusters.Shape("embedded"))
    subject = compare.read_tracker(f"mine:{port}:{sys.executable} -P -m cluster up --config {file}")
    assert sorted(compare.try_out(subject, tmp_path).protocols) == ["http", "udp"]
    tried = compare.try_out(compare.read_tracker(f"gone:{silent}:false"), tmp_path)
    assert (tried.protocols, tried.fault) == (("udp", "http"), "gone does not start: it ended with 1")


def test_a_port_that_another_has_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        tried = compare.try_out(compare.read_tracker(f"mine:{port}:sleep 9"), tmp_path)
    assert tried.fault == f"port {port} is taken"


def test_without_the_floor_nothing_is_compared(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        match = compare.UdpMatch([], compare.Plan(1, 1.0, 1000, 64, 1000, port))
        with pytest.raises(RuntimeError, match=f"port {port} is taken"):
            match.hold(tmp_path, Progress())


def test_a_round_of_shoal_and_of_a_tracker_that_ends(tmp_path, monkeypatch, capsys):
    """All of it, where the yardstick and its tools are; elsewhere it says what it lacks."""
    monkeypatch.setattr(sys, "argv", ["compare"])
    files = tmp_path / "found.md", tmp_path / "found.png"
    words = ["--trackers", "shoal", "--tracker", f"gone:{free_port()}:false", "--rounds", "1", "--seconds", "0.2"]
    words += ["--fill", "2000", "--rate", "500", "--first-port", str(free_port() // 2 + 1024)]
    status = compare.main([*words, "--write", str(files[0]), "--picture", str(files[1])])
    if lacking := compare.lacking():
        assert (status, capsys.readouterr().err) == (2, f"{lacking}\n")
        return
    text = files[0].read_text()
    assert status == 0, text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| shoal |", "| gone |"))]
    valid, invalid = ([cells[-1] for cells in rows[2:] if cells[0] == name] for name in ("| shoal", "| gone"))
    assert invalid == ["INVALID: does not start: it ended with 1 |"] * 4
    assert valid == [" |"] * 4, text
    assert "![" in text
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert Path(rivals.KEPT).name in (clusters.ROOT / ".gitignore").read_text()
