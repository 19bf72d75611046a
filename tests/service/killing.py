"""Kills of real commands on a tiny study: how each is prepared, killed, run again, and what must be so afterwards.

Shared by the tests and by ``benchmarks/bench_kills.py``.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import itertools
import random
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from splicestore.errors import StoreNotFoundError
from splicestore.genome import Genome
from splicestore.storage import Part, StoreRoot, read_catalog
from splicestore.storage.catalog import list_pointers
from splicestore.storage.lease import read_holder
from splicestore.store import open_store
from tests.servers.kills import KilledRun, Write, processes_left, run_and_kill, splicestore_command
from tests.service.study import exon_spans, splicestore, write_study

GENOME = "toy1"

STEPS = ("lease", "parents", "plan", "metadata", "shard", "part", "manifest", "complete", "pointer", "catalogue")
"""Steps of the write sequence, by the keys that they write."""

# -- the study ---------------------------------------------------------------------------------------------------


def reannotate(folder: Path, *, genome: str = GENOME) -> None:
    """Give one gene a second transcript whose third exon starts later: one more acceptor, so other splice sites."""
    path = folder / f"{genome}.gtf.gz"
    gene = f"{genome}_chrA_300"
    attributes = f'gene_id "{gene}"; transcript_id "{gene}.2"; gene_biotype "protein_coding"; transcript_biotype "protein_coding";'
    exons = exon_spans(300)
    exons[2] = (exons[2][0] + 30, exons[2][1])
    rows = [f"chrA\ttoy\texon\t{low + 1}\t{high}\t.\t+\t.\t{attributes}" for low, high in exons]
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + "\n".join(rows).encode() + b"\n"))


TRAINING = (
    "steps: 1\nbatch_size: 8\nwarmup_steps: 1\ncheckpoint_every: 1\nmodel: {options: {channels: 4, dilations: [1]}}\n"
)

SPLIT_OPTIONS = (
    "--reference-genome",
    GENOME,
    "--test-chromosomes",
    "chrB",
    "--window-size",
    "400",
    "--context-size",
    "100",
)


@dataclass(frozen=True)
class Study:
    """Inputs of the commands, before and after the annotation changed; a model, made when first asked for."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Study:
        """Write the inputs."""
        write_study(folder / "in")
        write_study(folder / "changed")
        reannotate(folder / "changed")
        return cls(folder)

    @property
    def config(self) -> Path:
        """Configuration of ``ingest genomes``."""
        return self.folder / "in" / "genomes.json"

    @property
    def changed_config(self) -> Path:
        """The same, with the changed annotation."""
        return self.folder / "changed" / "genomes.json"

    @functools.cached_property
    def model(self) -> Path:
        """Card of a model that was trained for one step."""
        store, model = self.folder / "training", self.folder / "model"
        (self.folder / "train.yaml").write_text(TRAINING)
        splicestore("ingest", "genomes", store, self.config, check=0)
        splicestore("split", "windows", store, "run1", *SPLIT_OPTIONS, check=0)
        splicestore("train", store, "run1", self.folder / "train.yaml", "--output", model, check=0)
        return model / "card.json"


# -- places ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where stores are: a folder, or a bucket of the S3 server."""

    name: Literal["disk", "s3"]
    base: str
    options: Mapping[str, str] = field(default_factory=dict)

    def root(self, name: str) -> StoreRoot:
        """Address of a store here."""
        return StoreRoot(f"{self.base}/{name}", dict(self.options))

    @property
    def arguments(self) -> list[str]:
        """What a command needs to come here."""
        return [word for key, value in self.options.items() for word in ("--storage-option", f"{key}={value}")]

    def fill(self, name: str, objects: Mapping[str, bytes]) -> StoreRoot:
        """Make a store of these objects."""
        root = self.root(name)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: root.backend.put(*item), objects.items()))
        return root

    def remove(self, name: str) -> None:
        """Take a store away."""
        if self.name == "disk":
            shutil.rmtree(Path(self.base) / name, ignore_errors=True)
            return
        backend = self.root(name).backend
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(backend.remove, backend.sizes("")))


def objects_of(root: StoreRoot) -> dict[str, bytes]:
    """Read a store whole."""
    keys = list(root.sizes(""))
    with ThreadPoolExecutor(8) as pool:
        return {key: data or b"" for key, data in zip(keys, pool.map(root.get, keys), strict=True)}


# -- commands ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """One command line, the store it starts from, and the name that it publishes."""

    name: str
    words: tuple[str | Path, ...]
    """After the store's URL is put in place of ``STORE``."""
    path: str
    before: tuple[tuple[str | Path, ...], ...] = ()
    """Commands that make the store it starts from."""

    def line(self, root: StoreRoot, place: Place) -> list[str]:
        """Spell it for a store."""
        return splicestore_command(*spelled(self.words, root), *place.arguments)


