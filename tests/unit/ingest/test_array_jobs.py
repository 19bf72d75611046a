"""Job arrays: shares in any order, killed and run again, come out as one plain ingest."""

from __future__ import annotations

import itertools
import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splicestore.errors import ConfigError, LeaseHeldError, PartitionMissingError, PointerMovedError, StoreError
from splicestore.ingest import IngestOptions, ingest_genomes, load_genomes_config
from splicestore.ingest.array_jobs import finalise_genome, ingest_share
from splicestore.ingest.usage import ingest_usage
from splicestore.storage import StoreRoot, read_catalog, read_pointer, write_lease
from splicestore.storage import publish as publish_module
from splicestore.storage.catalog import list_pointers
from splicestore.storage.runs import JobShare, array_string, only_run, parse_share, read_run, unfinished_runs
from splicestore.store import open_store
from tests.service.killing import content, reannotate
from tests.service.study import splicestore, write_study

PATH = "genomes/toy1"
UNITS = ("sequence-00000", "tables", "usage")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two genomes, one alone, that one with other splice sites; and the one as plain ingest makes it."""
    folder = tmp_path_factory.mktemp("study")
    one = load_genomes_config(str(write_study(folder / "one")))
    two = load_genomes_config(str(write_study(folder / "two", n_genomes=2)))
    write_study(folder / "changed")
    reannotate(folder / "changed")
    changed = load_genomes_config(str(folder / "changed" / "genomes.json"))
    plain = StoreRoot(str(folder / "plain"))
    list(ingest_genomes(plain, one))
    return SimpleNamespace(folder=folder, one=one, two=two, changed=changed, plain=plain)


@pytest.fixture
def root(tmp_path):
    return StoreRoot(str(tmp_path / "store"))


def finalise(root, path=PATH):
    generation = only_run(root, path)
    return finalise_genome(root, path, generation, read_run(root, f"{path}/{generation}"))


def work(root, config, index, of):
    return ingest_share(root, config, JobShare(index, of))


def files_of(root):
    return {key: root.get(key) for key in root.sizes("")}


# -- shares ------------------------------------------------------------------------------------------------------


@given(of=st.integers(1, 500), data=st.data())
def test_a_share_is_read_as_it_is_written(of, data):
    index = data.draw(st.integers(0, of - 1))
    share = parse_share(f"{index}/{of}")
    assert share == JobShare(index, of)
    assert share.name == f"{index}-of-{of}"


@pytest.mark.parametrize("text", ["", "3", "7/7", "-1/7", "1/0", "a/7", "1/7/9", "1.0/7", "1/"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ConfigError, match=r"--partition .*: write I/N with I counted from 0"):
        parse_share(text)


@given(indices=st.lists(st.integers(0, 60)))
def test_an_array_string_names_these_jobs_and_no_others(indices):
    named = set()
    for run in filter(None, array_string(indices).split(",")):
        first, _, last = run.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == set(indices)


# -- one genome, many jobs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [2, 3, 7])
def test_jobs_in_any_order_and_twice_come_out_as_a_plain_ingest(study, root, of):
    order = [*range(of), *range(of)]
    random.Random(of).shuffle(order)
    done = {index: work(root, study.one, index, of).units["toy1"] for index in order}
    assert sum(done.values()) == len(UNITS)
    assert read_pointer(root, PATH) is None
    assert finalise(root)
    assert content(root, PATH) == content(study.plain, PATH)
    assert read_catalog(root) == read_catalog(study.plain)
    mine, plain = files_of(root), files_of(study.plain)
    assert mine.keys() == plain.keys()
    assert {key for key in plain if mine[key] != plain[key]} <= {key for key in plain if key.endswith("manifest.json")}


def test_a_job_does_only_its_own_units(study, root):
    work(root, study.one, 1, 3)
    record = read_run(root, f"{PATH}/{only_run(root, PATH)}")
    assert (record.of, record.units) == (3, {unit: i for i, unit in enumerate(UNITS)})
    assert [key.rsplit("/", 1)[-1] for key in root.sizes("") if "/parts/" in key] == ["tables.json"]


def test_the_same_job_again_writes_no_part_again(study, root):
    work(root, study.one, 0, 2)
    before = {p: p.stat().st_mtime_ns for p in (root.backend.folder).rglob("*") if "/c/" in str(p) or "parts" in str(p)}
    work(root, study.one, 0, 2)
    assert before
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize("missing", [s for n in (1, 2) for s in itertools.combinations(range(3), n)])
def test_finalise_names_the_jobs_that_are_missing_and_then_publishes(study, root, missing):
    for index in set(range(3)) - set(missing):
        work(root, study.one, index, 3)
    jobs = array_string(missing)
    with pytest.raises(
        PartitionMissingError, match=rf"{len(missing)} of 3 units .* --array={jobs} with --partition I/3"
    ) as e:
        finalise(root)
    assert set(e.value.missing) == {UNITS[i] for i in missing}
    assert read_pointer(root, PATH) is None
    for index in missing:
        work(root, study.one, index, 3)
    assert finalise(root)
    assert content(root, PATH) == content(study.plain, PATH)


def test_jobs_of_a_genome_that_is_published_do_nothing(study, root):
    list(ingest_genomes(root, study.one))
    before = files_of(root)
    assert work(root, study.one, 0, 2).units == {"toy1": 0}
    assert files_of(root) == before
    with pytest.raises(StoreError, match="nothing here waits to be finalised"):
        only_run(root, PATH)


def test_a_changed_annotation_takes_its_usage_along(study, root):
    list(ingest_genomes(root, study.one))
    old = content(root, PATH)
    for index in range(3):
        work(root, study.changed, index, 3)
        assert content(root, PATH) == old
    assert finalise(root)
    genome = open_store(root.url).genomes["toy1"]
    assert len(genome.site_position) == 41
    alpha, _ = genome.read_usage(0, 41)
    assert np.isfinite(alpha).sum() == 40


def test_usage_that_arrives_after_the_jobs_keeps_finalise_from_orphaning_it(study, root):
    list(ingest_genomes(root, study.one))
    for index in range(2):
        work(root, study.changed, index, 2)
    sheet = study.folder / "one" / "march.tsv"
    sheet.write_text("sample\tfile\tcondition\ns1\ttoy1.tsv\tHeart_1\n")
    ingest_usage(root, "toy1", "march", str(sheet))
    with pytest.raises(PointerMovedError, match="usage/toy1/march was published since the jobs ran"):
        finalise(root)
    for index in range(2):
        work(root, study.changed, index, 2)
    assert finalise(root)
    assert open_store(root.url).genomes["toy1"].condition_names == ["Brain_1", "Heart_1"]


def test_going_back_to_inputs_that_were_current_once_is_a_switch_too(study, root):
    for config in (study.one, study.changed, study.one):
        for index in range(2):
            work(root, config, index, 2)
        assert finalise(root)
    assert content(root, PATH) == content(study.plain, PATH)


class Killed(BaseException):
    pass


def test_a_finalise_killed_after_the_switch_is_finished_by_the_same_command(study, root, monkeypatch):
    for index in range(2):
        work(root, study.one, index, 2)

    def die(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(publish_module, "list_name", die)
        # Once for the panel, which is switched first, once for the genome.
        for _ in range(2):
            with pytest.raises(Killed):
                finalise(root)
            patch.setattr(publish_module, "list_name", lambda root, path: die() if path == PATH else None)
    assert read_pointer(root, PATH) is not None
    splicestore("finalise", root.url, PATH, check=0)
    assert read_catalog(root) == list_pointers(root)


# -- many genomes ------------------------------------------------------------------------------------------------


def test_with_as_many_genomes_as_jobs_each_job_publishes_its_own(study, root):
    first = work(root, study.two, 0, 2)
    assert (first.published, first.units) == ({"toy1": "published"}, {})
    assert json.loads(json.dumps(first.document()))["published"] == {"toy1": "published"}
    assert work(root, study.two, 1, 2).published == {"toy2": "published"}
    assert work(root, study.two, 1, 2).published == {"toy2": "unchanged"}
    assert sorted(read_catalog(root)["genomes"]) == ["toy1", "toy2"]


def test_the_first_units_of_several_genomes_go_to_different_jobs(study, root):
    for index in range(3):
        assert work(root, study.two, index, 3).units == {"toy1": 1, "toy2": 1}
    for path, first in (("genomes/toy1", 0), ("genomes/toy2", 1)):
        assert read_run(root, f"{path}/{only_run(root, path)}").units["sequence-00000"] == first
        assert finalise(root, path)


def test_finalise_finds_all_that_wait_whatever_their_names(study, tmp_path):
    document = json.loads((study.folder / "one" / "genomes.json").read_text())
    document["genomes"][0]["genome_id"] = "toy.p14"
    document["usage_files"] = {"toy.p14": document["usage_files"]["toy1"]}
    config = study.folder / "one" / "dotted.json"
    config.write_text(json.dumps(document))
    root = StoreRoot(str(tmp_path / "store"))
    for index in range(2):
        work(root, load_genomes_config(str(config)), index, 2)
    assert unfinished_runs(root, "genomes/toy.p14") != []
    splicestore("finalise", root.url, check=0)
    assert list(read_catalog(root)["genomes"]) == ["toy.p14"]


# -- leases ------------------------------------------------------------------------------------------------------


def test_jobs_and_whole_writers_tell_each_other(study, root):
    with write_lease(root, PATH), pytest.raises(LeaseHeldError, match="is being written whole by process"):
        work(root, study.one, 0, 2)
    with write_lease(root, PATH, job="0-of-2"):
        with pytest.raises(LeaseHeldError, match="is being written by process"):
            work(root, study.one, 0, 2)
        work(root, study.one, 1, 2)
    work(root, study.one, 0, 2)
    assert finalise(root)


def test_options_that_publish_nothing_else_do_not_change_the_generation(study, root):
    ingest_share(root, study.one, JobShare(0, 2), IngestOptions(scheduler="threads:2", override_gates=True))
    work(root, study.one, 1, 2)
    assert finalise(root)
    assert read_pointer(root, PATH).current == read_pointer(study.plain, PATH).current


def test_finalise_names_the_jobs_of_every_genome_that_waits(root, study):
    ingest_share(root, study.two, JobShare(0, 3))
    done = splicestore("finalise", root.url)
    assert done.returncode == 4
    assert "2 names wait for jobs:" in done.stderr
    for genome in ("toy1", "toy2"):
        assert f"genomes/{genome}/" in done.stderr
    for index in (1, 2):
        ingest_share(root, study.two, JobShare(index, 3))
    assert "published" in splicestore("finalise", root.url, check=0).stdout
    # A batch script may say it twice.
    assert "nothing waits to be finalised" in splicestore("finalise", root.url, check=0).stdout


def test_finalise_without_a_store_says_so(tmp_path):
    done = splicestore("finalise", tmp_path / "nothing")
    assert (done.returncode, "no store here" in done.stderr) == (4, True)
