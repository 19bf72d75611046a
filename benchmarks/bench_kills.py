"""Kills of real commands: how many, at which step of the write sequence, and that none broke a store.

Commands of the command line on a tiny study, killed with SIGKILL together with all they started, on disk and on an S3
server in a process of its own. After each kill a reader must see the old or the new content whole; the same command run
again must end with status 0 and leave the content of a run that was never killed; it may write again only the one
partition that was being written; no process and no lease that keeps others out may be left; the catalogue must say what
the pointers say. Steps are hit in turn, each at least five times in a hundred; every tenth kill comes by the clock.

Kills are kept in a file as they are made, so a run that was stopped goes on where it was if the sources are the same.
A violation ends the run with status 1; its kill is made again by the next run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import BENCHMARKS, SOURCES_AT_START, Case, Target, parse_arguments, report, scratch_folder

sys.path.insert(0, str(BENCHMARKS.parent))

if TYPE_CHECKING:
    from tests.service.killing import Kill, Outcome, Scenario

PLACES = ("disk", "s3")
ENOUGH = 5
"""Kills of every step that a row of a hundred needs."""
AT_ONCE = 2


@dataclass(frozen=True)
class Made:
    """One kill, as it is kept."""

    command: str
    place: str
    number: int
    step: str
    """Of the write at which it came; ``clock`` where it came by time, ``ended`` where that was too late."""
    saw: str
    n_redone: int
    seconds: float
    again_seconds: float
    violation: str = ""
    sources: str = SOURCES_AT_START
    """Digest of the package's sources that were killed."""


def planned(scenario: Scenario, n: int) -> list[Kill]:
    """Kills of one command at one place, the same for every run: steps in turn, writes and moments by chance."""
    from tests.service.killing import STEPS, Kill

    rng = random.Random(f"bench {scenario.command.name} {scenario.place.name}")
    steps = itertools.cycle([step for step in STEPS if scenario.numbers(step)])
    kills = []
    for number in range(n):
        if number % 10 == 9:
            kills.append(Kill(after=round(rng.uniform(*scenario.seconds), 3)))
        else:
            write = rng.choice(scenario.numbers(next(steps)))
            kills.append(Kill(on_write=write, when="before" if rng.random() < 0.5 else "after"))
    return kills


def make(scenario: Scenario, kill: Kill, number: int) -> Made:
    """Make one kill and judge it."""
    from tests.service.killing import kill_and_check, step_of

    name, place = scenario.command.name, scenario.place.name
    try:
        outcome: Outcome = kill_and_check(scenario, kill, f"{name}-{number}")
    except AssertionError as error:
        step = "clock" if kill.on_write is None else step_of(scenario.writes[kill.on_write - 1])
        said = " ".join([str(error) or "AssertionError", *getattr(error, "__notes__", ())])
        return Made(name, place, number, step, "", 0, 0.0, 0.0, said[:500])
    step = outcome.step or "clock"
    return Made(name, place, number, step, outcome.saw, outcome.n_redone, outcome.seconds, outcome.again_seconds)


def kills_of(scenario: Scenario, n: int, known: Mapping[int, Made], until: float) -> Iterator[Made]:
    """Make the kills that are not known yet, two at a time, until the time is over."""
    todo = iter([(i, kill) for i, kill in enumerate(planned(scenario, n)) if i not in known])
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while time.monotonic() < until and (some := list(itertools.islice(todo, AT_ONCE))):
            yield from pool.map(lambda item: make(scenario, item[1], item[0]), some)


def table(made: Sequence[Made]) -> Iterator[str]:
    """Lines of the table: kills by command, place and step."""
    from tests.service.killing import STEPS

    columns = [*STEPS, "clock", "ended"]
    yield "  ".join(["command".ljust(10), "place", *(c.rjust(9) for c in columns), "    kills", " violations"])
    for command, place in dict.fromkeys((m.command, m.place) for m in made):
        mine = [m for m in made if (m.command, m.place) == (command, place)]
        steps = Counter(m.step for m in mine)
        wrong = sum(bool(m.violation) for m in mine)
        yield "  ".join(
            [command.ljust(10), place.ljust(5), *(str(steps[c]).rjust(9) for c in columns), str(len(mine)).rjust(9),
             str(wrong).rjust(11)]
        )  # fmt: skip


