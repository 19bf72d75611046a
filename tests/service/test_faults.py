"""Storage that fails: commands finish with the right bytes, or stop with one line and go on when told again."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time

import pytest

from splicestore import open_store
from splicestore.errors import TransferError
from splicestore.storage import StoreRoot
from tests.servers.rules import bandwidth, cut, deny, latency, no_list_bucket, reset, silent, slow_down, truncate
from tests.servers.static import static_server
from tests.service.remote import (
    SECRET,
    SPLIT,
    Done,
    check,
    check_published,
    check_same,
    cli,
    make_reference,
    objects_of,
    one_line,
    option_words,
    predict,
    same_windows,
    whole_job,
    windows_of,
)

pytest_plugins = ["tests.servers.fixtures"]

QUICK = {"max_retries": 2, "retry_seconds": 20, "timeout": "3s", "connect_timeout": "2s"}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return make_reference(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def faulty(s3, s3_proxy, s3_bucket):
    """An empty store behind the proxy; ``direct`` is the same without it."""
    options = {**s3.storage_options(s3_proxy.url), "secret": SECRET}
    return StoreRoot(f"s3://{s3_bucket}/st", options)


@pytest.fixture
def direct(faulty, s3):
    return StoreRoot(faulty.url, s3.storage_options())


def process(*words, preexec=None, env=None, under=()) -> Done:
    """Run a command in a process of its own, with warnings as errors; ``under`` another program."""
    done = subprocess.run(
        [*under, sys.executable, "-W", "error", "-m", "splicestore", *map(str, words)],
        capture_output=True, text=True, preexec_fn=preexec, env={**os.environ, **(env or {})}, timeout=120,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def ingest_words(root, reference, *more):
    return (
        "ingest",
        "genomes",
        root.url,
        reference.inputs / "genomes.json",
        *option_words(root.storage_options),
        *more,
    )


def split_words(root, reference):
    return (
        "split", "windows", root.url, "run1", "--orthology", reference.inputs / "orthologs.tsv", *SPLIT,
        *option_words(root.storage_options),
    )  # fmt: skip


# -- many small faults -------------------------------------------------------------------------------------------

NOISE = {
    "503 and truncation": (slow_down(fraction=0.1), truncate(operation="get", fraction=0.01)),
    "500 after the write": (slow_down(after=True, status=500, code="InternalError", operation="put", fraction=0.1),),
    "reordered": (latency(0, jitter_ms=30),),
}
SLOW = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize("rules", NOISE.values(), ids=NOISE)
def test_the_whole_job_comes_out_the_same(faulty, direct, s3_proxy, reference, rules):
    s3_proxy.set(*rules, seed=1)
    whole_job(faulty, reference.inputs)
    store = open_store(faulty.url, storage_options=faulty.storage_options)
    same_windows(windows_of(store), windows_of(reference.store))
    if any(rule.fault != "latency" for rule in rules):
        assert sum(s3_proxy.counts().faults.values()) > 3
    s3_proxy.set()
    check_same(direct, reference)
    assert not [key for key in direct.sizes("") if direct.get(key).find(SECRET.encode()) >= 0]


def test_an_ingest_comes_out_the_same(faulty, direct, s3_proxy, reference):
    s3_proxy.set(*NOISE["503 and truncation"], seed=2)
    check(cli(*ingest_words(faulty, reference, "--genome", "toy1")))
    assert sum(s3_proxy.counts().faults.values()) > 3
    s3_proxy.set()
    assert check_published(direct, reference) == 2


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after the write"])
@pytest.mark.parametrize("seed", range(3))
def test_resets_end_a_run_or_not_and_the_same_command_goes_on(faulty, direct, s3_proxy, reference, after, seed):
    """A connection reset in 2% of the requests: every stop names its key, and what is published is whole at each of them."""
    for attempt in range(15):
        s3_proxy.set(reset(after=after, fraction=0.02), seed=seed + 100 * attempt)
        # A process of its own each time: a dead one's lease is taken over.
        done = process(*ingest_words(faulty, reference))
        s3_proxy.set()
        check_published(direct, reference)
        if done.status == 0:
            break
        assert f"{faulty.url}/" in last_line(done, 5)
    assert done.status == 0
    check(cli(*split_words(direct, reference)))
    predict(open_store(direct.url, storage_options=direct.storage_options))
    check_same(direct, reference)


def last_line(done, status):
    """Several genomes may fail, a line each; the last is what the command ends with."""
    assert done.status == status, done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr + done.stdout
    line = done.stderr.splitlines()[-1]
    assert line.startswith("splicestore: ")
    return line


def test_one_reset_does_not_end_a_run(faulty, direct, s3_proxy, reference):
    """Real object stores close connections now and then; a write with a condition is as safe to repeat as any other."""
    s3_proxy.set(
        reset(operation="put", nth=20), reset(operation="put", nth=40, after=True), reset(operation="get", nth=10)
    )
    check(cli(*ingest_words(faulty, reference, "--genome", "toy1")))
    assert s3_proxy.counts().faults == {"reset": 2, "reset after": 1}
    assert check_published(direct, reference) == 2


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=SLOW) for seed in (1, 2))])
def test_streams_are_right_or_refused(direct, s3_proxy, s3, reference, seed):
    """Half of all bodies break off, somewhere: never a wrong base."""
    copy_reference(direct, reference)
    s3_proxy.set(truncate(operation="get", fraction=0.5, keep=0.2 + 0.3 * seed), slow_down(fraction=0.1), seed=seed)
    options = {**s3.storage_options(s3_proxy.url), **QUICK}
    expected = windows_of(reference.store)
    said = ""
    try:
        same_windows(windows_of(open_store(direct.url, storage_options=options)), expected)
    except TransferError as error:
        said = str(error)
    assert not said or f"{direct.url}/" in said.splitlines()[0]
    assert "\n" not in said


def copy_reference(root, reference):
    keys = list(reference.root.sizes(""))
    root.gather(lambda key: root.put(key, reference.root.get(key)), keys)


@pytest.mark.slow
def test_a_slow_network_only_takes_longer(direct, s3, s3_proxy, reference):
    copy_reference(direct, reference)
    s3_proxy.set(latency(20, jitter_ms=20), bandwidth(2_000_000))
    store = open_store(direct.url, storage_options=s3.storage_options(s3_proxy.url))
    same_windows(windows_of(store), windows_of(reference.store))


# -- the network goes away ---------------------------------------------------------------------------------------


def test_a_network_that_comes_back_is_waited_for(faulty, direct, s3_proxy, reference):
    s3_proxy.set(cut(nth=70))
    restored = threading.Timer(1.5, s3_proxy.restore)
    restored.start()
    started = time.monotonic()
    check(cli(*ingest_words(faulty, reference, "--genome", "toy1")))
    restored.join()
    assert time.monotonic() - started > 1
    assert s3_proxy.counts().faults == {"cut": 1}
    assert check_published(direct, reference) == 2


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 60, 110])
def test_a_network_that_stays_away_ends_the_run_and_the_same_command_goes_on(faulty, direct, s3_proxy, reference, nth):
    s3_proxy.set(cut(nth=nth))
    words = ingest_words(
        StoreRoot(faulty.url, {**faulty.storage_options, **QUICK, "timeout": "1s", "max_retries": 1}),
        reference,
        "--genome",
        "toy1",
    )
    line = one_line(process(*words), 5)
    assert f"{faulty.url}/" in line
    s3_proxy.restore()
    s3_proxy.set()
    check_published(direct, reference)
    # The dead process's lease is on this machine: no --steal is needed.
    check(cli(*ingest_words(faulty, reference)))
    assert check_published(direct, reference) == 4


def test_a_stream_goes_on_when_the_network_comes_back(direct, s3, s3_proxy, reference):
    copy_reference(direct, reference)
    s3_proxy.set(cut(nth=60))
    restored = threading.Timer(1.5, s3_proxy.restore)
    restored.start()
    store = open_store(direct.url, storage_options=s3.storage_options(s3_proxy.url))
    found = windows_of(store)
    found += windows_of(open_store(direct.url, storage_options=s3.storage_options(s3_proxy.url)))
    restored.join()
    assert s3_proxy.counts().faults == {"cut": 1}
    same_windows(found, windows_of(reference.store) * 2)


# -- what is refused, in one line --------------------------------------------------------------------------------


def quick(root, **options):
    return StoreRoot(root.url, {**root.storage_options, **QUICK, **options})


@pytest.mark.parametrize("command", ["info", "ingest", "split"])
def test_wrong_credentials(faulty, direct, s3_proxy, reference, command):
    copy_reference(direct, reference)
    s3_proxy.set(deny("list|get|head|put|delete|bucket"))
    words = {"info": ("info", faulty.url, *option_words(faulty.storage_options)), "ingest": ingest_words(faulty, reference),
             "split": split_words(faulty, reference)}[command]  # fmt: skip
    assert "check the credentials" in one_line(cli(*words), 5)


def test_a_signature_that_is_wrong(faulty, s3_proxy):
    s3_proxy.set(slow_down(status=403, code="SignatureDoesNotMatch"))
    assert "check the credentials" in one_line(cli("info", faulty.url, *option_words(faulty.storage_options)), 5)


@pytest.mark.parametrize("command", ["info", "ingest"])
def test_a_missing_bucket(s3, reference, command):
    root = StoreRoot("s3://no-such-bucket/st", {**s3.storage_options(), "secret": SECRET})
    words = (
        ingest_words(root, reference)
        if command == "ingest"
        else ("info", root.url, *option_words(root.storage_options))
    )
    assert "s3://no-such-bucket/st: there is no bucket 'no-such-bucket'" in one_line(cli(*words), 5)


@pytest.mark.parametrize("command", ["ingest", *(pytest.param(x, marks=SLOW) for x in ("split", "predict"))])
def test_a_bucket_to_read_only(faulty, direct, s3_proxy, reference, command):
    if command != "ingest":
        copy_reference(direct, reference)
    before = objects_of(direct)
    s3_proxy.set(deny("put|delete"))
    if command == "predict":
        with pytest.raises(TransferError, match=r"refused.*s3:PutObject"):
            predict(open_store(faulty.url, storage_options=faulty.storage_options), "p2")
    else:
        words = (
            ingest_words(faulty, reference) if command == "ingest" else (*split_words(faulty, reference), "--seed", "9")
        )
        words = tuple("run2" if word == "run1" else word for word in words)
        assert "s3:PutObject" in one_line(cli(*words), 5)
    assert objects_of(direct) == before


@pytest.mark.parametrize("there", ["nothing", "a store"])
def test_a_writer_without_listing_is_told_which_right_it_needs(faulty, direct, s3_proxy, reference, there):
    if there == "a store":
        check(cli(*ingest_words(direct, reference, "--genome", "toy2")))
    s3_proxy.set(*no_list_bucket())
    assert "s3:ListBucket" in one_line(cli(*ingest_words(faulty, reference, "--genome", "toy1")), 5)
    s3_proxy.set()
    assert check_published(direct, reference) == (2 if there == "a store" else 0)
    check(cli(*ingest_words(faulty, reference, "--genome", "toy1")))
    assert "toy1" in open_store(direct.url, storage_options=direct.storage_options).genomes


def test_every_genome_that_fails_is_named(tmp_path, reference):
    for path in reference.inputs.iterdir():
        shutil.copy(path, tmp_path)
    for name in ("toy1", "toy2"):
        (tmp_path / f"{name}.fa").write_text(f">{name}\nAC!T\n")
    done = cli("ingest", "genomes", tmp_path / "store", tmp_path / "genomes.json")
    assert done.status == 3
    assert [done.stderr.count(f"{name}.fa: ") for name in ("toy1", "toy2")] == [1, 1]


@pytest.mark.parametrize(
    "fault", ["nobody listens", pytest.param("silent", marks=SLOW), pytest.param("no such host", marks=SLOW)]
)
def test_an_endpoint_that_does_not_answer(faulty, s3_proxy, fault):
    s3_proxy.set(silent())
    ports = {"nobody listens": "http://127.0.0.1:9", "no such host": "http://nothing.invalid"}
    options = {
        "max_retries": 1,
        "timeout": "1s",
        "connect_timeout": "1s",
        **({"endpoint_url": ports[fault]} if fault in ports else {}),
    }
    started = time.monotonic()
    root = quick(faulty, **options)
    # A machine's own web proxy would answer for hosts that do not exist.
    line = one_line(
        process("info", root.url, *option_words(root.storage_options), env={"NO_PROXY": "*", "no_proxy": "*"}), 5
    )
    assert f"{faulty.url}/zarr.json: reading failed" in line
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [({"nope": "1"}, 3, "'nope'"), ({"timeout": "soon"}, 3, "soon"), ({"max_retries": "many"}, 3, "many"),
     ({"endpoint_url": "127.0.0.1:9"}, 3, "endpoint")],
    ids=["name", "timeout", "number", "endpoint"],
)  # fmt: skip
def test_a_wrong_storage_option(options, status, message):
    words = option_words({"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": SECRET, **options})
    assert message in one_line(cli("info", "s3://bucket/st", *words), status)


def test_an_option_without_a_value_is_a_usage_error():
    done = cli("info", "s3://bucket/st", "--storage-option", "anon")
    assert done.status == 2
    assert "write KEY=VALUE" in done.stderr


@pytest.mark.parametrize("url", ["gopher://x/y", "s3:///x", "s3://"])
def test_urls_that_nothing_opens(url):
    assert url.rstrip("/") in one_line(cli("info", url), 3)


def test_nothing_at_a_web_address(tmp_path):
    with static_server(tmp_path) as url:
        assert f"{url}/store: no store here" in one_line(cli("info", f"{url}/store"), 4)
    assert "/store/zarr.json" in one_line(cli("info", f"{url}/store", *option_words(QUICK)), 5)


@pytest.mark.parametrize(
    "role", ["genome_path", "config", *(pytest.param(x, marks=SLOW) for x in ("gtf_path", "usage"))]
)
def test_inputs_that_cannot_be_had_are_named(s3, s3_proxy, s3_bucket, reference, tmp_path, role):
    """A missing input is the configuration's fault (3), one that is refused is the storage's (5)."""
    inputs = StoreRoot(f"s3://{s3_bucket}/in", {**s3.storage_options(s3_proxy.url), "secret": SECRET})
    document = json.loads((reference.inputs / "genomes.json").read_text())
    config, url = tmp_path / "genomes.json", f"{inputs.url}/gone"
    for path in reference.inputs.iterdir():
        shutil.copy(path, tmp_path)
    if role == "usage":
        document["usage_files"]["toy1"]["files"][0]["file"] = url
    elif role != "config":
        document["genomes"][0][role] = url
    config.write_text(json.dumps(document))
    words = ("ingest", "genomes", tmp_path / "store", url if role == "config" else config, "--genome", "toy1")
    done = cli(*words, *option_words(inputs.storage_options))
    assert url in one_line(done, 3)
    s3_proxy.set(deny("get|head"))
    line = one_line(cli(*words, *option_words(inputs.storage_options)), 5)
    assert url in line
    assert "check the credentials" in line
    if (tmp_path / "store").exists():
        check_published(StoreRoot(str(tmp_path / "store")), reference)


@pytest.mark.slow
def test_an_input_that_breaks_off_is_read_again_or_refused(s3, s3_proxy, s3_bucket, reference, tmp_path):
    inputs = StoreRoot(f"s3://{s3_bucket}/in", {**s3.storage_options(s3_proxy.url), **QUICK})
    for path in reference.inputs.iterdir():
        inputs.put(path.name, path.read_bytes())
    words = (
        "ingest",
        "genomes",
        tmp_path / "store",
        f"{inputs.url}/genomes.json",
        *option_words(inputs.storage_options),
    )
    s3_proxy.set(truncate(operation="get", key=r"\.fa$", keep=0.6))
    assert f"{inputs.url}/toy1.fa" in last_line(cli(*words), 5)
    s3_proxy.set(truncate(operation="get", fraction=0.2), seed=4)
    for _ in range(10):
        done = cli(*words)
        if done.status == 0:
            break
        assert done.status == 5
    store = open_store(str(tmp_path / "store"))
    for name, genome in reference.store.genomes.items():
        assert store.genomes[name].attributes["sequence_digest"] == genome.attributes["sequence_digest"]


# -- formats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["disk", pytest.param("s3", marks=SLOW)])
@pytest.mark.parametrize(("version", "advice"), [(2, "upgrade splicestore"), (0, "the release that wrote it")])
def test_another_format(tmp_path, direct, s3, reference, place, version, advice):
    root = direct if place == "s3" else StoreRoot(str(tmp_path / "store"))
    copy_reference(root, reference)
    document = json.loads(root.get("zarr.json"))
    document["attributes"]["splicestore"]["format"] = version
    root.put("zarr.json", json.dumps(document).encode())
    before = root.sizes("")
    for words in (
        ("info", root.url, *option_words(root.storage_options)),
        ingest_words(root, reference),
        split_words(root, reference),
    ):
        line = one_line(cli(*words), 4)
        assert f"format {version}" in line
        assert advice in line
    assert root.sizes("") == before


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"zarr_format": 2}', b'{"zarr_format": 3, "node_type": "group", "attributes": {}}']
)
def test_a_root_document_that_is_not_ours(tmp_path, reference, data):
    root = StoreRoot(str(tmp_path / "store"))
    copy_reference(root, reference)
    root.put("zarr.json", data)
    assert root.url in one_line(cli("info", root.url), 4)


# -- disk full ---------------------------------------------------------------------------------------------------


def limit_files(n_bytes):
    """For a child: no file may grow over this size, as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


