"""The story that scripts/demo tells, in plain lines; each step is checked, and the first that fails ends it with 1.

Everything started here is ended by its pid, also when the story ends badly.
Example: .venv/bin/python scripts/demo_story.py
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from processes import Failed, Process, attach_command, attached, end_in_order, serving

PROGRAM = [sys.executable, str(Path(__file__).with_name("demo_program.py"))]
SPLIT_ROUNDS = 20  # rounds that the program prints while it is attached
AFTER_ROUNDS = 5  # rounds that it prints after it was detached


def tell(line: str) -> None:
    print(line, flush=True)


def ensure(seen: bool, promise: str) -> None:
    if not seen:
        raise Failed(f"{promise}: not seen")
    tell(f"   ok: {promise}")


def tracer_pid(pid: int) -> int:
    """Who traces a process; 0 for nobody. Source: proc_pid_status(5)."""
    return int(Path(f"/proc/{pid}/status").read_text().split("TracerPid:")[1].split()[0])


def calls(report: Path) -> tuple[int, Counter[str]]:
    """A report's calls: how many were remote, and the local ones by reason."""
    splits = json.loads(report.read_text())["splits"]
    reasons: Counter[str] = Counter()
    for split in splits:
        reasons.update(split["local_reasons"])
    return sum(split["calls"]["remote"] for split in splits), reasons


def split_for_a_while(program: Process, report: Path, where: list[str]) -> None:
    """Attach to the program, let it print SPLIT_ROUNDS rounds, detach, and check what the report says."""
    tell("   $ radium " + " ".join(attach_command(program.pid, "blas", report, where)))
    with attached(program.pid, "blas", report, where) as radium:
        ensure(tracer_pid(program.pid) != 0, "radium has attached")
        program.wait_for_more(SPLIT_ROUNDS)
        tell(f"   the program has printed {SPLIT_ROUNDS} rounds meanwhile: Ctrl-C for radium")
    for line in radium.lines:
        tell(f"   {line}")
    remote, reasons = calls(report)
    local = f"{reasons.total()} local: {dict(reasons)}" if reasons else "none local"
    # Of the rounds counted, the first product may have been computed before radium was there.
    ensure(remote >= SPLIT_ROUNDS - 1, f"{remote} calls remote, {local}")
    ensure(tracer_pid(program.pid) == 0, "detached: nobody traces the program any more")
    program.wait_for_more(AFTER_ROUNDS)
    ensure(program.popen.poll() is None, f"still running: {AFTER_ROUNDS} more rounds since")


def unsplit_output(rounds: int) -> list[str]:
    run = subprocess.run([*PROGRAM, "--rounds", str(rounds)], text=True, stdout=subprocess.PIPE, check=True)
    return run.stdout.splitlines()


def story(folder: Path) -> None:
    tell("1. A plain NumPy program starts. Nothing about it has been prepared.")
    with Process([*PROGRAM, "--pause", "0.02"], "stdout") as program:
        program.wait_for_more(3)
        tell(f"   PID {program.pid}: {program.lines[-1]}")

        tell("2. Its matrix products are split, to a private acceptor that lives as long as the session.")
        split_for_a_while(program, folder / "private.json", [])

        tell("3. Once more, to an acceptor that could as well be on another machine.")
        with serving() as address:
            tell(f"   $ radium serve --listen 127.0.0.1:0     (it chose {address})")
            split_for_a_while(program, folder / "served.json", ["--acceptor", address])

        tell(f"4. The program, still PID {program.pid}, is ended, and its output is compared with an unsplit run's.")
        program.end()
    rounds = len(program.lines)
    same = program.lines == unsplit_output(rounds)
    ensure(same, f"bit-identical: all {rounds} lines, with the SHA-256 of each product")


def main() -> int:
    started = time.monotonic()
    end_in_order()
    try:
        with tempfile.TemporaryDirectory(prefix="radium-demo-") as folder:
            story(Path(folder))
    except Failed as failed:
        tell(f"   FAILED: {failed}")
        return 1
    tell(f"All of it held, in {time.monotonic() - started:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
