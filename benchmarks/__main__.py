"""The command line: ``python -m benchmarks SCENARIO``."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from .load import load_command
from .report import Rounds, picture, table
from .scenarios import EMPTY, SCENARIOS, Plan, Scenario
from .servers import ALL_PEERS, HERE, Missing, Peer, Workshop, environment, work_directory

VARIANTS = ("metrics", "envelope", "patch")  # of this project, compared where they are asked for
SERVERS = ("uvicorn", "daphne", "hypercorn", "granian")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    result.add_argument(
        "scenario", choices=SCENARIOS, help="what to measure; or bus, jobs, many, messages, refresh: each has a --help"
    )
    result.add_argument("--peers", help=f"which servers, with commas, of: {', '.join(ALL_PEERS)}")
    result.add_argument("--server", choices=SERVERS, default="uvicorn", help="the ASGI server under the Python ones")
    result.add_argument("--rounds", type=int, default=3, help="medians are taken of so many (default 3)")
    result.add_argument("--clients", type=int)
    result.add_argument("--events", type=int)
    result.add_argument("--hz", type=float, help="events per second; 0 is as fast as it goes")
    result.add_argument("--bytes", type=int, dest="size", help="padding in each event")
    result.add_argument("--seconds", type=float, default=60, help="how long the events are waited for")
    result.add_argument("--middleware", action="store_true", help="behind the middleware of a new Django project")
    result.add_argument("--profile", type=Path, metavar="DIRECTORY", help="what cProfile finds in the servers")
    result.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the first column")
    result.add_argument("--json", type=Path, metavar="FILE", help="write every figure of every round")
    result.add_argument("--python", type=Path, help="one that has all that is compared; else an environment is made")
    result.add_argument("--work", type=Path, default=HERE / ".work", help="where that and the rest is kept")
    return result


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] in (["bus"], ["jobs"], ["many"], ["messages"], ["refresh"]):
        # What they need, the others do not.
        return int(importlib.import_module(f"benchmarks.{given[0]}").main(given[1:]))
    options = parser().parse_args(given)
    scenario = SCENARIOS[options.scenario]
    work = work_directory(options.work.absolute())
    python = options.python or environment(work)
    plan = Plan(
        load_command(work),
        options.clients or scenario.clients,
        scenario.events if options.events is None else options.events,
        scenario.hz if options.hz is None else options.hz,
        scenario.size if options.size is None else options.size,
        options.seconds,
    )
    workshop = Workshop(
        work, python, options.server, middleware=options.middleware, has_sessions=scenario.name == "reconnect"
    )
    workshop.profile = options.profile
    rounds = measure(scenario, plan, workshop, chosen_peers(scenario, options.peers), options.rounds)
    if not rounds:
        return 1
    note = f"{conditions(plan, options)}; medians of {options.rounds} rounds. {machine(python)}."
    print(f"**{scenario.title}.** {note}\n")
    print(table(rounds, scenario.columns))
    if options.picture:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        options.picture.write_text(picture(rounds, scenario.columns[0], scenario.title, note))
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1))
    return 0


def chosen_peers(scenario: Scenario, names: str | None) -> list[Peer]:
    keys = names.split(",") if names else list(scenario.rows or [key for key in ALL_PEERS if key not in VARIANTS])
    unknown = [key for key in keys if key not in ALL_PEERS]
    if unknown:
        raise SystemExit(f"There is no peer {', '.join(unknown)}. The peers: {', '.join(ALL_PEERS)}.")
    peers = [ALL_PEERS[key] for key in keys]
    if scenario.name == "connect":
        # What a connect is measured by: a view that does nothing, in the same site.
        for key, title in (("plain", "an empty Django view"), ("live", "the same within `live_application`")):
            if key in keys:
                peers.append(dataclasses.replace(ALL_PEERS[key], key=f"{EMPTY}-{key}", title=title))
    return peers


def measure(scenario: Scenario, plan: Plan, workshop: Workshop, peers: list[Peer], count: int) -> Rounds:
    """Every peer once, then every peer again: what disturbs the machine for a while disturbs all of them."""
    rounds: Rounds = {}
    missing: set[str] = set()
    for number in range(1, count + 1):
        for peer in peers:
            if peer.key in missing:
                continue
            print(f"round {number} of {count}: {peer.title} …", end="\r", file=sys.stderr, flush=True)
            try:
                with workshop.start(peer) as server:
                    figures = scenario.run(server, plan)
            except Missing as error:
                missing.add(peer.key)
                print(f"missing: {error}", file=sys.stderr)
                continue
            finally:
                print(" " * 79, end="\r", file=sys.stderr)
            rounds.setdefault(peer.title, []).append(figures)
    return rounds


def conditions(plan: Plan, options: argparse.Namespace) -> str:
    text = f"{plan.clients:,} clients"
    if plan.events:
        text += f", {plan.events:,} events of {plan.size} bytes and a frame"
        text += f", {plan.hz:g} a second" if plan.hz else ", as fast as they can be published"
    return f"{text}; {options.server.capitalize()}" + ("; default middleware" if options.middleware else "")


def machine(python: Path) -> str:
    program = (
        "import importlib.metadata as m, platform as p; "
        "print('Python', p.python_version() + ', Django', m.version('django'))"
    )
    found = subprocess.run([str(python), "-c", program], capture_output=True, text=True)
    return f"{found.stdout.strip() or 'Python'}, {os.cpu_count()} cores, {platform.system()}"


if __name__ == "__main__":
    sys.exit(main())
