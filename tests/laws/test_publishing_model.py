"""Publishing, checked exhaustively: every kill, every interleaving of two writers, a reader after each step.

What runs is the code itself. A command is deterministic but for the answers that the store gives it, so run again with the
answers recorded so far it stops at its next operation: that makes it a state machine, and two of them with one store a graph
of states small enough to be walked whole, with a kill as one more move. The same commands in real threads, handed one
operation at a time, must end where the walk says.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import shutil
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import zarr
import zarr.storage
from zarr.buffer.cpu import Buffer

from splicestore.errors import PointerMovedError, SpliceStoreError
from splicestore.genome import Genome
from splicestore.ingest import ingest_genomes, ingest_usage, load_genomes_config
from splicestore.schema import ArraySpec, Plan
from splicestore.storage import Part, Publication, StoreRoot, finalise, partitions, publish, read_catalog, read_pointer
from splicestore.storage import lease as lease_module
from splicestore.storage.backends import Tagged
from splicestore.storage.catalog import list_name, list_pointers, rebuild_catalog
from splicestore.storage.lease import write_lease
from splicestore.storage.publish import group_document, next_pointer, read_group
from splicestore.storage.sealed import seal_document
from tests.service.killing import reannotate
from tests.service.study import write_study

PAGE = Path(__file__).resolve().parents[2] / "docs" / "design" / "002-publishing.md"

# -- a store in a dict, whose every operation passes a gate ------------------------------------------------------


class DictBackend:
    """Keys in a dict; the version of a document is its bytes."""

    # Documents are asked for one after another, in this thread.
    is_local = True
    swaps = True

    def __init__(self, objects):
        self.objects = objects

    def get(self, key):
        data = self.objects.get(key)
        return None if data is None else Tagged(data, data)

    def get_range(self, key, start, length):
        if key not in self.objects:
            raise FileNotFoundError(key)
        return self.objects[key][start : start + length]

    def get_suffix(self, key, length):
        return self.objects[key][-length:] if key in self.objects else None

    def put(self, key, data):
        self.objects[key] = data

    def create(self, key, data):
        return self.put_if(key, data, None)

    def put_if(self, key, data, tag):
        if self.objects.get(key) != tag:
            return False
        self.objects[key] = data
        return True

    def size(self, key):
        return len(self.objects[key]) if key in self.objects else None

    def sizes(self, prefix):
        base = f"{prefix}/" if prefix else ""
        return {key[len(base) :]: len(data) for key, data in self.objects.items() if key.startswith(base)}

    def children(self, prefix):
        return sorted({key.split("/", 1)[0] for key in self.sizes(prefix)})

    def remove(self, key):
        self.objects.pop(key, None)

    def zarr_store(self, prefix, *, read_only):
        base = f"{prefix}/" if prefix else ""
        held = {key: Buffer.from_bytes(self.objects[base + key]) for key in self.sizes(prefix)}
        return zarr.storage.MemoryStore(held, read_only=read_only)


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a method of ``StoreRoot`` that touches the store."""

    method: str
    key: str
    arguments: tuple = ()

    @property
    def writes(self):
        return self.method in ("put", "create", "put_if", "remove")

    def __str__(self):
        return f"{self.method} {self.key}"


class GatedRoot(StoreRoot):
    """A store in a dict: each operation is handed to a gate, with the function that does it."""

    @classmethod
    def over(cls, objects, gate=lambda operation, do: do()):
        root = cls("model://store")
        root.__dict__.update(backend=DictBackend(objects), gate=gate)
        return root

    def remove(self, keys):
        for key in keys:
            self.gate(Operation("remove", key), lambda key=key: StoreRoot.remove(self, [key]))


def _gated(method):
    def call(self, key, *arguments):
        return self.gate(Operation(method, key, arguments), lambda: getattr(StoreRoot, method)(self, key, *arguments))

    return call


for _method in ("read", "get_range", "get_suffix", "sizes", "size", "children", "put", "create", "put_if"):
    setattr(GatedRoot, _method, _gated(_method))


class Killed(BaseException):
    """What a killed process does from then on: nothing, not even its cleaning up."""


