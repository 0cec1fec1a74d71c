"""Draw what a plan asks for in the background, and keep only what passes four gates.

>>> filling = fill(plan, "runs/viral", progress=True)          # returns at once; filling.cancel() stops it
>>> filled = filling.result()                                  # waits; the same call again goes on after a stop
>>> filled.rates()                                             # share of the images drawn that each gate turned away

The folder: `plan.yml`, one marked PNG a film kept, `gates.tsv` (every image drawn, its values at all gates and those it
failed), `run.json`, `settings.json`, and `drawn/`, from which a stopped run goes on.
"""

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medimgen import report
from medimgen.balance.gates import GATES, Gates
from medimgen.balance.planning import Plan
from medimgen.errors import CourseError
from medimgen.generate import Generator, Progress, refuse_patient_derived, reporter, save_png
from medimgen.stream import stream

TABLE, RUN, SETTINGS = "gates.tsv", "run.json", "settings.json"


@dataclass(frozen=True, eq=False)
class Filled:
    """What a fill left: `table` (one row an image drawn), `met`, and `capped`, the items that hit the cap."""

    folder: Path
    table: pd.DataFrame
    met: bool
    capped: list[int]

    def rates(self) -> dict[str, float]:
        """Share of the images drawn that each gate turned away (an image may fail several), and the share kept."""
        failed = [text.split("|") for text in self.table["failed"]]
        return {name: sum(gate in x for x in failed) / max(1, len(failed)) for name, gate in NAMES.items()}


NAMES = {**{gate: gate for gate in GATES}, "kept": ""}


class Filling:
    """A fill at work in a thread: `kept` of `wanted` films so far, `drawn` in all."""

    def __init__(self, plan: Plan, folder: Path, generator, gates: Gates, progress, local_only: bool, settings: dict):
        self.plan, self.folder, self.generator, self.gates = plan, folder, generator, gates
        self.told, self.local_only, self.settings = progress, local_only, settings
        self.wanted, self.rows, self.signs, self.error, self.filled = plan.total, [], [], None, None
        self.counts = np.zeros((len(plan.items), 2), int)  # drawn and kept of each item
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    drawn, kept = (property(lambda self, k=k: int(self.counts[:, k].sum())) for k in (0, 1))

    @property
    def running(self) -> bool:
        """Whether it is still drawing."""
        return self._thread.is_alive()

    def cancel(self) -> None:
        """Stop before the next batch; what is drawn stays, and the same call of `fill` goes on from there."""
        self._stop.set()

    def result(self, timeout: float | None = None) -> Filled:
        """Wait, at most `timeout` seconds, for the end; raises what went wrong meanwhile."""
        self._thread.join(timeout)
        if self.running:
            raise CourseError(f"{self.kept} of {self.wanted} films so far", next="wait longer, or cancel()")
        if self.error is not None:
            raise self.error
        return self.filled

    def _run(self) -> None:
        try:
            with report.run("fill", seed=self.plan.seed, parameters=self.settings) as run:
                self._draw()
                self.filled = self._ended()
                run.facts = self._facts()
            text = json.dumps(asdict(run.record), indent=1, allow_nan=False) + "\n"
            (self.folder / RUN).write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            why = f"cannot write in {self.folder}: {error.strerror or error}"
            self.error = CourseError(why, next="make room, then call fill again: it goes on from here")
        except BaseException as error:
            self.error = error

    def _draw(self) -> None:
        """In rounds: each draws what is still missing and may still be drawn."""
        for number in range(10**6):
            jobs = [
                (k, j)
                for k, (item, (drawn, kept)) in enumerate(zip(self.plan.items, self.counts.tolist(), strict=True))
                for j in range(drawn, min(drawn + item.number - kept, int(self.plan.cap * item.number)))
            ]
            pairs = [(self.plan.items[k].prompt, (self.plan.seed + 1_000_000 * k + j) % 2**32) for k, j in jobs]
            kept_in = {"folder": self.folder / "drawn" / f"{number:04d}", "local_only": self.local_only}
            done = iter(jobs)
            for result in stream(self.generator, pairs, cancel=self._stop.is_set, **kept_in):
                self._judge(result, [next(done) for _ in result.images])
                self.told(self.kept, self.wanted)
            if not jobs or self._stop.is_set():
                return

    def _judge(self, result, jobs: list[tuple[int, int]]) -> None:
        """Pass one batch through the gates, write what is kept, and note every image."""
        images, record, rows = result.images.copy(), {k: v for k, v in result.record.items() if k != "withheld"}, []
        own = [
            {"prompt": p, "seed": s, "n": 1, "seeds": [s]}
            for p, s in zip(record["prompt"], record["seeds"], strict=True)
        ]
        for i in result.record.get("withheld", ()):  # blanked when the batch was stored: drawn again, for its values
            images[i] = self.generator.make(record | own[i]).images[0]
        labels = [self.plan.items[k].label for k, _ in jobs]
        for i, row in enumerate(self.gates.values(images, labels, self.signs)):
            (k, j), label = jobs[i], "|".join(labels[i])
            path = self.folder / f"{k:02d}-{j:06d}.png"
            if not row["failed"] and not path.is_file():
                part = path.with_suffix(".part")
                save_png(part, images[i], record | own[i] | {"label": label}, local_only=self.local_only)
                part.replace(path)
            self.counts[k] += (1, not row["failed"])
            named = {"item": k, "label": label, "prompt": own[i]["prompt"], "seed": own[i]["seed"]}
            rows.append(named | row | {"file": "" if row["failed"] else path.name})
        how = {"mode": "a", "header": False} if self.rows else {}
        pd.DataFrame(rows).to_csv(self.folder / TABLE, sep="\t", index=False, lineterminator="\n", **how)
        self.rows += rows

    def _ended(self) -> Filled:
        numbers = np.array([item.number for item in self.plan.items])
        short = self.counts[:, 1] < numbers
        capped = np.flatnonzero(short & (self.counts[:, 0] >= (self.plan.cap * numbers).astype(int))).tolist()
        for k in capped:
            print(
                f"{self.plan.items[k].prompt!r}: stopped at the cap of {self.plan.cap:g} times its number.", flush=True
            )
        table = pd.DataFrame(self.rows) if self.rows else pd.DataFrame({"item": [], "failed": []})
        return Filled(self.folder, table, not short.any(), capped)

    def _facts(self) -> dict:
        rates = {name: round(x, 6) for name, x in self.filled.rates().items()}
        told = {"met": self.filled.met, "cancelled": self._stop.is_set(), "capped": self.filled.capped, "rates": rates}
        return told | {"drawn_and_kept": self.counts.tolist()}


