"""The scenarios: what is asked of a tracker, how much of it, and what it must answer to pass.

A scenario is data. Its `course` says what happens beside the load, and is code of courses.py by that name; a criterion
is a small function of the results that a course brings, by phase. Rates are such that one core holds the tracker and
another one the load, with room; `--scale` multiplies them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from loadtests.load.plan import Part

ANNOUNCES = ("UDP announce", "HTTP kept announce", "HTTP one-shot announce")
LATE = "load sent late"  # the generator's own delay, among the kinds
FLUSH = 0.25  # seconds between two looks of drivers at what they found: so much of a load may be uncounted
STANDSTILL = 1.0  # seconds of requests without an answer at the end: more than are under way, or not counted yet
LOST = "lost"  # among faults: a request without an answer after all tries


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of the answers of a kind: how many, and milliseconds from when each was due until it came."""

    count: int
    p50: float
    p99: float


class Result(msgspec.Struct, kw_only=True):
    """What a phase brought. What a tracker used is empty if its processes are not ours to look at.

    rate: requests a second that were due. latencies: by protocol and request; LATE is the load itself. faults: by name.
    totals: as the drivers have them. processor: seconds, and resident: MiB, both by role. load_processor: seconds of
    all processes that make the load. refused: what the tracker says of itself, by metric.
    """

    seconds: float
    rate: float
    latencies: dict[str, Latency] = {}
    announces: Latency = Latency(count=0, p50=0, p99=0)
    faults: dict[str, int] = {}
    totals: dict[str, int] = {}
    processor: dict[str, float] = {}
    load_processor: float = 0
    resident: dict[str, float] = {}
    refused: dict[str, float] = {}

    @property
    def answers(self) -> int:
        """Of all kinds."""
        return sum(each.count for name, each in self.latencies.items() if name != LATE)

    @property
    def goodput(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    @property
    def sent(self) -> float:
        """Requests a second that left: fewer than were due if all who could announce waited for answers."""
        return self.totals["sent"] / self.seconds if "sent" in self.totals else self.rate

    @property
    def useful(self) -> float:
        """Answers a second, without empty ones that acknowledge nothing."""
        return (self.answers - self.totals.get("empty", 0)) / self.seconds

    @property
    def wrong(self) -> dict[str, int]:
        """Faults of answers that came, by name."""
        return {name: many for name, many in self.faults.items() if name != LOST and many}

    @property
    def lost(self) -> int:
        """Requests without an answer after all tries."""
        return self.totals.get("lost", 0)

    @property
    def waiting(self) -> int:
        """Requests that left and have neither an answer nor used up their tries at the end."""
        return max(0, self.totals.get("sent", 0) - self.answers - self.lost)

    @property
    def first_lost(self) -> int:
        """Requests without an answer to the first try."""
        return self.totals.get("first lost", 0)


Found = Mapping[str, Result]  # by phase


class Verdict(NamedTuple):
    """What became of a criterion."""

    asked: str
    passed: bool
    figure: str


Criterion = Callable[[Found], Verdict]


class Scenario(NamedTuple):
    """parts: what the users do. warmup: seconds of load after the fill that do not count. phase: whose figures go to
    the results table."""

    name: str
    says: str
    parts: tuple[Part, ...]
    criteria: tuple[Criterion, ...]
    seconds: float = 20.0
    warmup: float = 1.0
    course: str = "plain"
    phase: str = "load"


# Criteria


def right(*phases: str) -> Criterion:
    """Every answer that came was right."""

    def judge(found: Found) -> Verdict:
        wrong: dict[str, int] = {}
        for phase in phases:
            for name, many in found[phase].wrong.items():
                wrong[name] = wrong.get(name, 0) + many
        answers = sum(found[phase].answers for phase in phases)
        words = ", ".join(f"{many:,} {name}" for name, many in sorted(wrong.items())) or "none wrong"
        asked = f"every answer is right{said(phases)}"
        return Verdict(asked, not wrong and answers > 0, f"{words}, of {answers:,}")

    return judge


def answered(phase: str = "load") -> Criterion:
    """No request stays without an answer after its tries."""

    def judge(found: Found) -> Verdict:
        result = found[phase]
        stopped = result.waiting > STANDSTILL * result.rate
        return Verdict(
            f"no request fails after its retransmissions{said([phase])}",
            result.lost == 0 and result.answers > 0 and not stopped,
            f"{result.lost:,} failed; {result.first_lost:,} lost at the first try, of {result.answers:,}"
            + (f"; the tracker answers no longer: {result.waiting:,} still wait" if stopped else ""),
        )

    return judge


def known(phase: str = "afterwards") -> Criterion:
    """Every peer has announced since the last doubt, so that counts are held against exact ones."""

    def judge(found: Found) -> Verdict:
        unsure = found[phase].totals.get("unsure", 0)
        return Verdict(f"every peer is known again{said([phase])}", unsure == 0, f"{unsure:,} are not")

    return judge


def few_lost(most: float, phase: str = "load") -> Criterion:
    """At most a share of requests has no answer at the first try."""

    def judge(found: Found) -> Verdict:
        result = found[phase]
        share = result.first_lost / max(result.answers + result.lost + result.waiting, 1)
        asked = f"at most {most:.2%} are lost at the first try{said([phase])}"
        return Verdict(asked, share <= most and result.answers > 0, f"{share:.3%}")

    return judge


def kept_up(least: float = 0.97, phase: str = "load") -> Criterion:
    """As many answers came as requests were due: neither the tracker nor the load fell behind."""

    def judge(found: Found) -> Verdict:
        result = found[phase]
        share = result.goodput / result.rate
        asked = f"at least {least:.0%} of the planned rate is answered, but for the last {FLUSH:g} s{said([phase])}"
        return Verdict(
            asked,
            share >= least - FLUSH / result.seconds,
            f"{result.goodput:,.0f} of {result.rate:,.0f} a second, {share:.1%}",
        )

    return judge


def within(p50: float, p99: float, phase: str = "load") -> Criterion:
    """Announces are answered within so many milliseconds."""

    def judge(found: Found) -> Verdict:
        got = found[phase].announces
        return Verdict(
            f"announces are answered within {p50:g} ms (p50) and {p99:g} ms (p99){said([phase])}",
            got.count > 0 and got.p50 <= p50 and got.p99 <= p99,
            f"{ms(got.p50)} and {ms(got.p99)} ms",
        )

    return judge


def beside(times: float, phase: str = "load", floors: Sequence[str] = ("floor", "floor again")) -> Criterion:
    """The median is at most so many times the floor's, which is the mean of those before and after."""

    def judge(found: Found) -> Verdict:
        own, around = found[phase].announces, [found[floor].announces for floor in floors]
        least = sum(each.p50 for each in around) / len(around)
        ratio = own.p50 / max(least, 1e-3)
        asked = f"p50 is at most {times:g} times the floor's"
        figure = f"{ms(own.p50)} ms, the floor's {' and '.join(ms(each.p50) for each in around)} ms: {ratio:.2f}"
        return Verdict(asked, own.count > 0 and all(each.count for each in around) and ratio <= times, figure)

    return judge


def goodput(least: float, phase: str = "overload", capacity: str = "capacity") -> Criterion:
    """At least a share of the capacity is still answered. Empty answers, of a gateway that hears no shard, are none."""

    def judge(found: Found) -> Verdict:
        whole = found[capacity].useful
        share = found[phase].useful / max(whole, 1)
        asked = f"of a load of {found[phase].sent / max(whole, 1):.1f} x capacity, {least:.0%} of capacity is answered"
        figure = f"{found[phase].useful:,.0f} of {whole:,.0f} a second, {share:.0%}"
        return Verdict(asked, share >= least, figure)

    return judge


def bounded(most: float, before: str = "capacity", after: str = "overload") -> Criterion:
    """Resident memory grows by so many MiB at most."""

    def judge(found: Found) -> Verdict:
        old, new = (sum(found[phase].resident.values()) for phase in (before, after))
        asked = f"resident memory grows by at most {most:g} MiB"
        return Verdict(asked, 0 < new <= old + most, f"{old:.0f} MiB before, {new:.0f} MiB after")

    return judge


def ms(value: float) -> str:
    """Milliseconds as people want them."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def said(phases: Sequence[str]) -> str:
    """The phases in words, if it is not just the load."""
    return "" if list(phases) == ["load"] else f" ({', '.join(phases)})"


# What they ask

UDP = Part(kind="udp", rate=20_000, ports=6_000, scrapes=0.01)
KEPT = Part(kind="http-kept", rate=250, torrents=200, ports=250, scrapes=0.02, connects=0)
ONE_SHOT = replace(KEPT, kind="http-oneshot", ports=250)
SMALL = Part(
    kind="http-oneshot", rate=1_100, torrents=600_000, sources=32, ports=30_000, ipv6=0, connects=0, fill_by_udp=True
)
MIX = (UDP, KEPT, ONE_SHOT)
# With a core for each side, answers take about a millisecond; a core that others share may stand still for some 50.
USUAL = (right("load"), answered(), few_lost(0.001), kept_up(), within(50, 500))

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "steady",
            "the mix in the wild: 20,000 UDP requests a second, a third of them connects, and 500 over HTTP",
            MIX,
            USUAL,
        ),
        Scenario(
            "flash-crowd",
            "one torrent of thousands of peers takes 80 % of all announces",
            tuple(replace(part, hot=0.8, seeds=0.05, stops=0.005, skew=1.5) for part in MIX),
            USUAL,
        ),
        Scenario(
            "churn",
            "peers come and go all the time: of those present 40 % stop with their next announce",
            tuple(replace(part, stops=0.4, completes=0.1) for part in MIX),
            USUAL,
        ),
        Scenario(
            "scrape-storm",
            "four of five requests are scrapes of 30 torrents each",
            (
                replace(UDP, rate=8_000, scrapes=0.6, connects=0.2, hashes=30),
                replace(KEPT, scrapes=0.8, hashes=30),
                replace(ONE_SHOT, scrapes=0.8, hashes=30),
            ),
            USUAL,
        ),
        Scenario(
            "overload",
            "three times what a tracker with a quota of processor time can answer; nothing is sent again",
            # Nobody stops: of a stop that was shed nobody knows whether it was heard.
            (Part(kind="udp", rate=4_000, sources=32, ports=9_000, tries=0, patience=4.0, stops=0, completes=0),),
            (
                goodput(0.7),
                right("capacity", "overload", "afterwards"),
                bounded(64),
                few_lost(0.001, "afterwards"),
                kept_up(0.97, "afterwards"),
            ),
            seconds=10.0,
            course="overload",
            phase="overload",
        ),
        Scenario(
            "small-vps",
            "the load of a known public tracker: 600,000 torrents, 1,100 HTTP announces a second, a connection each",
            (SMALL,),
            (right("load"), answered(), kept_up(), beside(2.0)),
            course="beside_floor",
        ),
        Scenario(
            "restart",
            "each process in turn is killed, then each is stopped in order, and comes back under load",
            # What a killed shard was told last, others may not have heard: it may list for a while who is gone.
            (Part(kind="udp", rate=3_000, torrents=500, ports=600, stops=0, completes=0, tries=3, strict=False),),
            (answered(), right("load"), known(), right("afterwards"), few_lost(0.001, "afterwards")),
            course="restarts",
        ),
    )
}


def scaled(scenario: Scenario, scale: float, workers: int = 1) -> Scenario:
    """A scenario with rates, torrents and peers multiplied, and each part dealt out to so many workers."""
    return scenario._replace(
        parts=tuple(scaled_part(part, scale / workers) for part in scenario.parts for _ in range(workers))
    )


def scaled_part(part: Part, factor: float) -> Part:
    """A part that does so many times as much."""
    return replace(
        part,
        rate=part.rate * factor,
        torrents=max(round(part.torrents * factor), part.hashes),  # a scrape names different ones
        ports=max(round(part.ports * factor), 2),
    )