def spelled(words: Sequence[str | Path], root: StoreRoot) -> list[str]:
    """Put a store's URL into a command."""
    return [root.url if word == "STORE" else str(word) for word in words]


COMMANDS = ("ingest", "re-ingest", "split", "predict")


def command_of(study: Study, name: str) -> Command:
    """Spell a command that is killed, one of ``COMMANDS``."""
    ingest = ("ingest", "genomes", "STORE", study.config)
    if name == "split":
        return Command(name, ("split", "windows", "STORE", "run1", *SPLIT_OPTIONS), "splits/run1", (ingest,))
    if name == "predict":
        words = ("predict", "STORE", "p1", "--model", study.model, "--device", "cpu")
        return Command(name, words, "predictions/p1", (ingest,))
    if name == "re-ingest":
        return Command(name, ("ingest", "genomes", "STORE", study.changed_config), f"genomes/{GENOME}", (ingest,))
    return Command(name, ingest, f"genomes/{GENOME}")


# -- what a reader sees ------------------------------------------------------------------------------------------


def content(root: StoreRoot, path: str) -> str | None:
    """Digest of all that a name's readers get, decoded, through the public views; None where nothing is published.

    The store is opened anew, as by a process that starts now.
    """
    try:
        store = open_store(root.url, storage_options=root.storage_options)
        kind, name = path.split("/")
        view = getattr(store, kind)[name]
    except StoreNotFoundError:
        return None
    digest = hashlib.sha256()
    for part in {"genomes": _of_genome, "splits": _of_split, "predictions": _of_predictions}[kind](view):
        if isinstance(part, np.ndarray) and part.dtype != object:
            digest.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            digest.update(str(part).encode())
    return digest.hexdigest()


def _of_genome(genome: Genome) -> Iterator[Any]:
    yield genome.generation
    yield genome.contig_names
    yield genome.gene_ids
    yield genome.read_bases(0, genome.n_bases)
    for name in (
        "gene_start",
        "gene_end",
        "gene_strand",
        "site_position",
        "site_strand",
        "site_kind",
        "block_site_ptr",
    ):
        yield getattr(genome, name)
    yield genome.array("exon_start")
    yield genome.condition_names
    yield from genome.read_usage(0, len(genome.site_position))


def _of_split(split: Any) -> Iterator[Any]:
    yield split.generation
    yield split.to_pandas().to_csv()
    yield split.genes_to_pandas().to_csv()


def _of_predictions(predictions: Any) -> Iterator[Any]:
    yield predictions.generation
    yield predictions.tasks
    yield predictions.regions_to_pandas().to_csv()
    for genome_id in predictions.genome_ids:
        genome = predictions.genome(genome_id)
        for contig, length in zip(genome.contig_names, genome.contig_length.tolist(), strict=True):
            for strand in "+-":
                yield predictions.fetch(genome_id, contig, 0, length, strand)


# -- one kill ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """A command at a place, run once without a kill: what every killed run is compared with."""

    command: Command
    place: Place
    start: Mapping[str, bytes]
    """Objects of the store before the command."""
    writes: tuple[Write, ...]
    """Of the uninterrupted run."""
    seconds: tuple[float, float]
    """Of the uninterrupted run: when a kill by the clock may come."""
    old: str | None
    new: str
    partition_of: Mapping[str, str]
    """Key of a shard or table object -> its partition."""

    def numbers(self, step: str) -> list[int]:
        """Writes of a step."""
        return [write.number for write in self.writes if step_of(write) == step]


def prepare(command: Command, place: Place) -> Scenario:
    """Run a command without a kill, and note everything."""
    root = place.root(f"{command.name}-whole")
    for words in command.before:
        splicestore(*spelled(words, root), *place.arguments, check=0)
    start = objects_of(root)
    old = content(root, command.path)
    whole = run_and_kill(command.line(root, place))
    assert whole.status == 0, whole.stderr
    new = content(root, command.path)
    assert new is not None
    assert new != old
    return Scenario(
        command, place, start, whole.writes, (0.4 * whole.seconds, whole.seconds), old, new, partitions_of(root, whole)
    )


def partitions_of(root: StoreRoot, run: KilledRun) -> dict[str, str]:
    """Partition of every object that a run wrote, from the part documents."""
    owner = {}
    for key in run.keys:
        if found := re.fullmatch(r"(.+)/parts/([^/]+)\.json", key):
            base, name = found.groups()
            owner.update({f"{base}/{k}": f"{base} {name}" for k in Part.parse(root.get(key) or b"").objects})
    return owner