class Life:
    """A gate that counts writes, looks after each, and ends the process before or after the k-th."""

    def __init__(self, *, at=None, when="before", after_write=lambda operation: None):
        self.at, self.when, self.after_write = at, when, after_write
        self.writes = []
        self.is_over = False

    def __call__(self, operation, do):
        if self.is_over:
            raise Killed
        if not operation.writes:
            return do()
        is_last = len(self.writes) + 1 == self.at
        if is_last and self.when == "before":
            self.is_over = True
            raise Killed
        answer = do()
        self.writes.append(operation)
        self.after_write(operation)
        if is_last:
            self.is_over = True
            raise Killed
        return answer


# -- the commands ------------------------------------------------------------------------------------------------

ROWS = ("rows-0", "rows-1")


def plan_of(seed):
    return Plan("split", 1, (), {"genomes/a": "0" * 16}, {"seed": seed}, {})


def publishing(seed, *, path="splits/run1", digest=None):
    """A command that publishes two partitions, as the services do; says whether it switched."""

    def command(root):
        specs = [ArraySpec("window_start", (4,), ("window",), "int64", (2,))]
        publication = Publication(root, path, plan_of(seed), specs, {"seed": seed}, pointer_digest=digest)
        if not publication.is_complete():
            publication.begin()
            for row, name in enumerate(ROWS):
                if not publication.has_part(name):
                    writer = publication.partition(name)
                    writer.write("window_start", np.array([2, 3]) + 10 * seed + 2 * row, 2 * row)
                    writer.close()
            publication.finalise(ROWS)
        return publication.switch()

    return command


OLD, NEW, OTHER = 1, 2, 3
RUN = "splits/run1"


def published(*commands):
    """Objects of a store after some commands."""
    objects = {}
    for command in commands:
        command(GatedRoot.over(objects))
    return objects


@pytest.fixture(scope="module", autouse=True)
def _still_time():
    """One moment for ever: what a command writes is decided by what the store told it."""

    class Moment(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 1, tzinfo=UTC)

    with pytest.MonkeyPatch.context() as patch:
        for module in (publish, finalise):
            patch.setattr(module, "datetime", Moment)
        yield


@pytest.fixture
def _encoded_once(monkeypatch):
    """Encode equal values once: commands are run again thousands of times, and zarr would be all they do."""
    encode, complete, spell = partitions.encode_box, finalise.complete_metadata, Publication._metadata_documents
    known = {}

    def spelled(values):
        return values.tobytes() if isinstance(values, np.ndarray) and values.dtype != object else tuple(values)

    def remember(key, make):
        if key not in known:
            known[key] = make()
        return dict(known[key])

    monkeypatch.setattr(
        partitions, "encode_box", lambda s, b, v: remember(("box", str(s), str(b), spelled(v)), lambda: encode(s, b, v))
    )
    monkeypatch.setattr(
        finalise,
        "complete_metadata",
        lambda d, a: remember((tuple(sorted(d.items())), json.dumps(a, sort_keys=True)), lambda: complete(d, a)),
    )
    monkeypatch.setattr(
        Publication,
        "_metadata_documents",
        lambda self: remember((self.base, json.dumps(self.attributes, sort_keys=True)), lambda: spell(self)),
    )


# -- the reader --------------------------------------------------------------------------------------------------


@functools.cache
def _decoded(objects):
    group = zarr.open_group(DictBackend(dict(objects)).zarr_store("", read_only=True), mode="r", zarr_format=3)
    return tuple(group["window_start"][...].tolist())


def read(objects, path=RUN, digest=None):
    """What a reader sees of a name: None where nothing is published, else the rows of a complete generation."""
    root = GatedRoot.over(objects)
    pointer = read_pointer(root, path)
    generation = None if pointer is None else pointer.generation(digest)
    if generation is None:
        return None
    found = read_group(root, f"{path}/{generation}")
    assert found is not None, "the pointer names a generation that is not there"
    assert found[0]["status"] == "complete"
    assert "consolidated_metadata" in json.loads(found[1])
    base = f"{path}/{generation}/"
    return _decoded(frozenset((key[len(base) :], data) for key, data in objects.items() if key.startswith(base)))


def rows_of(seed):
    return tuple(np.array([2, 3, 4, 5]) + 10 * seed)


def assert_catalogue_is_the_pointers(objects):
    root = GatedRoot.over(objects)
    assert read_catalog(root) == list_pointers(root)


# -- (a) the sequence --------------------------------------------------------------------------------------------


def leased(command, path=RUN):
    def run(root):
        with write_lease(root, path):
            return command(root)

    return run


