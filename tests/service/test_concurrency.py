"""Several commands at once on one store: one publishes, the others are told or do the same; readers keep what they opened."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import socket
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from splicestore.ingest import ingest_genomes, load_genomes_config
from splicestore.schema import SEQUENCE_SHARD
from splicestore.storage import StoreRoot, read_catalog, read_pointer, write_lease
from splicestore.storage.catalog import list_pointers
from splicestore.store import open_store
from tests.servers.kills import run_and_kill, splicestore_command
from tests.service.killing import Study, content, step_of
from tests.service.study import splicestore, write_study

PATH = "genomes/toy1"
JOBS = 7


def at_once(*commands):
    """Start commands together; wait for all."""
    started = [
        subprocess.Popen(splicestore_command(*c), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for c in commands
    ]
    ended = []
    for process in started:
        out, err = process.communicate(timeout=300)
        ended.append(SimpleNamespace(pid=process.pid, status=process.returncode, out=out, err=err))
    return ended


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Inputs with two annotations, and the digests of what plain ingests of each publish."""
    study = Study.make(tmp_path_factory.mktemp("concurrency"))
    plain = {}
    for name, config in (("first", study.config), ("changed", study.changed_config)):
        root = StoreRoot(str(study.folder / f"plain-{name}"))
        list(ingest_genomes(root, load_genomes_config(str(config))))
        plain[name] = content(root, PATH)
    return SimpleNamespace(config=study.config, changed=study.changed_config, plain=plain, folder=study.folder)


def assert_told_or_done(ended):
    """Whoever did not publish found all done, or says which process is at it, or that another came first."""
    assert 0 in [e.status for e in ended]
    for e in ended:
        if e.status:
            assert e.status == 4, e.err
            others = "|".join(str(o.pid) for o in ended if o is not e)
            assert re.search(rf"written by process ({others}) on {re.escape(socket.gethostname())} since", e.err) or (
                "another writer published" in e.err
            ), e.err


# -- writers -----------------------------------------------------------------------------------------------------


def test_two_with_the_same_inputs(study, tmp_path):
    command = ("ingest", "genomes", tmp_path / "store", study.config, "--json")
    ended = at_once(command, command)
    assert_told_or_done(ended)
    statuses = [json.loads(e.out)["genomes"]["toy1"]["status"] for e in ended if e.status == 0]
    assert sorted(statuses) in (["published"], ["published", "unchanged"])
    root = StoreRoot(str(tmp_path / "store"))
    assert content(root, PATH) == study.plain["first"]
    assert read_catalog(root) == list_pointers(root)