def step_of(write: Write) -> str:
    """Step of the write sequence that a write belongs to."""
    key = write.key
    if key.rsplit("/", 1)[-1].startswith("lease"):
        return "lease"
    if key == "catalog.json":
        return "catalogue"
    inside = re.fullmatch(r"\w+/(?:[^/]+/)?[^/]+/[0-9a-f]{16}/(.+)", key)
    if inside is None:
        return "pointer" if write.method == "put_if" else "parents"
    name = inside.group(1)
    if name in ("plan.json", "manifest.json"):
        return name.removesuffix(".json")
    if name.startswith("parts/"):
        return "part"
    if name.endswith("zarr.json"):
        return "complete" if write.method == "put" else "metadata"
    return "shard"


@dataclass(frozen=True)
class Kill:
    """When to kill: at a write, or by the clock."""

    on_write: int | None = None
    when: Literal["before", "after"] = "before"
    after: float | None = None

    def __str__(self) -> str:
        return f"after {self.after:.2f} s" if self.after is not None else f"{self.when} write {self.on_write}"


@dataclass(frozen=True)
class Outcome:
    """A kill after which everything was as it must be."""

    kill: Kill
    step: str
    """Of the write at which it came; empty where the clock killed it, ``ended`` where it was too late."""
    saw: Literal["old", "new"]
    n_redone: int
    """Objects written by both runs."""
    seconds: float
    again_seconds: float


def kill_and_check(scenario: Scenario, kill: Kill, name: str) -> Outcome:
    """Kill a command once, look, run it again, look again.

    Raises
    ------
    AssertionError
        If a reader sees a mixture, the same command does not finish or leaves other content, more than one partition is
        written twice, a process is left, or a lease that keeps others out.
    """
    command, place = scenario.command, scenario.place
    root = place.fill(name, scenario.start)
    try:
        line = command.line(root, place)
        killed = run_and_kill(line, on_write=kill.on_write, when=kill.when, after=kill.after)
        assert processes_left(killed.marker) == []
        assert killed.status == -9 or (kill.after is not None and killed.status == 0), killed.stderr
        seen = content(root, command.path)
        assert seen in (scenario.old, scenario.new), "a reader sees neither old nor new"
        leases = [w.key for w in killed.writes if step_of(w) == "lease" and w.state == "done"]
        if killed.status == -9 and kill.after is None:
            assert all(root.get(key) is not None for key in leases), "nobody can have given the lease back"
        again = run_and_kill(line)
        assert again.status == 0, again.stderr
        assert again.orphans == ()
        assert content(root, command.path) == scenario.new
        twice = assert_little_redone(scenario, killed, again)
        # One that the killed run left may lie there where nothing was left to do; it keeps nobody out.
        assert read_holder(root, command.path) is None
        assert read_catalog(root) == list_pointers(root)
        return Outcome(
            kill=kill,
            step="ended" if killed.status == 0 else step_of(killed.killed_at) if killed.killed_at else "",
            saw="new" if seen == scenario.new else "old",
            n_redone=len(twice),
            seconds=killed.seconds,
            again_seconds=again.seconds,
        )
    except AssertionError as error:
        error.add_note(f"{command.name} on {place.name}, killed {kill}")
        raise
    finally:
        place.remove(name)


def assert_little_redone(scenario: Scenario, killed: KilledRun, again: KilledRun) -> set[str]:
    """Objects written by both runs: of one partition at most, and of none that was finished."""
    wrote = {w.key for w in killed.writes if w.state == "done" and step_of(w) == "shard"}
    finished = {
        scenario.partition_of[key]
        for w in killed.writes
        if w.state == "done" and step_of(w) == "part"
        for key in scenario.partition_of
        if scenario.partition_of[key] == part_name(w.key)
    }
    twice = wrote & {w.key for w in again.writes if step_of(w) == "shard"}
    redone = {scenario.partition_of[key] for key in twice}
    assert len(redone) <= 1, f"partitions redone: {sorted(redone)}"
    assert not redone & finished, f"finished, and redone: {sorted(redone & finished)}"
    return twice


def part_name(key: str) -> str:
    """Spell the partition of a part document as ``partitions_of`` does."""
    base, name = key.removesuffix(".json").split("/parts/")
    return f"{base} {name}"


def draw_kills(scenario: Scenario, n: int, seed: int) -> list[Kill]:
    """Draw kills: steps in turn, a write of the step and whether it is done first by chance; every fourth by the clock."""
    rng = random.Random(f"{seed} {scenario.command.name} {scenario.place.name}")
    steps = [step for step in STEPS if scenario.numbers(step)]
    rng.shuffle(steps)
    kills = []
    for i, step in zip(range(n), itertools.cycle(steps)):
        if i % 4 == 3:
            kills.append(Kill(after=rng.uniform(*scenario.seconds)))
        else:
            kills.append(Kill(on_write=rng.choice(scenario.numbers(step)), when=rng.choice(("before", "after"))))
    return kills