def writes_of(command, objects):
    life = Life()
    command(GatedRoot.over(objects, life))
    return life.writes


def test_the_sequence_of_writes_is_this_one():
    generation = plan_of(NEW).generation
    base = f"splits/run1/{generation}"
    assert [str(w) for w in writes_of(leased(publishing(NEW)), {})] == [
        "create splits/run1/lease.json",
        "create zarr.json",
        "create splits/zarr.json",
        f"create {base}/plan.json",
        f"create {base}/zarr.json",
        f"create {base}/window_start/zarr.json",
        f"put {base}/window_start/c/0",
        f"put {base}/parts/rows-0.json",
        f"put {base}/window_start/c/1",
        f"put {base}/parts/rows-1.json",
        f"put {base}/manifest.json",
        f"put {base}/zarr.json",
        "put_if splits/run1/zarr.json",
        "put_if catalog.json",
        "remove splits/run1/lease.json",
    ]


def test_the_page_shows_this_sequence():
    """The rows of the table that name a key are, in order, what the code writes."""
    shown = re.findall(r"^\| \d+ \| `([^`]+)` \| (\w+)", PAGE.read_text(), flags=re.M)
    generation = plan_of(NEW).generation
    spelled = []
    for write in writes_of(leased(publishing(NEW)), {}):
        key = write.key.replace(generation, "<generation>").replace("window_start", "<array>")
        key = re.sub(r"rows-\d", "<p>", re.sub(r"c/\d", "c/<unit>", key)).replace("splits/run1", "<kind>/<name>")
        spelled.append((re.sub(r"^splits\b", "<kind>", key), write.method))
    # Parents are one row, each partition repeats its two.
    assert shown == list(dict.fromkeys(spelled))


def test_nothing_is_written_where_all_is_done():
    objects = published(publishing(NEW))
    before = dict(objects)
    assert writes_of(publishing(NEW), objects) == []
    assert objects == before


# -- (b) every kill of one writer --------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "second"])
def test_every_kill_leaves_old_or_new_and_the_same_command_finishes(is_first, when):
    start = {} if is_first else published(publishing(OLD))
    old, new = read(start), rows_of(NEW)
    whole = dict(start)
    sequence = writes_of(publishing(NEW), whole)
    base = f"{RUN}/{plan_of(NEW).generation}/"
    outcomes = Counter()
    for at in range(1, len(sequence) + 1):
        objects = dict(start)
        life = Life(at=at, when=when)
        with pytest.raises(Killed):
            publishing(NEW)(GatedRoot.over(objects, life))
        assert life.writes == sequence[: at - (when == "before")]
        seen = read(objects)
        assert seen in (old, new)
        outcomes[seen] += 1
        finished = {w.key for w in life.writes if "/parts/" in w.key}
        again = writes_of(publishing(NEW), objects)
        assert objects == whole, "not what an uninterrupted run leaves"
        assert_catalogue_is_the_pointers(objects)
        redone = {w.key for w in again} & {w.key for w in life.writes if w.method == "put" and "/c/" in w.key}
        # At most the partition that was being written: its shard was there, its part was not.
        assert len(redone) <= 1
        assert not finished & {w.key for w in again}
        assert all(w.key.startswith(base) or w.key in ("zarr.json", "splits/zarr.json", f"{RUN}/zarr.json", "catalog.json")
                   for w in again)  # fmt: skip
    assert set(outcomes) == {old, new}


# -- the walk ----------------------------------------------------------------------------------------------------


class Paused(BaseException):
    """The recorded answers are used up; carries the operation that comes next."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its value, or the error that it told its caller."""

    value: object = None
    error: type | None = None


class Writer:
    """A command as a state machine: from the answers it has been given to its next operation, or to its end.

    What it has been given is a number, so that states are small; 0 is nothing yet.
    """

    def __init__(self, command):
        self.command = command
        self._given = [()]
        self._number = {}
        self._next = {}

    def told(self, number, answer):
        """Number of what it has been given, one answer later."""
        if (number, answer) not in self._number:
            self._number[number, answer] = len(self._given)
            self._given.append((*self._given[number], answer))
        return self._number[number, answer]

    def after(self, number):
        if number not in self._next:
            self._next[number] = self._replay(iter(self._given[number]))
        return self._next[number]

    def _replay(self, answers):
        def gate(operation, do):
            try:
                return thaw(next(answers))
            except StopIteration:
                raise Paused(operation) from None

        try:
            return Ended(self.command(GatedRoot.over({}, gate)))
        except Paused as pause:
            return pause.args[0]
        except SpliceStoreError as error:
            return Ended(error=type(error))