def fill(
    plan: Plan, folder: str | Path, generator=None, gates: Gates | None = None, *, progress: Progress | bool = False,
    local_only: bool = False,
) -> Filling:  # fmt: skip
    """Start drawing `plan` into `folder`, until it is met or each item has drawn `plan.cap` times its number.

    generator : models/cxr-mini if not given; leave it alone while the fill runs. gates : `Gates.load()` if not given.
    progress : True draws a bar; a callable gets (films kept, films wanted). local_only : let an adapter's films be
    written; no export takes them.

    Raises CourseError at once for an empty plan, an adapter without `local_only`, a folder that holds something else or
    cannot be written; errors of the drawing come from `result()`.
    """
    if not plan.total:
        raise CourseError("the plan asks for no films", next="choose a higher target, or change a number in it")
    generator, gates, folder = generator or Generator.load(), gates or Gates.load(), Path(folder).expanduser()
    refuse_patient_derived(generator.stamp, local_only)
    settings = {"plan": plan.document(), "weights_sha256": generator.sha256, **generator.stamp, "gates": gates.limits}
    file, text = folder / SETTINGS, json.dumps(settings, indent=1) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (file.read_text(encoding="utf-8") != text) if file.is_file() else any(folder.iterdir()):
            raise CourseError(f"{folder} holds something else (another plan?)", next="choose a new folder")
        part = file.with_suffix(".part")
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(file)
        plan.save(folder / "plan.yml")
    except OSError as error:
        raise CourseError(f"cannot write in {folder}: {error.strerror}", next="choose another folder") from error
    return Filling(plan, folder, generator, gates, reporter(progress, plan.total, "film"), local_only, settings)
