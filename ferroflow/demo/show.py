"""``ferroflow demo``: the whole loop in one command, with promises that it keeps or fails on."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import Console

from ferroflow.adapters import run_log
from ferroflow.adapters.home import Home
from ferroflow.adapters.processes import Stack, signals_end
from ferroflow.adapters.services import any_port
from ferroflow.adapters.settings import Settings
from ferroflow.adapters.storage import atomic_bytes
from ferroflow.core.demonstration import Demonstration
from ferroflow.core.errors import PromiseBroken, SourceUnavailable
from ferroflow.core.spec import PipelineSpec
from ferroflow.demo.screen import Screen
from ferroflow.demo.story import Story
from ferroflow.demo.world import World, find

_SEARCH_MINUTES = 0.25  # each search; a real one takes what the pipeline's spec says
_EMBEDDED = {"online_store": SecretStr("sqlite"), "feature_registry": SecretStr("sqlite")}
_MARK = "demonstration"  # a file that says: this home is the demonstration's, and may be made anew


def run_demo(settings: Settings, *, as_json: bool) -> None:
    """Run the demonstration and write ``demo.json``.

    Raises:
        PromiseBroken: it ran, and a promise failed.
    """
    console = Console(stderr=as_json)
    screen = Screen(console)
    home = _fresh(settings)
    spec, story_of_it = find()
    console.print(f"\n[bold]Ferroflow[/bold]: {spec.description}\n[dim]state: {home.root}[/dim]\n", highlight=False)
    settings, world = _world(settings, spec, story_of_it, home, screen)
    story = Story(spec, world, home, settings, screen)
    stack = Stack(settings)
    try:
        with signals_end():
            _tell(story, stack)
    finally:
        console.print("[dim]stopping the servers[/dim]")
        run_log.hand_over()
        stack.stop()
    _finish(story, Path(settings.home).parent / "demo.json", console, as_json)


def _fresh(settings: Settings) -> Home:
    """A home of its own, made anew: what an earlier demonstration left is removed, downloads excepted."""
    home = Home(settings.home / "demo")
    inner = settings.model_copy(update={"home": home.root})
    Stack(inner).stop()  # what a killed demonstration left running
    if (home.root / _MARK).exists():
        for entry in home.root.iterdir():
            if entry != home.downloads:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    home.root.mkdir(parents=True, exist_ok=True)
    atomic_bytes(home.root / _MARK, b"Made by `ferroflow demo`, which also removes it.\n")
    return home


def _world(
    settings: Settings, spec: PipelineSpec, story: Demonstration, home: Home, screen: Screen
) -> tuple[Settings, World]:
    """Real files when they can be had; else the simulator, and it is said."""
    prefect = any_port(set())  # whatever is free: a story that runs beside `ferroflow up` must not take its ports
    ports = {"prefect_port": prefect, "service_port": any_port({prefect})}
    inner = settings.model_copy(
        update={"home": home.root, "minutes": settings.minutes or _SEARCH_MINUTES, **ports, **_EMBEDDED},
    )
    try:
        return inner, World.open(spec, story, home, inner)
    except SourceUnavailable as error:
        if spec.source.simulator is None:
            raise
        screen.announce(
            f"No real data: {error}\nThe pipeline's simulator takes its place: same schema, seeded, dirty too."
        )
        inner = inner.model_copy(update={"simulate": True})
        return inner, World.open(spec, story, home, inner)


def _tell(story: Story, stack: Stack) -> None:
    screen, told = story.screen, story.world.story
    quiet, harmless, harm, _ = told.days
    with ThreadPoolExecutor(1) as pool:  # the servers start while the files are read
        servers = pool.submit(stack.start, services=("prefect", "worker", "service"), schedules=False)
        with screen.beat("data", "Dirty data arrives, and every row is accounted for"):
            story.data()
        with screen.beat("servers", "Prefect, a worker with every deployment, and the prediction service"):
            servers.result()
    os.environ.update(stack.environment())
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"  # the story is told by us; Prefect shows its logs
    address = stack.addresses["service"]
    screen.say(f"Prefect {stack.addresses['prefect']}   service {address}")
    with screen.beat("train", "Features, search, gate, registry, package: the flow `train`"):
        story.train()
    with screen.beat("serve", "The service takes the champion up"):
        story.serve(address)
        first = story.champion_version()
    with screen.beat("replay", "Held-back days are replayed over HTTP, in time order"):
        story.live(quiet, "quiet")
        story.watch()
    with screen.beat("harmless", "Harmless drift"):
        screen.announce(told.told_harmless)
        story.live(harmless, "harmless")
        report = story.watch()
        drifted = [column.column for column in report.drift if column.drifted]
        story.told["harmless"] = {"alerted": report.alarm != "none", "why": report.why, "drifted": drifted}
    with screen.beat("harm", "Harm"):
        screen.announce(f"[bold]{told.told_harm}[/bold]")
        _harm(story, harm)
    if story.told["harm"]["alerted"]:
        with screen.beat("retrain", "Alarm → event → retrain on Prefect's worker → gate → hot swap under load"):
            story.repaired(address)
        with screen.beat("recover", "The error recovers"):
            story.recovered(first)
            story.watch()
    story.told["harm"]["alerts"] = story.alerts
    with screen.beat("skew", "Training and serving agree"):
        story.compared()
    story.counted()


def _harm(story: Story, days: int) -> None:
    """Day by day, as the schedule would look; one bad day is not yet an alarm."""
    for _ in range(days):
        story.live(1, "harm")
        report = story.watch()
        story.told["harm"] = {"alerted": report.alarm != "none", "alerts": story.alerts, "why": report.why}
        if report.alarm != "none":
            break


def promises(told: dict[str, Any]) -> dict[str, tuple[bool, str]]:
    """Every promise of the demonstration, from its numbers: kept or not, and the number."""
    rows, quality, served = told["rows"], told["quality"], told["served"]
    retrain, swap, skew = told.get("retrain", {}), told.get("swap", {}), told["skew"]
    before, after = retrain.get("rmse_before"), retrain.get("rmse_after")
    test, baseline = quality["test_rmse"], quality["baseline_test_rmse"]
    return {
        "every row is accounted for": (
            rows["in"] == rows["accepted"] + rows["quarantined"] and rows["in"] > 0,
            f"{rows['in']:,} = {rows['accepted']:,} + {rows['quarantined']:,}",
        ),
        "the model beats the baseline": (test < baseline, f"{test:.2f} < {baseline:.2f}"),
        "no request failed": (
            served["failed"] == 0 and served["requests"] > 0,
            f"{served['failed']} of {served['requests']:,}",
        ),
        "harmless drift was seen and raised no alarm": (
            bool(told["harmless"]["drifted"]) and not told["harmless"]["alerted"],
            told["harmless"]["why"],
        ),
        "harm raised one alarm": (told["harm"]["alerted"] and told["harm"]["alerts"] == 1, str(told["harm"]["alerts"])),
        "a challenger was promoted": (bool(retrain.get("promoted")), str(retrain.get("why", "no retraining"))),
        "the error recovered on the same rows": (
            before is not None and after < before,
            "nothing to compare" if before is None else f"{before:.2f} → {after:.2f}",
        ),
        "the swap lost no request": (
            swap.get("failed") == 0 and swap.get("requests", 0) > 0 and len(swap.get("versions", ())) > 1,
            f"{swap.get('failed')} of {swap.get('requests', 0):,}, by versions {sorted(swap.get('versions', ()))}",
        ),
        "training and serving saw the same": (
            skew["mismatched"] == 0 and skew["compared"] > 0 and skew["left_out"] == 0,
            f"{skew['mismatched']} of {skew['compared']:,} values differ, {skew['left_out']} vectors not compared",
        ),
    }


def _finish(story: Story, path: Path, console: Console, as_json: bool) -> None:
    import orjson

    kept = promises(story.told)
    story.screen.promises(kept)
    story.told["promises"] = {name: passed for name, (passed, _) in kept.items()}
    story.told["seconds"] = story.screen.seconds | {"total": story.screen.total}
    data = orjson.dumps(story.told, option=orjson.OPT_INDENT_2)
    atomic_bytes(path, data)
    console.print(f"\n{story.screen.total:.0f} s. Numbers: {path}", highlight=False, soft_wrap=True)
    console.print(f"Look at it all: ferroflow up --home {story.home.root}", highlight=False, soft_wrap=True)
    if as_json:
        Console().print_json(data.decode())
    broken = [name for name, (passed, _) in kept.items() if not passed]
    if broken:
        raise PromiseBroken(f"{len(broken)} of {len(kept)} promises failed: {'; '.join(broken)}.")