def freeze(answer):
    return (
        tuple(sorted(answer.items()))
        if isinstance(answer, dict)
        else tuple(answer)
        if isinstance(answer, list)
        else answer
    )


def thaw(answer):
    if not isinstance(answer, tuple):
        return answer
    return dict(answer) if answer and isinstance(answer[0], tuple) else list(answer) if answer else {}


class Stores:
    """Every content that the store had so far, by number."""

    def __init__(self):
        self.objects = []
        self._number = {}
        self._done = {}

    def number(self, objects):
        key = frozenset(objects.items())
        if key not in self._number:
            self._number[key] = len(self.objects)
            self.objects.append(objects)
        return self._number[key]

    def perform(self, number, operation):
        """Do one operation: the store after it, and the answer."""
        if (number, operation) not in self._done:
            held = dict(self.objects[number])
            assert_only_what_may_change_changes(held, operation)
            answer = getattr(GatedRoot.over(held), operation.method)(operation.key, *operation.arguments)
            self._done[number, operation] = (self.number(held) if operation.writes else number), freeze(answer)
        return self._done[number, operation]


def walk(commands, start, *, mortal=(), look):
    """Visit every state that some interleaving reaches.

    Parameters
    ----------
    mortal
        Writers of whom one may be killed, at any moment.
    look
        Called with the objects of each store content, once.

    Returns
    -------
    ends : list of (objects, how each writer ended; None: killed)
        States in which nobody has anything left to do.
    n_states
    """
    writers, stores = [Writer(command) for command in commands], Stores()
    first = (stores.number(dict(start)), (0,) * len(writers), None)
    seen, stack, ends = {first}, [first], []
    while stack:
        store, given, dead = stack.pop()
        ahead = [None if i == dead else w.after(g) for i, (w, g) in enumerate(zip(writers, given, strict=True))]
        moving = [i for i, step in enumerate(ahead) if isinstance(step, Operation)]
        if not moving:
            ends.append((stores.objects[store], ahead))
        following = [(store, given, i) for i in moving if i in mortal and dead is None]
        for i in moving:
            after, answer = stores.perform(store, ahead[i])
            following.append((after, (*given[:i], writers[i].told(given[i], answer), *given[i + 1 :]), dead))
        for state in following:
            if state not in seen:
                seen.add(state)
                stack.append(state)
    for objects in stores.objects:
        look(objects)
    return ends, len(seen)


@functools.cache
def _is_complete(document):
    return json.loads(document)["attributes"]["splicestore"]["status"] == "complete"


def assert_only_what_may_change_changes(objects, operation):
    """A reader holds a generation as long as it likes: of a complete one no byte changes but its manifest's provenance."""
    base = re.match(r"(\w+/.*?\b[0-9a-f]{16})/", operation.key)
    if not operation.writes or base is None or operation.key.endswith("manifest.json"):
        return
    group = objects.get(f"{base.group(1)}/zarr.json")
    if group is not None and _is_complete(group) and operation.method != "create":
        assert objects.get(operation.key) == operation.arguments[0], f"{operation} changes a complete generation"


def end_of(command, objects):
    """Run a command to its end."""
    try:
        return Ended(command(GatedRoot.over(objects)))
    except SpliceStoreError as error:
        return Ended(error=type(error))


# -- (c) two writers ---------------------------------------------------------------------------------------------

PAIRS = {"twins": (NEW, NEW), "others": (NEW, OTHER)}


def walk_pair(seeds, start, *, mortal):
    """Two writers of one name; in whatever state a reader comes, it sees a whole generation, and what is listed is there."""
    allowed = {read(start), *(rows_of(seed) for seed in seeds)}

    def look(objects):
        assert read(objects) in allowed
        for name in read_catalog(GatedRoot.over(objects))["splits"]:
            assert read(objects, f"splits/{name}") is not None

    return walk([publishing(seed) for seed in seeds], start, mortal=mortal, look=look)


