"""What the terminal shows: a timeline that grows, and below it, on a terminal, how it stands."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from watchkeeper.demo.sender import Progress
from watchkeeper.demo.summary import Summary
from watchkeeper.ledger.events import Event

COLOURS = {1: "cyan", 2: "green", 3: "magenta"}
BAR = 40  # characters
STYLES = {"promoted": "green", "rolled-back": "red", "gate-rejected": "red", "episode": "yellow"}


class Display:
    """Timeline and progress. Without a terminal, plain lines and no colours."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._start = time.monotonic()
        self._stage = ""
        self._progress: Progress | None = None
        self._before: list[tuple[float, dict[int, int]]] = []
        self._live = Live(
            console=self.console,
            get_renderable=self._now,
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
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    def stage(self, name: str) -> None:
        """Begin a stage of the story."""
        self._stage = name
        self.console.print(f"[dim]{self._clock()}[/dim] [bold]{escape(name)}[/bold]")

    def tell(self, what: str, why: str = "", *, style: str = "") -> None:
        """Add a line to the timeline."""
        line = Text.assemble((f"{self._clock()}   ", "dim"), (what, style))
        if why:
            line.append(f": {why}")
        self.console.print(line)

    def event(self, event: Event) -> None:
        """Add a decision of the system to the timeline."""
        what = event.kind
        if event.kind == "episode":
            what = f"episode {event.details['episode']} {event.details['state']}"
        elif event.kind == "step":
            what = f"step {event.details['percent']} % {event.details['verdict']}"
        who = f"v{event.version} " if event.version else ""
        self.tell(f"{who}{what}", event.reason, style=STYLES.get(event.kind, "bold"))
        if event.kind == "step" and (shares := self.shares()):
            self.tell("traffic", ", ".join(f"v{v} {share:.0%}" for v, share in shares.items()))

    def progress(self, progress: Progress) -> None:
        """Show how the traffic stands."""
        self._progress = progress
        self._before.append((time.monotonic(), dict(progress.versions)))
        while len(self._before) > 2 and self._before[0][0] < time.monotonic() - 3.0:
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
        """Show the end."""
        requests = Table(title="requests", title_justify="left")
        for column in ("protocol", "sent", "answered", "failed", "wrong", "in ledger"):
            requests.add_column(column, justify="left" if column == "protocol" else "right")
        for protocol, count in sorted(summary.requests.items()):
            requests.add_row(
                protocol,
                *map(str, (count.sent, count.answered, count.failed)),
                *map(str, (count.wrong, count.in_ledger)),
            )
        steps = Table(title="traffic steps", title_justify="left")
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
        if summary.killed:
            self.console.print(f"killed on the way: {', '.join(summary.killed)}")
        for problem in problems:
            self.console.print(f"[red]not closed:[/red] {escape(problem)}")
        if not problems:
            self.console.print("[green]the loop closed[/green]")

    def _clock(self) -> str:
        return f"{self.seconds:6.1f} s"

    def _now(self) -> RenderableType:
        if self._progress is None:
            return Text(f"{self._clock()}   {self._stage} ...", style="dim")
        counts = self._progress.requests
        text = ", ".join(
            f"{p} {c.answered}/{c.sent}" + (f" [red]{c.failed} failed[/red]" if c.failed else "")
            for p, c in sorted(counts.items())
        )
        bar = Text("traffic  ")
        for version, share in self.shares().items():
            bar.append("█" * round(share * BAR), style=COLOURS.get(version, "yellow"))
            bar.append(f" v{version} {share:.0%}  ")
        return Group(
            Text.from_markup(
                f"{self._clock()}   {escape(self._stage)} ...   {text}, "
                f"{self._progress.labels} labels"
            ),
            bar,
        )
