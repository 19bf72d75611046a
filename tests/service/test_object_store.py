"""The whole job on an object store, from a web server and in memory: the same content as on disk, readers that never list."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from splicestore import open_store
from splicestore.errors import StoreNotFoundError
from splicestore.storage import StoreRoot
from splicestore.storage.backends import ObjectBackend
from tests.servers.rules import no_list_bucket
from tests.servers.static import static_server
from tests.service.remote import (
    SECRET,
    SPLIT,
    arrays_of,
    check,
    check_same,
    cli,
    make_reference,
    one_line,
    option_words,
    predict,
    same_arrays,
    same_windows,
    whole_job,
    windows_of,
)
from tests.unit.storage.test_bgzf import spell

pytest_plugins = ["tests.servers.fixtures"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return make_reference(tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module")
def published(s3, reference):
    """The reference's store copied to a bucket, manifests and all."""
    root = StoreRoot(f"s3://{s3.bucket()}/some/prefix", s3.storage_options())
    keys = list(reference.root.sizes(""))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: root.put(key, reference.root.get(key)), keys))
    return root


# -- S3 ----------------------------------------------------------------------------------------------------------


def test_the_whole_job_on_s3_is_the_same_as_on_disk(s3, s3_bucket, reference, tmp_path):
    root = StoreRoot(f"s3://{s3_bucket}/deep/store", {**s3.storage_options(), "secret": SECRET})
    whole_job(root, reference.inputs)
    check_same(root, reference)
    same_arrays(arrays_of(root), arrays_of(reference.root))
    store = open_store(root.url, storage_options=root.storage_options)
    same_windows(windows_of(store), windows_of(reference.store))
    words = option_words(root.storage_options)
    found = json.loads(check(cli("info", root.url, "--json", *words)).stdout)
    expected = json.loads(check(cli("info", reference.root.url, "--json")).stdout)
    assert found.pop("url") == root.url
    assert expected.pop("url") == reference.root.url
    assert found == expected
    listed = json.loads(check(cli("ls", root.url, "--json", *words)).stdout)
    assert listed == json.loads(check(cli("ls", reference.root.url, "--json")).stdout)
    story = check(cli("explain", root.url, "toy2_chrB_200", *words)).stdout
    assert story == check(cli("explain", reference.root.url, "toy2_chrB_200")).stdout
    check(cli("export", "splicevo", root.url, tmp_path / "s3", "--split", "run1", *words))
    check(cli("export", "splicevo", reference.root.url, tmp_path / "disk", "--split", "run1"))
    one, two = (
        {p.relative_to(tmp_path / x): p.read_bytes() for p in (tmp_path / x).rglob("*.mmap")} for x in ("s3", "disk")
    )
    assert one
    assert one == two
    # Credentials are nowhere in the store, nor is the endpoint.
    for key in root.sizes(""):
        assert SECRET.encode() not in root.get(key), key
        assert s3.url.encode() not in root.get(key), key


@pytest.mark.slow
def test_the_same_commands_again_change_nothing(s3, s3_bucket, reference):
    root = StoreRoot(f"s3://{s3_bucket}/store", s3.storage_options())
    whole_job(root, reference.inputs)
    before = root.backend._store.head("catalog.json")["last_modified"], root.sizes("")
    words = option_words(root.storage_options)
    again = check(cli("ingest", "genomes", root.url, reference.inputs / "genomes.json", "--json", *words))
    assert {g["status"] for g in json.loads(again.stdout)["genomes"].values()} == {"unchanged"}
    assert predict(open_store(root.url, storage_options=root.storage_options)).status == "unchanged"
    assert (root.backend._store.head("catalog.json")["last_modified"], root.sizes("")) == before


def test_credentials_from_the_environment_and_inputs_on_s3(s3, s3_bucket, reference, monkeypatch):
    """Nothing but URLs on the command line; FASTA as bgzip and gzip, all inputs and the configuration in the bucket."""
    for name, value in (
        ("AWS_ENDPOINT_URL", s3.url), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_REGION", "us-east-1"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    inputs = StoreRoot(f"s3://{s3_bucket}/in")
    for path in reference.inputs.iterdir():
        data = path.read_bytes()
        if path.suffix == ".fa":
            data = spell(data, range(1_000, len(data), 1_000)) if path.stem == "toy1" else gzip.compress(data)
        inputs.put(path.name, data)
    url = f"s3://{s3_bucket}/store"
    # A process of its own, with warnings as errors: what a user runs.
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "splicestore",
        "ingest",
        "genomes",
        url,
        f"{inputs.url}/genomes.json",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    check(cli("split", "windows", url, "run1", "--orthology", f"{inputs.url}/orthologs.tsv", *SPLIT))
    ours, theirs = open_store(url), reference.store
    for name in theirs.genomes:
        for field in ("sequence_digest", "site_digest", "summary"):
            assert ours.genomes[name].attributes[field] == theirs.genomes[name].attributes[field]
    same_windows(windows_of(ours), windows_of(theirs))
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["threads:2", "processes:2"])
def test_workers_write_to_s3_too(s3, s3_bucket, reference, scheduler):
    root = StoreRoot(f"s3://{s3_bucket}/store", s3.storage_options())
    words = option_words(root.storage_options)
    check(cli("ingest", "genomes", root.url, reference.inputs / "genomes.json", "--scheduler", scheduler, *words))
    expected = {key: data for key, data in reference.objects.items() if key.startswith(("genomes", "usage"))}
    found = dict(zip(expected, root.gather(root.get, expected), strict=True))
    assert found == expected