def assert_fair_end(objects, seeds, ahead):
    """One generation is current and whole; a writer whose generation is not was told, or replaced by one who knew it."""
    seen = read(objects)
    pointer = read_pointer(GatedRoot.over(objects), RUN)
    for seed, end in zip(seeds, ahead, strict=True):
        if end is not None:
            assert end.error in (None, PointerMovedError)
            assert end.error or seen == rows_of(seed) or plan_of(seed).generation in pointer.superseded
    if None not in ahead:
        assert seen in [rows_of(seed) for seed, end in zip(seeds, ahead, strict=True) if end.error is None]
        assert_catalogue_is_the_pointers(objects)


def assert_killed_command_finishes(objects, seed):
    assert end_of(publishing(seed), objects).error is None
    assert read(objects) == rows_of(seed)
    assert_catalogue_is_the_pointers(objects)


def check_two_writers(seeds, start):
    ends, n_states = walk_pair(seeds, start, mortal=(0, 1)[: len(set(seeds))])
    assert n_states > 2_000
    survived, again = Counter(), {}
    for objects, ahead in ends:
        assert_fair_end(objects, seeds, ahead)
        if None in ahead:
            # Many ways lead to one content: the killed command is run again on each once.
            again[frozenset(objects.items()), ahead.index(None)] = objects
        else:
            survived[tuple(end.error for end in ahead)] += 1
    for (_, killed), objects in again.items():
        assert_killed_command_finishes(dict(objects), seeds[killed])
    told = [(PointerMovedError, None), (None, PointerMovedError)] if len(set(seeds)) == 2 else []
    assert set(survived) == {(None, None), *told}


@pytest.mark.usefixtures("_encoded_once")
@pytest.mark.parametrize(
    ("seeds", "is_first"),
    [
        pytest.param(PAIRS["others"], True, id="others-first"),
        pytest.param(PAIRS["others"], False, id="others-second"),
        pytest.param(PAIRS["twins"], True, id="twins-first", marks=pytest.mark.slow),
        pytest.param(PAIRS["twins"], False, id="twins-second"),
    ],
)
def test_two_writers_in_every_interleaving_one_of_them_killed_anywhere(seeds, is_first):
    check_two_writers(seeds, {} if is_first else published(publishing(OLD)))


def check_two_names(start):
    commands = [publishing(NEW), publishing(OTHER, path="splits/run2")]
    ends, n_states = walk(commands, start, look=lambda objects: (read(objects), read(objects, "splits/run2")))
    assert n_states > 600
    for objects, _ in ends:
        assert_catalogue_is_the_pointers(objects)
        assert set(read_catalog(GatedRoot.over(objects))["splits"]) == {"run1", "run2"}
        assert (read(objects), read(objects, "splits/run2")) == (rows_of(NEW), rows_of(OTHER))


@pytest.mark.usefixtures("_encoded_once")
@pytest.mark.parametrize("swaps", [True, False], ids=["swap", "list"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "second"])
def test_two_names_at_once_are_both_listed(swaps, is_first, monkeypatch):
    """Entered by compare-and-swap, and where the storage cannot swap from listings until two agree."""
    monkeypatch.setattr(DictBackend, "swaps", swaps)
    check_two_names({} if is_first else published(publishing(OLD), publishing(OLD, path="splits/run2")))


PANEL = "usage/toy/main"


@pytest.mark.usefixtures("_encoded_once")
def test_writers_of_two_digests_lose_neither_entry():
    """A panel's pointer is a map: whoever is told that it moved runs again, and no entry is ever lost or replaced."""
    digests = {NEW: "n" * 8, OTHER: "o" * 8}
    commands = {seed: publishing(seed, path=PANEL, digest=digest) for seed, digest in digests.items()}
    start = published(publishing(OLD, path=PANEL, digest="old"))

    def look(objects):
        assert read(objects, PANEL, "old") == rows_of(OLD)
        for seed, digest in digests.items():
            assert read(objects, PANEL, digest) in (None, rows_of(seed))

    ends, _ = walk(commands.values(), start, mortal=(0, 1), look=look)
    seen = set()
    for objects, ahead in ends:
        for (seed, command), end in zip(commands.items(), ahead, strict=True):
            seen.add(end and end.error)
            if end is None or end.error is not None:
                assert end_of(command, objects) in (Ended(True), Ended(False))
            else:
                assert read(objects, PANEL, digests[seed]) == rows_of(seed)
        look(objects)
        assert None not in {read(objects, PANEL, digest) for digest in digests.values()}
        assert_catalogue_is_the_pointers(objects)
    assert seen == {None, PointerMovedError}