def test_two_with_other_inputs(study, tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    ended = at_once(*(("ingest", "genomes", root.url, config) for config in (study.config, study.changed)))
    assert_told_or_done(ended)
    assert content(root, PATH) in study.plain.values()
    assert read_catalog(root) == list_pointers(root)
    splicestore("ingest", "genomes", root.url, study.changed, check=0)
    assert content(root, PATH) == study.plain["changed"]


def test_the_holder_is_named(study, tmp_path):
    with write_lease(StoreRoot(str(tmp_path / "store")), PATH):
        told = splicestore("ingest", "genomes", tmp_path / "store", study.config, check=4).stderr
    assert f"{PATH}: is being written by process {os.getpid()} on {socket.gethostname()} since " in told
    assert "Traceback" not in told
    splicestore("ingest", "genomes", tmp_path / "store", study.config, check=0)


def _ingest_when_told(url, config, genome_id, together, n):
    genomes = load_genomes_config(config)
    for i in range(n):
        together.wait(120)
        list(ingest_genomes(StoreRoot(f"{url}-{i}"), genomes, genome_ids=[genome_id]))


def test_two_genomes_at_once_are_both_listed(tmp_path):
    """Ten times, in processes that are warm, so that they meet."""
    config, n = str(write_study(tmp_path / "in", n_genomes=2)), 10
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    workers = [
        context.Process(target=_ingest_when_told, args=(str(tmp_path / "store"), config, g, together, n))
        for g in ("toy1", "toy2")
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
    assert [worker.exitcode for worker in workers] == [0, 0]
    for i in range(n):
        root = StoreRoot(str(tmp_path / f"store-{i}"))
        assert sorted(read_catalog(root)["genomes"]) == ["toy1", "toy2"]
        assert read_catalog(root) == list_pointers(root)


def test_two_commands_for_two_genomes(tmp_path):
    config = write_study(tmp_path / "in", n_genomes=2)
    ended = at_once(*(("ingest", "genomes", tmp_path / "store", config, "--genome", g) for g in ("toy1", "toy2")))
    assert [e.status for e in ended] == [0, 0], [e.err for e in ended]
    assert list(open_store(str(tmp_path / "store")).genomes) == ["toy1", "toy2"]


# -- readers -----------------------------------------------------------------------------------------------------


def test_a_reader_keeps_what_it_opened_across_a_switch(study, tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    splicestore("ingest", "genomes", root.url, study.config, check=0)
    store = open_store(root.url)
    genome, unread = store.genomes["toy1"], open_store(root.url).genomes["toy1"]
    bases, alpha = genome.read_bases(0, 6_000), genome.read_usage(0, 40)[0]
    windows = genome.windows(400, 100)
    labels = windows.label()
    splicestore("ingest", "genomes", root.url, study.changed, check=0)
    # The one that had read nothing yet holds its generation as well.
    for old in (genome, unread, store.genomes["toy1"]):
        assert old.generation == genome.generation
        assert len(old.site_position) == 40
        assert (old.read_bases(0, 6_000) == bases).all()
        assert np.array_equal(old.read_usage(0, 40)[0], alpha, equal_nan=True)
    assert np.array_equal(windows.label(), labels)
    new = open_store(root.url).genomes["toy1"]
    assert new.generation != genome.generation
    assert len(new.site_position) == 41
    assert np.isfinite(new.read_usage(0, 41)[0]).sum() == 40


# -- job arrays --------------------------------------------------------------------------------------------------


def job(root, config, index, *, of=JOBS):
    return ("ingest", "genomes", root.url, config, "--partition", f"{index}/{of}")


def assert_like_plain_ingest(root, config, tmp_path, genome_ids):
    plain = StoreRoot(str(tmp_path / "plain"))
    list(ingest_genomes(plain, load_genomes_config(str(config))))
    for genome_id in genome_ids:
        assert content(root, f"genomes/{genome_id}") == content(plain, f"genomes/{genome_id}")
    assert read_catalog(root) == read_catalog(plain)


def test_a_job_array_with_a_killed_job(tmp_path):
    """Seven processes at once for two genomes of three units each; one is killed, named, run again."""
    config, root = write_study(tmp_path / "in", n_genomes=2), StoreRoot(str(tmp_path / "store"))
    # Job 1 has the tables of the first genome and the sequence of the second.
    line = splicestore_command(*job(root, config, 1))
    alone = run_and_kill([str(tmp_path / "aside") if word == root.url else word for word in line])
    shard = next(w.number for w in alone.writes if step_of(w) == "shard")
    killed = run_and_kill(line, on_write=shard, when="after")
    assert killed.status == -9
    ended = at_once(*(job(root, config, index) for index in range(JOBS) if index != 1))
    assert [e.status for e in ended] == [0] * (JOBS - 1), [e.err for e in ended]
    told = splicestore("finalise", root.url, check=4).stderr
    assert re.search(r"genomes/toy\d/\w+: 1 of 3 units are not written .* --array=1 with --partition I/7", told)
    splicestore(*job(root, config, 1), check=0)
    splicestore("finalise", root.url, check=0)
    assert_like_plain_ingest(root, config, tmp_path, ("toy1", "toy2"))


@pytest.mark.slow
def test_a_job_array_of_many_shards(tmp_path):
    """Nine shards of mostly unknown bases, dealt to seven processes at once."""
    config, root = write_study(tmp_path / "in"), StoreRoot(str(tmp_path / "store"))
    line, letters = SEQUENCE_SHARD // 512, np.frombuffer(b"ACGT", dtype=np.uint8)
    rng = np.random.default_rng(0)
    with (tmp_path / "in" / "toy1.fa").open("ab") as fasta:
        fasta.write(b">chrLong\n")
        for number in range(512 * 8 + 256):
            row = np.full(line, ord("N"), dtype=np.uint8)
            if number % 512 == 100:
                row[:1_000] = rng.choice(letters, 1_000)
            fasta.write(row.tobytes() + b"\n")
    ended = at_once(*(job(root, config, index) for index in range(JOBS)))
    assert [e.status for e in ended] == [0] * JOBS, [e.err for e in ended]
    splicestore("finalise", root.url, check=0)
    genome = open_store(root.url).genomes["toy1"]
    parts = StoreRoot(root.url).children(f"{genome.path}/parts")
    assert [p for p in parts if p.startswith("sequence")] == [f"sequence-{i:05d}.json" for i in range(9)]
    assert_like_plain_ingest(root, config, tmp_path, ["toy1"])


def test_a_changed_annotation_by_a_job_array_is_old_until_it_is_finalised(study, tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    list(ingest_genomes(root, load_genomes_config(str(study.config))))
    assert [e.status for e in at_once(*(job(root, study.changed, i, of=2) for i in range(2)))] == [0, 0]
    assert content(root, PATH) == study.plain["first"]
    pointer = read_pointer(root, PATH)
    splicestore("finalise", root.url, check=0)
    assert content(root, PATH) == study.plain["changed"]
    assert set(read_pointer(root, PATH).superseded) == {pointer.current}
