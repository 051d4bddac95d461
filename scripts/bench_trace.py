"""What `radium trace` says of stock programs, against what their calls take when they are split as it says; and what it costs.

The programs are those of tests/traced.py. A prediction is as good as its ratio to the calls measured is near to 1.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from figures import MS, ONE_THREAD, Bench, Figure
from processes import Failed

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import traced

# Where a prediction has to lie, and what watching may take of the program's time.
LEAST, MOST, SAMPLING, COUNTING = 0.7, 1.3, 0.03, 0.1


def predicted(program: traced.Program, bench: Bench) -> Iterator[Figure]:
    """The function that was found: what a call of it was predicted to take there, and takes, if it could ever gain."""
    command = program.command(bench.folder, 1.5 if bench.quick else 2.0)
    found, profile = find(bench, command)
    yield from overhead(program, found)
    if not program.expected:
        return
    best = found["candidates"][0]
    if not best["name"].endswith(program.expected):
        raise Failed(f"{program.name}: {best['name']} was found, not {' or '.join(program.expected)}")
    if not profile.exists():
        return
    measured = split(bench, command, profile, best)
    value, limit = 1e9 * best["there_s"], 1e9 * measured
    yield Figure(
        f"{program.name}: {best['name'].rpartition(':')[2]}, predicted", value / MS, "ms", limit / MS, "the same, measured",
        value / limit, "0.7 to 1.3", LEAST <= value / limit <= MOST, {"best": best},
    )  # fmt: skip


def find(bench: Bench, command: list[str]) -> tuple[dict[str, Any], Path]:
    """What a trace of it finds, and the profile, with every call sent out."""
    found, profile = bench.folder / "found.json", bench.folder / "found.toml"
    profile.unlink(missing_ok=True)
    run(["trace", "--quiet", "--json", str(found), "-o", str(profile), "--", *command])
    if profile.exists():
        profile.write_text(profile.read_text().replace('policy = "auto"', 'policy = "always"'))
    return json.loads(found.read_text()), profile


def split(bench: Bench, command: list[str], profile: Path, best: dict[str, Any]) -> float:
    """Seconds of a remote call of that function: the first one counts only if it was under way all the time."""
    name = best["name"]
    report = bench.folder / "found.report.json"
    run(["run", "--quiet", "--split", str(profile), "--report", str(report), "--", *command])
    one = next(one for one in json.loads(report.read_text())["splits"] if one["name"] == name)
    calls, seconds, first = one["calls"]["remote"], one["seconds"]["total"], one["first_call"]
    if not calls:
        raise Failed(f"no call of {name} was remote: {one['local_reasons']}")
    return float((seconds - first["seconds"]) / (calls - 1) if calls > 1 and best["calls"] != 0 else first["seconds"])


def run(arguments: list[str]) -> None:
    command = [sys.executable, "-P", "-m", "radium", *arguments]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ONE_THREAD, check=False)
    if done.returncode:
        raise Failed(f"radium {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")


def overhead(program: traced.Program, found: dict[str, Any]) -> Iterator[Figure]:
    shares = found["overhead"]
    for title, share, most in (("sampled", shares["sampling"], SAMPLING), ("counted", shares["counting"], COUNTING)):
        if share is not None:
            yield Figure(
                f"{program.name}: overhead while {title}", 100 * share, "%", target=f"< {100 * most:.0f} %", met=share < most
            )


FIGURES = {f"trace-{program.name}": partial(predicted, program) for program in traced.PROGRAMS}