# -- the same in threads -----------------------------------------------------------------------------------------


def in_threads(commands, objects, choose, after_step):
    """Run commands in threads of their own that do one operation at a time, the writer whom ``choose`` names next.

    Returns
    -------
    how each ended
    """
    arrived = threading.Semaphore(0)
    turns = [threading.Semaphore(0) for _ in commands]
    ends = [None] * len(commands)

    def gate_of(i):
        def gate(operation, do):
            arrived.release()
            turns[i].acquire()
            return do()

        return gate

    def work(i):
        try:
            ends[i] = Ended(commands[i](GatedRoot.over(objects, gate_of(i))))
        except SpliceStoreError as error:
            ends[i] = Ended(error=type(error))
        finally:
            arrived.release()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(commands))]
    for thread in threads:
        thread.start()
        arrived.acquire()
    while waiting := [i for i, end in enumerate(ends) if end is None]:
        turns[choose(waiting)].release()
        arrived.acquire()
        after_step(objects)
    for thread in threads:
        thread.join()
    return ends


def preempting(first, stays):
    """A schedule: ``first`` does so many operations, then the other so many, and so on; the last runs to its end."""
    at, left = first, list(stays)

    def choose(waiting):
        nonlocal at
        if left and left[0] == 0:
            left.pop(0)
            at = 1 - at
        if left:
            left[0] -= 1
        return at if at in waiting else waiting[0]

    return choose


def n_operations(command, objects):
    met = []
    command(GatedRoot.over(dict(objects), lambda operation, do: met.append(operation) or do()))
    return len(met)


def check_schedules(seeds, preemptions, stride=1):
    start = published(publishing(OLD))
    commands = [publishing(seed) for seed in seeds]
    walked, _ = walk_pair(seeds, start, mortal=())
    known = {(frozenset(objects.items()), tuple(ahead)) for objects, ahead in walked}
    allowed = {rows_of(OLD), *(rows_of(seed) for seed in seeds)}

    def look(objects):
        assert read(objects) in allowed

    stays = range(1, n_operations(commands[0], start) + 1, stride)
    schedules = [(first, times) for first in (0, 1) for times in itertools.product(stays, repeat=preemptions)]
    for first, times in schedules:
        objects = dict(start)
        ends = in_threads(commands, objects, preempting(first, times), look)
        assert_fair_end(objects, seeds, ends)
        assert (frozenset(objects.items()), tuple(ends)) in known, "the walk did not come by here"
    return len(schedules)


@pytest.mark.usefixtures("_encoded_once")
def test_threads_end_where_the_walk_says():
    """At most one preemption anywhere, and two at every fifth operation."""
    seeds = PAIRS["others"]
    assert check_schedules(seeds, 1) + check_schedules(seeds, 2, stride=5) > 80


@pytest.mark.slow
@pytest.mark.usefixtures("_encoded_once")
@pytest.mark.parametrize("seeds", PAIRS.values(), ids=PAIRS)
def test_threads_end_where_the_walk_says_with_two_preemptions_anywhere(seeds):
    assert check_schedules(seeds, 2) > 1_000


# -- the walk finds what is broken -------------------------------------------------------------------------------


@pytest.mark.usefixtures("_encoded_once")
def test_a_pointer_put_without_a_condition_would_be_found(monkeypatch):
    monkeypatch.setattr(DictBackend, "put_if", lambda self, key, data, tag: self.put(key, data) or True)
    with pytest.raises(AssertionError):
        check_two_writers((NEW, OTHER), published(publishing(OLD)))


@pytest.mark.usefixtures("_encoded_once")
def test_a_catalogue_put_without_looking_again_would_be_found(monkeypatch):
    monkeypatch.setattr(
        publish, "list_name", lambda root, path: root.put("catalog.json", seal_document(list_pointers(root)))
    )
    with pytest.raises(AssertionError):
        check_two_names({})


@pytest.mark.usefixtures("_encoded_once")
def test_a_switch_before_the_end_would_be_found(monkeypatch):
    whole = publish.finalise_generation
    monkeypatch.setattr(
        publish,
        "finalise_generation",
        lambda root, base, *arguments, **options: (
            root.put(f"{RUN}/zarr.json", next_pointer(None, base.rsplit("/", 1)[-1], None).spell()),
            whole(root, base, *arguments, **options),
        ),
    )
    with pytest.raises(AssertionError):
        check_two_writers((NEW, OTHER), {})


