"""Output of the demonstration: a timeline, and on a terminal a live status line below it."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from watchkeeper.core.events import (
    EpisodeChanged,
    Event,
    GateRejected,
    Promoted,
    RolledBack,
    StepFinished,
)
from watchkeeper.demo.messages import TrafficProgress
from watchkeeper.demo.summary import Summary

COLOURS = {1: "cyan", 2: "green", 3: "magenta"}
BAR_WIDTH = 40  # characters
SHARES_SECONDS = 3.0  # the time over which traffic shares are shown
STYLES = {Promoted: "green", RolledBack: "red", GateRejected: "red", EpisodeChanged: "yellow"}


class Display:
    """Prints the timeline, and on a terminal a status line. Elsewhere there are no colours."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._start = time.monotonic()
        self._stage = ""
        self._progress: TrafficProgress | None = None
        self._before: list[tuple[float, dict[int, int]]] = []
        self._live = Live(
            console=self.console,
            get_renderable=self._status,
            refresh_per_second=2,
            transient=True,
            auto_refresh=self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def stage(self, name: str) -> None:
        """Start a stage."""
        self._stage = name
        self.console.print(f"[dim]{self._clock()}[/dim] [bold]{escape(name)}[/bold]")

    def log(self, what: str, why: str = "", *, style: str = "") -> None:
        """Add a line to the timeline."""
        line = Text.assemble((f"{self._clock()}   ", "dim"), (what, style))
        if why:
            line.append(f": {why}")
        self.console.print(line)

    def event(self, event: Event) -> None:
        """Add an event to the timeline."""
        match event.details:
            case EpisodeChanged(episode=episode, state=state):
                what = f"episode {episode} {state}"
            case StepFinished(percent=percent, verdict=verdict):
                what = f"step {percent} % {verdict}"
            case _:
                what = event.kind
        version = f"v{event.version} " if event.version else ""
        self.log(f"{version}{what}", event.reason, style=STYLES.get(type(event.details), "bold"))
        if isinstance(event.details, StepFinished) and (shares := self.shares()):
            self.log("traffic", ", ".join(f"v{v} {share:.0%}" for v, share in shares.items()))

    def progress(self, progress: TrafficProgress) -> None:
        """Show the progress of the traffic."""
        self._progress = progress
        self._before.append((time.monotonic(), dict(progress.versions)))
        while len(self._before) > 2 and self._before[0][0] < time.monotonic() - SHARES_SECONDS:
            self._before.pop(0)

    def shares(self) -> dict[int, float]:
        """Return the share of each version in the answers of the last seconds."""
        if len(self._before) < 2:
            return {}
        first, last = self._before[0][1], self._before[-1][1]
        fresh = {version: last[version] - first.get(version, 0) for version in sorted(last)}
        total = sum(fresh.values())
        return {v: number / total for v, number in fresh.items() if number} if total else {}

    def summary(self, summary: Summary, problems: list[str]) -> None:
        """Print the summary and its problems."""
        requests = Table(title="requests", title_justify="left")
        for column in ("protocol", "sent", "answered", "failed", "wrong", "in ledger"):
            requests.add_column(column, justify="left" if column == "protocol" else "right")
        for protocol, count in sorted(summary.requests.items()):
            requests.add_row(
                protocol,
                *map(str, (count.sent, count.answered, count.failed)),
                *map(str, (count.wrong, count.in_ledger)),
            )
        steps = Table(title="canary steps", title_justify="left")
        for column in ("version", "percent", "HTTP to it", "gRPC to it", "verdict"):
            steps.add_column(column)
        for step in summary.steps:
            steps.add_row(
                f"v{step.version}",
                f"{step.percent} %",
                f"{step.http_canary} of {step.http_requests}",
                f"{step.grpc_canary} of {step.grpc_requests}",
                step.verdict,
            )
        self.console.print(requests, steps)
        self.console.print(
            f"promoted {summary.promoted}, rolled back {summary.rolled_back}, "
            f"{summary.episodes} episode, {summary.jobs} training runs, "
            f"{summary.versions} versions, {summary.labels} labels; "
            f"shares p = {summary.shares_p_value:.3g}; {summary.duration_s:.0f} s"
        )
        if summary.skipped:
            self.console.print(
                f"{summary.skipped} requests were not sent: this machine was too busy for the rate"
            )
        if summary.killed:
            self.console.print(f"killed: {', '.join(summary.killed)}")
        for problem in problems:
            self.console.print(f"[red]problem:[/red] {escape(problem)}")
        if not problems:
            self.console.print("[green]the loop closed[/green]")

    def _clock(self) -> str:
        return f"{self.seconds:6.1f} s"

    def _status(self) -> RenderableType:
        if self._progress is None:
            return Text(f"{self._clock()}   {self._stage} ...", style="dim")
        counts = self._progress.requests
        text = ", ".join(
            f"{p} {c.answered}/{c.sent}" + (f" [red]{c.failed} failed[/red]" if c.failed else "")
            for p, c in sorted(counts.items())
        )
        bar = Text("traffic  ")
        for version, share in self.shares().items():
            bar.append("█" * round(share * BAR_WIDTH), style=COLOURS.get(version, "yellow"))
            bar.append(f" v{version} {share:.0%}  ")
        return Group(
            Text.from_markup(
                f"{self._clock()}   {escape(self._stage)} ...   {text}, "
                f"{self._progress.labels} labels"
            ),
            bar,
        )