def case_of(command: str, place: str, made: Sequence[Made]) -> Case:
    """One row: a command at a place."""
    from tests.service.killing import STEPS

    steps = Counter(m.step for m in made)
    hit = [steps[step] for step in STEPS]
    violations = sum(bool(m.violation) for m in made)
    targets = [Target("violations", violations, 0, "kills")]
    if len(made) >= 100:
        targets.append(Target("least_hit_step", min(hit), ENOUGH, "kills", at_least=True))
    return Case(
        f"kills_{command}_{place}",
        {"command": command, "place": place, "kills": len(made)},
        {},
        targets,
        figures={
            **{f"at_{step}": steps[step] for step in (*STEPS, "clock", "ended")},
            "median_s_to_the_kill": statistics.median(m.seconds for m in made),
            "median_s_again": statistics.median(m.again_seconds for m in made),
            "saw_new": sum(m.saw == "new" for m in made),
            "objects_redone": sum(m.n_redone for m in made),
            "most_objects_redone": max((m.n_redone for m in made), default=0),
        },
    )


def read_kept(path: Path) -> list[Made]:
    """Kills of earlier runs of the same sources; those that broke something are made again."""
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [Made(**json.loads(line)) for line in lines]
    return [made for made in kept if not made.violation and made.sources == SOURCES_AT_START]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from tests.service.killing import COMMANDS

    parser.add_argument("--kills", type=int, default=100, help="per command and place (default: 100)")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so long; run again to go on")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--fresh", action="store_true", help="forget the kills of earlier runs")


def main() -> None:
    from tests.servers.s3 import moto_server
    from tests.service.killing import Place, Study, command_of, prepare

    arguments = parse_arguments(__doc__, add_arguments)
    n = 2 if arguments.quick else arguments.kills
    kept = arguments.cache / "kills.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    if arguments.fresh:
        kept.unlink(missing_ok=True)
    earlier = [] if arguments.quick else read_kept(kept)
    until = time.monotonic() + 60 * arguments.minutes
    all_made: list[Made] = []
    with scratch_folder() as scratch, moto_server() as server:
        study = Study.make(scratch / "study")
        places: dict[str, Any] = {
            "disk": Place("disk", str(scratch / "stores")),
            "s3": Place("s3", f"s3://{server.bucket()}", server.storage_options()),
        }
        pairs = list(itertools.product(arguments.commands, arguments.places))
        for i, (command, place) in enumerate(pairs):
            mine = {m.number: m for m in earlier if (m.command, m.place) == (command, place) and m.number < n}
            # Time that is left is shared by the pairs that are left.
            share = time.monotonic() + (until - time.monotonic()) / (len(pairs) - i)
            if len(mine) < n and time.monotonic() < share:
                scenario = prepare(command_of(study, command), places[place])
                for made in kills_of(scenario, n, mine, share):
                    mine[made.number] = made
                    print("!" if made.violation else ".", end="", file=sys.stderr, flush=True)
                    if not arguments.quick:
                        with kept.open("a") as file:
                            file.write(json.dumps(vars(made)) + "\n")
                print(f" {command} {place}: {len(mine)} of {n}", file=sys.stderr, flush=True)
            all_made += mine.values()
    print("\n".join(table(all_made)))
    wrong = [m for m in all_made if m.violation]
    for made in wrong:
        print(f"VIOLATION {made.command} {made.place} kill {made.number} ({made.step}): {made.violation}")
    cases = []
    for command, place in pairs:
        mine_made = [m for m in all_made if (m.command, m.place) == (command, place)]
        if mine_made:
            cases.append(case_of(command, place, mine_made))
    report("kills", cases, record=not arguments.quick)
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