# -- (e) a changed annotation ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Annotations:
    """A genome with usage, as ingested; then with other splice sites, its usage named again or only recorded."""

    start: dict
    named: object
    recorded: object


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotations")
    first = write_study(folder)
    start = {}
    ingest(GatedRoot.over(start), load_genomes_config(str(first)))
    document = json.loads(first.read_text())
    shutil.copy(folder / "toy1.gtf.gz", folder / "kept.gtf.gz")
    reannotate(folder)
    (folder / "toy1.gtf.gz").rename(folder / "changed.gtf.gz")
    (folder / "kept.gtf.gz").rename(folder / "toy1.gtf.gz")
    document["genomes"][0]["gtf_path"] = "changed.gtf.gz"
    configs = {}
    for name, usage in (("named", document["usage_files"]), ("recorded", {})):
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**document, "usage_files": usage}))
        configs[name] = load_genomes_config(str(path))
    return Annotations(start, **configs)


@pytest.fixture
def born(monkeypatch):
    """Who runs is not who ran: processes have the number of this one, and what ``next(born)`` says was their start."""
    ticks = itertools.count()
    now = [next(ticks)]
    monkeypatch.setattr(lease_module, "process_started", lambda pid: now[0])

    def be_born():
        now[0] = next(ticks)

    return be_born


