"""Log lines: for people on a terminal, JSON (one object a line) for everything else.

A line that repeats is held back after ten in a minute, and its number told once the minute is over.
Standard library only: the supervisor, which is to stay small, logs too.
"""

import json
import logging
import sys
import threading
import time
from types import TracebackType
from typing import Any, TextIO

LINES = 10
PERIOD = 60.0
MOST_TEMPLATES = 1000

_show_private = False
_faults = 0


def set_up(level: str, fmt: str, stream: TextIO | None = None, *, addresses: bool = False, process: str = "") -> None:
    """Send all that the process logs, uncaught exceptions included, to the stream (stderr).

    `level` and `fmt` are the words of `log` in a configuration; `addresses` lets `Private` show what it is given;
    `process` is who speaks, as many write to one stream.
    """
    global _show_private
    _show_private = addresses
    stream = stream or sys.stderr
    human = fmt == "human" or (fmt == "auto" and stream.isatty())
    handler = LimitedHandler(stream)
    handler.setFormatter(HumanFormatter(process) if human else JsonFormatter(process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.raiseExceptions = False  # a closed stderr is no reason to stop
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = _unraisable


class Private:
    """A client's address or an info-hash as an argument of a log line: shown only if `log.addresses` is true."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __str__(self) -> str:
        return str(self.value) if _show_private else "(hidden)"


class Repetition:
    """One template within one period."""

    __slots__ = ("began", "count")

    def __init__(self, began: float) -> None:
        self.began, self.count = began, 0


class RateLimit:
    """Admits LINES lines of each template a PERIOD, and counts the rest."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], Repetition] = {}

    def admits(self, template: tuple[str, str], now: float) -> bool:
        if template not in self.seen and len(self.seen) >= MOST_TEMPLATES:
            return True  # too many kinds of line to be repetitions of few
        repetition = self.seen.setdefault(template, Repetition(now))
        repetition.count += 1
        return repetition.count <= LINES

    def ended(self, now: float) -> list[tuple[str, str, int]]:
        """Forget the periods that are over; of each that held lines back: logger, template and how many."""
        over = {template: one for template, one in self.seen.items() if now - one.began >= PERIOD}
        for template in over:
            del self.seen[template]
        return [(*template, one.count - LINES) for template, one in over.items() if one.count > LINES]


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream what the rate limit admits, and what it held back when its period is over."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.limit = RateLimit()

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        self.tell_suppressed(now)
        if hasattr(record, "unlimited") or self.limit.admits((record.name, str(record.msg)), now):
            super().emit(record)

    def tell_suppressed(self, now: float) -> None:
        for name, template, count in self.limit.ended(now):
            args = (count, template)
            super().emit(logging.LogRecord(name, logging.WARNING, "", 0, "suppressed %d more of: %s", args, None))

    def close(self) -> None:
        self.tell_suppressed(time.monotonic() + PERIOD)
        super().close()


class HumanFormatter(logging.Formatter):
    """`13:05:59 warning gateway1 gateway.web: text`, then the traceback if there is one."""

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self.process = f"{process} " if process else ""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = record.getMessage()
        if not text.isprintable():  # a line is one line, whatever is in it
            text = ascii(text)[1:-1]
        line = f"{clock} {record.levelname.lower():7} {self.process}{record.name}: {text}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, process if it has a name, logger, message, exception if there is one."""

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self.process = {"process": process} if process else {}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            **self.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("shoal").critical("uncaught %s", kind.__name__, exc_info=(kind, error or kind(), trace))


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    """What a compiled kernel's leaf could not raise: it went on with zeros, which is a fault of ours."""
    global _faults
    _faults += 1
    where = args.err_msg or f"in {args.object!r}"
    trace = (args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)
    logging.getLogger("shoal").critical("ignored %s %s", args.exc_type.__name__, where, exc_info=trace)


def kernel_faults() -> int:
    """How many exceptions were ignored, as nothing above could take them."""
    return _faults
