"""Folders, an S3 server and memory answer alike: each backend against a dict, and against two writers at once."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule, run_state_machine_as_test

from splicestore.errors import StoreError, TransferError
from splicestore.storage.backends import FsspecBackend, LocalBackend, ObjectBackend, open_backend
from splicestore.storage.keys import StoreRoot
from tests.servers.process import REPOSITORY
from tests.servers.rules import deny, no_list_bucket, reset, silent, slow_down, truncate
from tests.servers.static import static_server

pytest_plugins = ["tests.servers.fixtures"]

KINDS = ("local", "s3", "memory")
SECRET = "hush-0b1d2c"
QUICK = {"max_retries": 3, "retry_seconds": 20, "timeout": "5s", "connect_timeout": "2s"}


@pytest.fixture
def make_root(tmp_path, request):
    """A function that makes an empty store of one kind; servers start only for those that need one."""

    def make(kind):
        name = uuid.uuid4().hex[:8]
        if kind == "local":
            return StoreRoot(str(tmp_path / name))
        if kind == "memory":
            return StoreRoot(f"memory://{name}/store")
        server, bucket = request.getfixturevalue("s3"), request.getfixturevalue("s3_bucket")
        return StoreRoot(f"s3://{bucket}/{name}", {**server.storage_options(), **QUICK})

    return make


@pytest.fixture
def s3_root(s3, s3_bucket):
    """The same store twice: as the server has it, and through the proxy (``through(**options)``)."""

    def through(proxy, **options):
        secrets = {"key": "test", "secret": SECRET}
        return StoreRoot(
            f"s3://{s3_bucket}/st", {**s3.storage_options(proxy.url if proxy else None), **secrets, **QUICK, **options}
        )

    return through


# -- one writer: a dict ------------------------------------------------------------------------------------------

KEYS = ("zarr.json", "g/zarr.json", "g/a/c/0/1", "g/a/zarr.json", "g2/zarr.json", "ga", "g/.hidden", "g/b.json")
PREFIXES = ("", "g", "g/", "g/a", "g2", "none", "g/a/c")
DATA = st.binary(max_size=40)


class KeysLikeADict(RuleBasedStateMachine):
    """One backend and the dict that it should be."""

    def __init__(self, root):
        super().__init__()
        self.backend, self.model = root.backend, {}

    tags = Bundle("tags")

    @initialize(target=tags)
    def absent(self):
        return None, None

    @rule(key=st.sampled_from(KEYS), data=DATA)
    def put(self, key, data):
        self.backend.put(key, data)
        self.model[key] = data

    @rule(key=st.sampled_from(KEYS), data=DATA)
    def create(self, key, data):
        made = self.backend.create(key, data)
        # A store that repeats requests cannot tell its own first one from another writer of the same bytes.
        assert made == (key not in self.model) or (made and self.model[key] == data)
        self.model.setdefault(key, data)

    @rule(target=tags, key=st.sampled_from(KEYS))
    def get(self, key):
        found = self.backend.get(key)
        assert (None if found is None else found.data) == self.model.get(key)
        return (None, None) if found is None else (found.tag, found.data)

    @rule(key=st.sampled_from(KEYS), tagged=tags, data=DATA)
    def put_if(self, key, tagged, data):
        tag, seen = tagged
        written = self.backend.put_if(key, data, tag)
        now = self.model.get(key)
        assert written == (now == seen) or (written and now == data)
        if written:
            self.model[key] = data

    @rule(key=st.sampled_from(KEYS), tagged=consumes(tags))
    def put_if_and_forget(self, key, tagged):
        self.put_if(key, tagged, b"last")

    @rule(key=st.sampled_from(KEYS))
    def remove(self, key):
        self.backend.remove(key)
        self.model.pop(key, None)

    @rule(key=st.sampled_from(KEYS), start=st.integers(0, 39), length=st.integers(1, 60))
    def get_range(self, key, start, length):
        if key not in self.model:
            with pytest.raises(FileNotFoundError, match=key.rsplit("/", 1)[-1]):
                self.backend.get_range(key, start, length)
        elif start < len(self.model[key]):
            assert self.backend.get_range(key, start, length) == self.model[key][start : start + length]

    @rule(key=st.sampled_from(KEYS), length=st.integers(1, 60))
    def get_suffix(self, key, length):
        if self.model.get(key) != b"":
            whole = self.model.get(key)
            assert self.backend.get_suffix(key, length) == (None if whole is None else whole[-length:])

    @rule(key=st.sampled_from(KEYS))
    def size(self, key):
        assert self.backend.size(key) == (len(self.model[key]) if key in self.model else None)

    @rule(prefix=st.sampled_from(PREFIXES))
    def sizes(self, prefix):
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        expected = {key.removeprefix(below): len(data) for key, data in self.model.items() if key.startswith(below)}
        assert self.backend.sizes(prefix) == expected
        assert set(self.backend.ages(prefix)) == set(expected)

    @rule(prefix=st.sampled_from(PREFIXES))
    def children(self, prefix):
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        expected = {key.removeprefix(below).split("/")[0] for key in self.model if key.startswith(below)}
        assert self.backend.children(prefix) == sorted(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_a_dict(make_root, kind):
    run_state_machine_as_test(
        lambda: KeysLikeADict(make_root(kind)),
        settings=settings(max_examples=12 if kind == "s3" else 40, stateful_step_count=25),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [lambda b: b.get_range("k", 5, 3), lambda b: b.get_range("k", 9, 1)])
def test_a_range_behind_the_end_is_empty_everywhere(make_root, kind, read):
    backend = make_root(kind).backend
    backend.put("k", b"12345")
    assert read(backend) == b""


@pytest.mark.parametrize("kind", KINDS)
def test_the_end_of_an_empty_object_is_empty_everywhere(make_root, kind):
    backend = make_root(kind).backend
    backend.put("k", b"")
    assert backend.get_suffix("k", 8) == b""


@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_is_no_object(make_root, kind):
    backend = make_root(kind).backend
    backend.put("g/k", b"1")
    assert (backend.get("g"), backend.size("g"), backend.get_suffix("g", 1)) == (None, None, None)
    assert (backend.children("g/k"), backend.sizes("g/k")) == ([], {})


def test_unfinished_files_are_aged_and_never_listed(make_root, tmp_path):
    root = make_root("local")
    root.put("g/k", b"1")
    (tmp_path / root.url / "g" / "k.abc.partial").write_bytes(b"half")
    assert root.sizes("g") == {"k": 1}
    assert abs(root.ages("g")["k.abc.partial"] - time.time()) < 60


def test_an_emptied_folder_goes_and_the_store_stays(make_root):
    root = make_root("local")
    root.put("g/a/b/k", b"1")
    root.put("other", b"1")
    root.remove(["g/a/b/k"])
    assert sorted(os.listdir(root.url)) == ["other"]
    root.remove(["other", "other"])
    assert os.path.isdir(root.url)


@pytest.mark.slow
def test_listings_go_on_over_the_servers_pages(make_root):
    root = make_root("s3")
    keys = [f"many/{i:04d}" for i in range(1_003)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: root.put(key, b"x"), keys))
    assert root.sizes("") == dict.fromkeys(keys, 1)
    assert len(root.children("many")) == 1_003


@pytest.mark.parametrize("kind", KINDS)
def test_zarr_sees_the_same_keys(make_root, kind):
    root = make_root(kind)
    # A store object per call: the keys are what two of them share.
    array = zarr.create_array(root.zarr_store("g/a"), shape=(10,), chunks=(4,), shards=(8,), dtype="int32")
    array[:] = np.arange(10)
    assert set(root.sizes("g")) == {"a/zarr.json", "a/c/0", "a/c/1"}
    assert np.array_equal(zarr.open_array(root.zarr_store("g/a", read_only=True), mode="r")[:], np.arange(10))
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_array(root.zarr_store("g/a", read_only=True), mode="r+")[0] = 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_root_crosses_processes_without_its_connections(make_root, kind):
    root = make_root(kind)
    root.put("k", b"1")
    spelled = pickle.dumps(root)
    again = pickle.loads(spelled)
    assert again == root
    assert "backend" not in again.__dict__
    assert again.get("k") == b"1"
    if kind == "s3":
        child = subprocess.run(
            [
                sys.executable, "-c",
                "import pickle, sys; sys.stdout.buffer.write(pickle.load(sys.stdin.buffer).get('k'))",
            ],
            input=spelled, capture_output=True, cwd=REPOSITORY, check=True,
        )  # fmt: skip
        assert child.stdout == b"1"


def test_urls_choose_their_backends():
    chosen = {
        "/a/b": LocalBackend, "a": LocalBackend, "file:///a": LocalBackend, "s3://b/p": ObjectBackend,
        "s3a://b/p": ObjectBackend, "https://h/p": ObjectBackend, "memory://x": FsspecBackend,
    }  # fmt: skip
    assert {url: type(open_backend(url, {})) for url in chosen} == chosen
    assert "hush" not in repr(StoreRoot("s3://b/p", {"secret": SECRET}))


# -- two writers -------------------------------------------------------------------------------------------------

ROUNDS = 25


def race(backend, key, write):
    """Two threads do the same write with other bytes at once; return what each was told."""
    barrier = threading.Barrier(2)

    def one(data):
        barrier.wait()
        return write(data)

    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(one, (b"left", b"right")))
    return dict(zip((b"left", b"right"), told, strict=True)), backend.get(key).data


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_two_swaps_wins(make_root, kind):
    backend = make_root(kind).backend
    for number in range(ROUNDS):
        key = f"g/{number}"
        backend.put(key, b"old")
        tag = backend.get(key).tag
        told, stored = race(backend, key, lambda data, key=key, tag=tag: backend.put_if(key, data, tag))
        assert sorted(told.values()) == [False, True]
        assert told[stored]


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_two_creates_wins(make_root, kind):
    backend = make_root(kind).backend
    for number in range(ROUNDS):
        key = f"g/{number}"
        told, stored = race(backend, key, lambda data, key=key: backend.create(key, data))
        assert sorted(told.values()) == [False, True]
        assert told[stored]


@pytest.mark.parametrize("kind", KINDS)
def test_swaps_lose_no_update(make_root, kind):
    """Four threads add to one counter by compare-and-swap: the sum is right only if every lost race was told."""
    backend = make_root(kind).backend
    backend.put("n", b"0")

    def add(number):
        while True:
            found = backend.get("n")
            # Bytes of its own: a write of what is there already counts as done, whoever did it.
            if backend.put_if("n", b"%d of %d" % (int(found.data.split()[0]) + 1, number), found.tag):
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(40)))
    assert backend.get("n").data.startswith(b"40 ")


def test_readers_of_a_file_that_is_replaced_see_one_version(make_root):
    root = make_root("local")
    versions = [bytes([letter]) * 200_000 for letter in b"ab"]
    root.put("k", versions[0])
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for data in versions:
                root.put("k", data)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(write)
        try:
            for _ in range(100):
                assert root.get("k") in versions
        finally:
            stop.set()


# -- an object store that misbehaves -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [reset(after=True, times=1), reset(times=1), slow_down(after=True, times=1), slow_down(times=2)],
    ids=["reset after", "reset", "503 after", "503 twice"],
)
def test_a_write_whose_answer_was_lost_is_known_to_be_ours(s3_proxy, s3_root, fault):
    backend = s3_root(s3_proxy).backend
    s3_proxy.set(fault)
    assert backend.create("k", b"one")
    tag = s3_root(None).backend.get("k").tag
    s3_proxy.set(fault)
    assert backend.put_if("k", b"two", tag)
    assert s3_root(None).get("k") == b"two"
    s3_proxy.set(fault)
    assert not backend.put_if("k", b"three", tag)
    assert s3_root(None).get("k") == b"two"


def test_a_body_that_breaks_off_is_never_taken_for_the_object(s3_proxy, s3_root):
    root, body = s3_root(s3_proxy), os.urandom(100_000)
    root.put("k", body)
    for read, expected in (
        (lambda: root.get("k"), body),
        (lambda: root.get_range("k", 1_000, 50_000), body[1_000:51_000]),
        (lambda: root.get_suffix("k", 60_000), body[-60_000:]),
    ):
        s3_proxy.set(truncate(times=1))
        with contextlib.suppress(TransferError):
            assert read() == expected
        s3_proxy.set(truncate(keep=0.3))
        with pytest.raises(TransferError, match="/st/k: reading failed"):
            read()


def test_an_object_that_is_overwritten_while_it_is_read_is_never_mixed(s3_proxy, s3_root, s3):
    """A read that goes on after a break must not join halves of two versions."""
    root, direct = s3_root(s3_proxy), s3_root(None)
    versions = [b"a" * 400_000, b"b" * 400_000]
    for number in range(6):
        direct.put("k", versions[number % 2])
        s3_proxy.set(truncate(times=1, keep=0.5))
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(root.get, "k")
            direct.put("k", versions[(number + 1) % 2])
            with contextlib.suppress(TransferError):
                assert reading.result() in versions


def test_absent_keys_read_as_absent_to_who_may_not_list(s3_proxy, s3_root):
    s3_root(None).put("zarr.json", b"{}")
    s3_proxy.set(*no_list_bucket())
    root = s3_root(s3_proxy)
    assert (root.get("none"), root.size("none"), root.get_suffix("none", 4)) == (None, None, None)
    with pytest.raises(FileNotFoundError, match="none"):
        root.get_range("none", 0, 4)
    assert root.get("zarr.json") == b"{}"
    with pytest.raises(TransferError, match=r"/st/g: listing was refused .*s3:ListBucket"):
        root.sizes("g")
    with pytest.raises(TransferError, match=r"/st/g: listing was refused .*s3:ListBucket"):
        root.children("g")


def test_a_refusal_is_no_absence(s3_proxy, s3_root):
    s3_root(None).put("zarr.json", b"{}")
    s3_root(None).put("k", b"1")
    s3_proxy.set(deny("get|head"))
    for key in ("zarr.json", "k", "none"):
        with pytest.raises(TransferError, match=f"/st/{key}: reading was refused .*s3:GetObject"):
            s3_root(s3_proxy).get(key)


@pytest.mark.parametrize(
    ("act", "right"),
    [
        (lambda r: r.put("k", b""), "s3:PutObject"), (lambda r: r.create("k", b""), "s3:PutObject"),
        (lambda r: r.put_if("k", b"", None), "s3:PutObject"), (lambda r: r.remove(["k"]), "s3:DeleteObject"),
    ],
    ids=["put", "create", "put_if", "remove"],
)  # fmt: skip
def test_a_bucket_to_read_only_names_the_right_that_is_missing(s3_proxy, s3_root, act, right):
    s3_proxy.set(deny("put|delete"))
    with pytest.raises(TransferError, match=f"/st/k: .* refused .*{right}") as caught:
        act(s3_root(s3_proxy))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "act",
    [
        lambda r: r.get("k"), lambda r: r.get_range("k", 0, 1), lambda r: r.get_suffix("k", 1), lambda r: r.put("k", b""),
        lambda r: r.create("k", b""), lambda r: r.put_if("k", b"", None), lambda r: r.sizes(""), lambda r: r.children(""),
    ],
    ids=["get", "get_range", "get_suffix", "put", "create", "put_if", "sizes", "children"],
)  # fmt: skip
def test_a_missing_bucket_is_said(s3, act):
    root = StoreRoot("s3://no-such-bucket/st", {**s3.storage_options(), **QUICK})
    with pytest.raises(TransferError, match=r"s3://no-such-bucket/st.*(no bucket 'no-such-bucket'|NoSuchBucket)"):
        act(root)


@pytest.mark.parametrize("fault", [slow_down(), reset(), silent()], ids=["503", "reset", "silent"])
def test_retries_end_with_the_key(s3_proxy, s3_root, fault):
    s3_proxy.set(fault)
    root = s3_root(s3_proxy, max_retries=1, timeout="1s")
    started = time.monotonic()
    with pytest.raises(TransferError, match="/st/some/key: reading failed") as caught:
        root.get("some/key")
    assert time.monotonic() - started < 10
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


# -- read-only web servers ---------------------------------------------------------------------------------------


def test_a_web_server_is_read_and_never_written(tmp_path):
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "k").write_bytes(b"12345")
    with static_server(tmp_path) as url:
        root = StoreRoot(url)
        assert root.get("g/k") == b"12345"
        assert (root.get_range("g/k", 1, 2), root.get_suffix("g/k", 2), root.size("g/k")) == (b"23", b"45", 5)
        assert root.get("g/none") is None
        for write in (
            lambda: root.put("g/k", b""),
            lambda: root.create("g/k", b""),
            lambda: root.put_if("g/k", b"", None),
        ):
            with pytest.raises(StoreError, match=r"http\(s\) stores are read-only"):
                write()
        with pytest.raises(StoreError, match=r"read-only"):
            root.remove(["g/k"])
    assert (tmp_path / "g" / "k").read_bytes() == b"12345"