def ingest(root, config):
    (report,) = ingest_genomes(root, config)
    return report


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader gets who opens the genome now."""

    generation: str
    n_sites: int
    conditions: tuple
    alpha: bytes


def look_at_genome(objects):
    root = GatedRoot.over(objects)
    genome = Genome(root, "toy1", read_pointer(root, "genomes/toy1").generation(None))
    n = len(genome.site_position)
    return Seen(genome.generation, n, tuple(genome.condition_names), genome.read_usage(0, n)[0].tobytes())


def reannotated(annotations, config, look=lambda objects: None):
    """Ingest the changed annotation; the store after each write."""
    objects, moments = dict(annotations.start), []

    def after_write(operation):
        look(objects)
        moments.append(dict(objects))

    ingest(GatedRoot.over(objects, life := Life(after_write=after_write)), config)
    return objects, moments, life.writes


@pytest.mark.parametrize("how", ["named", "recorded"])
def test_a_reader_never_sees_new_sites_without_their_usage(annotations, how):
    old, seen = look_at_genome(annotations.start), Counter()
    whole, moments, writes = reannotated(annotations, getattr(annotations, how))
    new = look_at_genome(whole)
    assert (old.n_sites, new.n_sites) == (40, 41)
    assert old.conditions == new.conditions == ("Brain_1",)
    for objects in moments:
        seen[look_at_genome(objects)] += 1
    assert set(seen) == {old, new}
    # The panel's pointer before the genome's, and each name listed as soon as it is switched.
    assert [str(w) for w in writes if w.method == "put_if"] == [
        "put_if usage/toy1/main/zarr.json", "put_if catalog.json", "put_if genomes/toy1/zarr.json", "put_if catalog.json",
    ]  # fmt: skip


def check_kills_of_reannotation(annotations, config, born, chosen):
    whole, moments, writes = reannotated(annotations, config)
    shards = {w.key for w in writes if "/c/" in w.key}
    parts = {key: set(Part.parse(whole[key]).objects) for key in whole if "/parts/" in key}
    owner = {f"{key.split('/parts/')[0]}/{o}": key for key, objects in parts.items() for o in objects}
    for at in chosen(writes):
        objects = dict(moments[at])
        born()
        life = Life()
        ingest(GatedRoot.over(objects, life), config)
        assert look_at_genome(objects) == look_at_genome(whole)
        kept = {key for key in whole if not key.endswith(("lease.json", "manifest.json"))}
        assert {key for key in kept if objects.get(key) != whole[key]} == set(), str(writes[at])
        assert_catalogue_is_the_pointers(objects)
        done = {w.key for w in writes[: at + 1]}
        twice = done & shards & {w.key for w in life.writes}
        assert len({owner[key] for key in twice}) <= 1, str(writes[at])
        assert not {owner[key] for key in twice} & done


@pytest.mark.usefixtures("_encoded_once")
def test_a_killed_reannotation_is_finished_by_the_same_command(annotations, born):
    """Killed after the first and the last write of every kind."""

    def ends_of_runs(writes):
        kinds = [(w.method, w.key.split("/")[0], "/c/" in w.key, "/parts/" in w.key) for w in writes]
        return [i for i in range(len(writes)) if i + 1 == len(writes) or kinds[i] != kinds[i + 1]]

    check_kills_of_reannotation(annotations, annotations.named, born, ends_of_runs)


@pytest.mark.slow
@pytest.mark.usefixtures("_encoded_once")
@pytest.mark.parametrize("how", ["named", "recorded"])
def test_a_reannotation_killed_anywhere_is_finished_by_the_same_command(annotations, born, how):
    check_kills_of_reannotation(annotations, getattr(annotations, how), born, lambda writes: range(len(writes)))


@pytest.fixture(scope="module")
def second_sheet(tmp_path_factory):
    """Sample sheet of one more condition."""
    folder = tmp_path_factory.mktemp("second")
    write_study(folder)
    (folder / "sheet.tsv").write_text("sample\tfile\tcondition\ns1\ttoy1.tsv\tHeart_1\n")
    return folder / "sheet.tsv"


def both(outer, inner, objects, moment):
    """Run a command, and another whole in between, after the write ``moment``; the errors that they told."""
    told, awaited = [], [(moment.method, moment.key)]

    def run(command, root):
        try:
            command(root)
        except SpliceStoreError as error:
            told.append(error)

    def after_write(operation):
        if [(operation.method, operation.key)] == awaited:
            awaited.clear()
            run(inner, GatedRoot.over(objects))

    run(outer, GatedRoot.over(objects, Life(after_write=after_write)))
    assert awaited == []
    return told


@pytest.mark.parametrize("is_inside", ["usage", "annotation"])
def test_usage_that_arrives_while_the_annotation_changes_is_not_lost(annotations, second_sheet, is_inside):
    """``ingest usage`` meets a re-annotation: in the end its condition can be read, or one of the two has said that it has
    to run again. Each comes in between the other, at its start, around its end, and at each of its switches.
    """

    def annotate(root):
        ingest(root, annotations.named)

    def add(root):
        ingest_usage(root, "toy1", "second", str(second_sheet))

    outer, inner = (annotate, add) if is_inside == "usage" else (add, annotate)
    writes = writes_of(outer, dict(annotations.start))
    first = next(i for i, write in enumerate(writes) if write.method == "put_if")
    lost = []
    for moment in (writes[0], writes[first - 1], *(w for w in writes if w.method == "put_if")):
        objects = dict(annotations.start)
        if not both(outer, inner, objects, moment) and look_at_genome(objects).conditions != ("Brain_1", "Heart_1"):
            lost.append(str(moment))
    assert lost == []


# -- what the catalogue costs ------------------------------------------------------------------------------------


def requests_of(function, objects, *arguments):
    """Count the requests of a function, by kind."""
    met = Counter()

    def gate(operation, do):
        met[
            "list" if operation.method in ("children", "sizes") else "read" if operation.method == "read" else "write"
        ] += 1
        return do()

    function(GatedRoot.over(dict(objects), gate), *arguments)
    return dict(met)


def test_entering_a_name_costs_the_same_however_many_there_are():
    """The figures of the page: three reads and a write, against two listings of every pointer."""
    page = PAGE.read_text()
    for n in (10, 1_000):
        objects = {"zarr.json": group_document()}
        for i in range(n):
            objects[f"genomes/g{i}/zarr.json"] = next_pointer(None, f"{i:016x}", None).spell()
        rebuild_catalog(GatedRoot.over(objects))
        objects["genomes/g0/zarr.json"] = next_pointer(None, "f" * 16, None).spell()
        entered = requests_of(list_name, objects, "genomes/g0")
        rebuilt = requests_of(rebuild_catalog, objects)
        assert entered == {"read": 3, "write": 1}
        assert rebuilt == {"list": 4, "read": 2 * n + 1, "write": 1}
    assert f"{rebuilt['list']} listings, {rebuilt['read']:,} reads and a write" in page
    assert f"{sum(4 + 2 * i + 1 + 1 for i in range(1, n + 1)):,} requests to publish them one after another" in page
    assert f"{n * sum(entered.values()):,} requests in all" in page