def test_a_job_array_on_s3(s3, s3_bucket, reference):
    root = StoreRoot(f"s3://{s3_bucket}/store", s3.storage_options())
    words = option_words(root.storage_options)
    ingest = ("ingest", "genomes", root.url, reference.inputs / "genomes.json", *words)
    check(cli(*ingest, "--partition", "0/3"))
    missing = one_line(cli("finalise", root.url, *words), 4)
    assert "--array=1-2" in missing
    for job in ("2/3", "1/3", "1/3"):
        check(cli(*ingest, "--partition", job))
    check(cli("finalise", root.url, *words))
    store = open_store(root.url, storage_options=root.storage_options)
    assert sorted(store.genomes) == ["toy1", "toy2"]
    for name in reference.store.genomes:
        assert store.genomes[name].generation == reference.store.genomes[name].generation
        span = (0, store.genomes[name].n_bases)
        assert np.array_equal(store.genomes[name].read_bases(*span), reference.store.genomes[name].read_bases(*span))


# -- readers need GetObject only ---------------------------------------------------------------------------------


@pytest.fixture
def unlisted(published, s3, s3_proxy):
    """The published store to credentials that may get objects and do nothing else."""
    s3_proxy.set(*no_list_bucket())
    return StoreRoot(published.url, s3.storage_options(s3_proxy.url))


def test_readers_never_list(unlisted, s3_proxy, reference, tmp_path):
    store = open_store(unlisted.url, storage_options=unlisted.storage_options)
    assert sorted(store.genomes) == ["toy1", "toy2"]
    assert list(store.splits) == ["run1"]
    assert list(store.predictions) == ["p1"]
    assert "none" not in store.genomes
    with pytest.raises(StoreNotFoundError, match="did you mean toy"):
        store.genomes["toy3"]
    for name, genome in reference.store.genomes.items():
        ours = store.genomes[name]
        assert np.array_equal(ours.read_bases(0, ours.n_bases), genome.read_bases(0, genome.n_bases))
        assert ours.sites.to_pandas().equals(genome.sites.to_pandas())
        assert ours.usage.to_pandas().equals(genome.usage.to_pandas())
        assert ours.genes.to_pandas().equals(genome.genes.to_pandas())
    assert store.splits["run1"].to_pandas().equals(reference.store.splits["run1"].to_pandas())
    same_windows(windows_of(store), windows_of(reference.store))
    for start, end in ((0, 400), (2_000, 2_400)):
        one, two = (s.predictions["p1"].fetch("toy1", "chrB", start, end) for s in (store, reference.store))
        assert np.array_equal(np.asarray(one), np.asarray(two), equal_nan=True)
    words = option_words(unlisted.storage_options)
    check(cli("info", unlisted.url, *words))
    check(cli("explain", unlisted.url, "toy1_chrA_300", *words))
    check(cli("export", "splicevo", unlisted.url, tmp_path / "out", "--split", "run1", *words))
    counts = s3_proxy.counts()
    assert set(counts.operations) <= {"get", "head"}
    assert counts.requests > 50


def test_plain_zarr_reads_a_generation_without_listing(unlisted, s3_proxy, reference):
    generation = reference.store.genomes["toy1"].generation
    group = zarr.open_group(unlisted.zarr_store(f"genomes/toy1/{generation}", read_only=True), mode="r")
    expected = zarr.open_group(reference.root.zarr_store(f"genomes/toy1/{generation}", read_only=True), mode="r")
    same_arrays({n: a[...] for n, a in group.arrays()}, {n: a[...] for n, a in expected.arrays()})
    assert "list" not in s3_proxy.counts().operations


def test_a_store_that_is_not_there_is_not_there_without_listing_either(s3, s3_proxy, s3_bucket):
    """Who may not list cannot tell a missing store from a forbidden one: the line says both."""
    s3_proxy.set(*no_list_bucket())
    url, words = f"s3://{s3_bucket}/nothing", option_words(s3.storage_options(s3_proxy.url))
    assert "s3:GetObject" in one_line(cli("info", url, *words), 5)
    s3_proxy.set()
    assert f"{url}: no store here" in one_line(cli("info", url, *words), 4)


