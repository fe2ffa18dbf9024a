"""Coverage-guided fuzzing of the uncompiled kernels with atheris: make fuzz [ARGS="--seconds 10"]

Each target of targets.py runs in a process of its own, as libFuzzer ends the process. What reaches new code goes into
corpus/, as does what fails: the tests replay it on the compiled kernels too, and fail until it is mended.
"""

import argparse
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FunctionType

HERE = Path(__file__).parent
NAMES = ["datagrams", "frames", "requests"]
HOW = ["-max_len=4096", "-len_control=20", "-timeout=60", "-entropic_scale_per_exec_time=1"]


def main():
    """Exit code 1 if a target failed."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzz the kernels.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: %(default)s)")
    parser.add_argument("--target", action="append", choices=NAMES, help="default: all")
    wanted = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.exit("make fuzz: atheris is missing; make .venv/.testable installs it, on x86-64")
    failed = [name for name in wanted.target or NAMES if not fuzz(name, wanted.seconds)]
    return 1 if failed else 0


def fuzz(name, seconds):
    """Fuzz a target for some seconds, and keep what was found; whether all went well."""
    print(f"{name}: {seconds} s", flush=True)
    corpus = HERE / "corpus" / name
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "found")
        found.mkdir()
        if run(name, *HOW, f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", found, corpus):
            for path in Path(folder).glob("*-*"):
                print(f"{name}: failed on {shutil.copy(path, corpus)}, which the tests replay", flush=True)
            return False
        # By what code is reached, not how often: so the corpus stays small.
        return run(name, "-merge=1", "-use_counters=0", corpus, found) == 0


def run(name, *arguments):
    """Run libFuzzer on a target; its exit code."""
    command = [sys.executable, "-P", __file__, "--libfuzzer", name, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    return subprocess.run(command, env=environment, check=False).returncode


def libfuzzer(name, arguments):
    """Fuzz in this process, which ends with it."""
    import atheris
    import cython
    from fuzz.targets import TARGETS
    from kernels import pure, pure_twins

    cython.cast = lambda kind, value: value  # what it comes to between numbers, at a third of the time in all
    for kernel in [*pure_twins("shard").values(), *pure_twins("gateway").values()]:
        for function in functions_of(kernel):
            atheris.instrument_func(function)
    again = shlex.join([sys.executable, "-P", __file__, "--libfuzzer", name])  # how a merge starts itself
    atheris.Setup([again, *arguments], lambda data: TARGETS[name](pure, data))
    atheris.Fuzz()


def functions_of(kernel):
    """The functions and methods of a module's own."""
    values = list(vars(kernel).values())
    values += [value for owner in values if isinstance(owner, type) for value in vars(owner).values()]
    functions = [value for value in values if isinstance(value, FunctionType)]
    return [function for function in functions if function.__code__.co_filename == kernel.__file__]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--libfuzzer"]:
        libfuzzer(sys.argv[2], sys.argv[3:])
    sys.exit(main())