@pytest.mark.parametrize("n_bytes", [2_000, pytest.param(300, marks=SLOW), pytest.param(6_000, marks=SLOW)])
def test_a_full_disk_says_what_to_do_and_the_same_command_finishes(tmp_path, reference, n_bytes):
    root = StoreRoot(str(tmp_path / "store"))
    words = ingest_words(root, reference, "--genome", "toy1")
    line = one_line(process(*words, preexec=limit_files(n_bytes)), 5)
    assert f"{root.url}/" in line
    assert "free space and run the same command again" in line
    assert check_published(root, reference) == 0
    assert not list((tmp_path / "store").rglob("*.partial"))
    check(cli(*words))
    assert check_published(root, reference) == 2


@pytest.mark.slow
def test_a_full_disk_during_a_split_leaves_no_half_of_it(tmp_path, reference):
    root = StoreRoot(str(tmp_path / "store"))
    check(cli(*ingest_words(root, reference)))
    line = one_line(process(*split_words(root, reference), preexec=limit_files(1_500)), 5)
    assert "free space and run the same command again" in line
    assert check_published(root, reference) == 4
    check(cli(*split_words(root, reference)))
    assert check_published(root, reference) == 5


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 192 KiB, where this machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs (run as root): {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up(tiny_disk, reference):
    filler = tiny_disk / "filler"
    filler.write_bytes(b"x" * 100_000)
    root = StoreRoot(str(tiny_disk / "store"))
    words = ingest_words(root, reference, "--genome", "toy1")
    line = one_line(process(*words), 5)
    assert "no space left" in line
    assert check_published(root, reference) == 0
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", tiny_disk], check=True)
    check(process(*words))
    assert check_published(root, reference) == 2


def test_a_folder_without_permission(tmp_path, reference):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    # Permissions bind root only without these capabilities.
    as_user = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--") if os.geteuid() == 0 else ()
    done = process(*ingest_words(StoreRoot(str(folder / "store")), reference), under=as_user)
    assert "is not allowed here" in one_line(done, 5)


def test_a_file_where_the_store_should_be(tmp_path, reference):
    (tmp_path / "store").write_text("notes")
    assert "a file stands where a folder is needed" in one_line(
        cli(*ingest_words(StoreRoot(str(tmp_path / "store")), reference)), 3
    )
    assert (tmp_path / "store").read_text() == "notes"