# -- a web server ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def web(reference):
    with static_server(reference.root.url) as url:
        yield url


def test_a_web_server_is_read_like_a_folder(web, reference, tmp_path):
    store = open_store(web)
    assert sorted(store.genomes) == ["toy1", "toy2"]
    same_windows(windows_of(store), windows_of(reference.store))
    assert np.array_equal(
        store.genomes["toy2"].read_bases(0, 12_000), reference.store.genomes["toy2"].read_bases(0, 12_000)
    )
    found = json.loads(check(cli("info", web, "--json")).stdout)
    assert list(found["splits"]) == ["run1"]
    check(cli("export", "splicevo", web, tmp_path / "web", "--split", "run1"))
    check(cli("export", "splicevo", reference.root.url, tmp_path / "disk", "--split", "run1"))
    for path in (tmp_path / "disk").rglob("*.mmap"):
        assert (tmp_path / "web" / path.relative_to(tmp_path / "disk")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("command", ["ingest", "split", "predict", pytest.param("split again", marks=pytest.mark.slow)])
def test_a_web_server_is_never_written(web, reference, tmp_path, command):
    before = reference.root.sizes("")
    changed = tmp_path / "in"
    shutil.copytree(reference.inputs, changed)
    (changed / "toy1.fa").write_text((changed / "toy1.fa").read_text().lower())
    if command == "predict":
        with pytest.raises(Exception, match="read-only") as caught:
            predict(open_store(web), "p2")
        assert caught.value.exit_code == 4
    else:
        name = "run1" if command == "split again" else "run2"
        words = {
            "ingest": ("ingest", "genomes", web, changed / "genomes.json"),
        }.get(
            command,
            ("split", "windows", web, name, "--orthology", reference.inputs / "orthologs.tsv", *SPLIT, "--seed", "5"),
        )
        assert "http(s) stores are read-only" in one_line(cli(*words), 4)
    assert reference.root.sizes("") == before


def test_a_web_server_without_a_store_is_said(web):
    assert "no store here" in one_line(cli("info", f"{web}/nothing"), 4)


def test_inputs_come_from_a_web_server(reference, tmp_path):
    with static_server(reference.inputs) as url:
        check(cli("ingest", "genomes", tmp_path / "store", f"{url}/genomes.json"))
        missing = one_line(cli("ingest", "genomes", tmp_path / "other", f"{url}/none.json"), 3)
        assert f"{url}/none.json: no such file" in missing
    ours = open_store(str(tmp_path / "store"))
    for name, genome in reference.store.genomes.items():
        assert ours.genomes[name].generation == genome.generation


# -- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["threads:2", pytest.param("sync", marks=pytest.mark.slow)])
def test_memory_holds_a_store_for_this_process(reference, scheduler, request):
    url = f"memory://{request.node.name}/store"
    check(cli("ingest", "genomes", url, reference.inputs / "genomes.json", "--scheduler", scheduler))
    check(
        cli(
            "split",
            "windows",
            url,
            "run1",
            "--orthology",
            reference.inputs / "orthologs.tsv",
            *SPLIT,
            "--scheduler",
            scheduler,
        )
    )
    predict(open_store(url))
    check_same(StoreRoot(url), reference)
    same_windows(windows_of(open_store(url)), windows_of(reference.store))


def test_memory_does_not_go_with_other_processes(reference):
    words = ("ingest", "genomes", "memory://m/store", reference.inputs / "genomes.json", "--scheduler", "processes:2")
    assert "memory:// is visible to this process only" in one_line(cli(*words), 3)


# -- moving ------------------------------------------------------------------------------------------------------


def test_a_stream_goes_on_where_it_stopped_after_its_store_moved(published, reference, s3, tmp_path):
    from splicestore import WindowStream

    options = {"split": "run1", "batch_size": 8, "seed": 3}
    there = WindowStream(reference.store, **options)
    batches = there.numpy_batches()
    first = [next(batches).as_dict() for _ in range(2)]
    state = there.state_dict()
    moved = tmp_path / "moved"
    shutil.copytree(reference.root.url, moved)
    for store in (open_store(published.url, storage_options=published.storage_options), open_store(str(moved))):
        here = WindowStream(store, **options)
        here.load_state_dict(state)
        rest = [batch.as_dict() for batch in here.numpy_batches()]
        same_windows([*first, *rest], windows_of(reference.store))


def test_object_stores_are_what_s3_urls_open(published):
    assert isinstance(published.backend, ObjectBackend)
    assert not published.backend.is_local
