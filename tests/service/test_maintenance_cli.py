"""``verify``, ``copy``, ``prune`` and ``ls`` on stores that ingest made, through the command line."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from splicestore.cli import maintain
from splicestore.errors import SpliceStoreError
from splicestore.ingest import IngestOptions, ingest_genomes, load_genomes_config
from splicestore.split import SplitOptions, split_windows
from splicestore.storage import StoreRoot, read_pointer
from splicestore.store import open_store
from tests.service.study import write_study

app = typer.Typer()
for command in (maintain.verify, maintain.copy, maintain.prune, maintain.ls):
    app.command(command.__name__)(command)


def run(*arguments, check=0):
    """Run a command; the exit status is that of the error it raises, as in the application."""
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    error = done.exception
    status = error.exit_code if isinstance(error, SpliceStoreError) else done.exit_code
    assert status == check, (done.output, error)
    return SimpleNamespace(stdout=done.stdout, error=str(error) if error else "")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two genomes with usage and a split; then the first gets another annotation."""
    folder = tmp_path_factory.mktemp("study")
    config = write_study(folder / "in", n_genomes=2)
    root = StoreRoot(str(folder / "store"))
    list(ingest_genomes(root, load_genomes_config(str(config)), IngestOptions()))
    store = open_store(root.url)
    split_windows(
        store,
        "run1",
        SplitOptions(window_size=400, context_size=100, reference_genome="toy1", test_chromosomes=("chrB",)),
        homology_url=str(folder / "in" / "orthologs.tsv"),
    )
    document = json.loads(config.read_text())
    document["genomes"][0]["metadata"]["species"] = "another"
    config.write_text(json.dumps(document))
    list(ingest_genomes(root, load_genomes_config(str(config)), IngestOptions()))
    return folder / "store"


@pytest.fixture
def store(made, tmp_path):
    shutil.copytree(made, tmp_path / "store")
    return tmp_path / "store"


def turn(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(bytes(data))


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_verify_counts_and_says_nothing_is_wrong(made):
    report = json.loads(run("verify", made, "--json").stdout)
    assert (report["intact"], report["n_damage"], report["quick"]) == (True, 0, False)
    assert report["n_generations"] == 6
    objects = [p for p in made.rglob("*") if p.is_file() and "/c/" in p.as_posix()]
    assert (report["n_objects"], report["n_bytes"]) == (len(objects), sum(p.stat().st_size for p in objects))
    assert "0 damaged, 0 notes" in run("verify", made, "--quick").stdout


def test_every_stored_file_is_protected(store):
    """One byte in each of sixty of the files that ingest and split made, turned and put back."""
    from splicestore.maintenance import verify

    root = StoreRoot(str(store))
    files = sorted(p for p in store.rglob("*") if p.is_file())
    rng = np.random.default_rng(0)
    for path in [files[i] for i in rng.choice(len(files), size=60, replace=False)]:
        key, data = path.relative_to(store).as_posix(), path.read_bytes()
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(flipped))
        assert key in {f.key for f in verify(root).damage}, key
        path.write_bytes(data)


def test_verify_names_damage_and_repair_mends_what_it_can(store):
    whole = files_of(store)
    root = StoreRoot(str(store))
    genome = store / "genomes" / "toy2" / read_pointer(root, "genomes/toy2").current
    turn(genome / "zarr.json")
    turn(genome / "sequence" / "zarr.json")
    (store / "catalog.json").unlink()
    turned = run("verify", store, check=4)
    assert "3 damaged keys" in turned.error
    assert "--repair` mends what it can" in turned.error
    assert f"damage    genomes/toy2/{genome.name}/zarr.json: its bytes do not match its seal" in turned.stdout
    mended = run("verify", store, "--repair")
    assert "repaired  catalog.json: rebuilt from the pointers" in mended.stdout
    assert files_of(store) == whole
    turn(genome / "sequence" / "c" / "0")
    mended = run("verify", store, "--repair")
    assert f"repaired  genomes/toy2/{genome.name}: written again from its inputs: sequence-00000" in mended.stdout
    assert files_of(store) == whole


def test_a_damaged_split_is_taken_out_on_request_and_made_again(store, made):
    whole = files_of(store)
    root = StoreRoot(str(store))
    split = store / "splits" / "run1" / read_pointer(root, "splits/run1").current
    turn(split / "window_start" / "c" / "0")
    left = json.loads(run("verify", store, "--repair", "--json", check=4).stdout)
    damaged = [f["key"] for f in left["findings"] if f["severity"] == "damage"]
    assert damaged == [f"splits/run1/{split.name}/window_start/c/0"]
    assert "add --discard and run the command that made it again" in left["refused"][0]["why"]
    run("verify", store, "--repair", "--discard", check=4)
    with pytest.raises(SpliceStoreError, match="no such generation"):
        open_store(root.url).splits["run1"].to_pandas()
    split_windows(
        open_store(root.url),
        "run1",
        SplitOptions(window_size=400, context_size=100, reference_genome="toy1", test_chromosomes=("chrB",)),
        homology_url=str(made.parent / "in" / "orthologs.tsv"),
    )
    assert whole.keys() - files_of(store).keys() == {
        f"splits/run1/{split.name}/{key}" for key in ("zarr.json", "parts/table.json")
    }
    assert len(open_store(root.url).splits["run1"].to_pandas())
    assert "0 damaged" in run("verify", store).stdout


def test_verify_options_that_do_not_go_together(store):
    assert "--quick with --repair" in run("verify", store, "--quick", "--repair", check=3).error
    assert "--remove-foreign goes with --repair" in run("verify", store, "--remove-foreign", check=3).error
    assert "nothing lies below 'genomes/toy3'; did you mean" in run("verify", store, "genomes/toy3", check=4).error


def test_copy_brings_a_split_with_what_it_pins(made, tmp_path):
    planned = json.loads(run("copy", made, tmp_path / "copy", "--split", "run1", "--dry-run", "--json").stdout)
    assert not (tmp_path / "copy").exists()
    done = json.loads(run("copy", made, tmp_path / "copy", "--split", "run1", "--json").stdout)
    assert (done["n_objects"], done["n_bytes"]) == (planned["n_objects"], planned["n_bytes"])
    kinds = [row["key"].rsplit("/", 1)[0] for row in done["generations"]]
    assert kinds == ["usage/toy1/main", "usage/toy2/main", "genomes/toy1", "genomes/toy2", "splits/run1"]
    here, there = open_store(str(made)), open_store(str(tmp_path / "copy"))
    assert there.splits["run1"].to_pandas().equals(here.splits["run1"].to_pandas())
    genome = there.splits["run1"].genome("toy1")
    assert (genome.fetch("chrA", 0, 6_000) == here.genomes["toy1"].fetch("chrA", 0, 6_000)).all()
    assert genome.usage.to_pandas().equals(here.splits["run1"].genome("toy1").usage.to_pandas())
    assert "0 damaged, 0 notes" in run("verify", tmp_path / "copy").stdout
    again = run("copy", made, tmp_path / "copy", "--split", "run1")
    assert "0 objects, 0 B copied" in again.stdout


def test_copy_refuses_a_damaged_source_by_key(store, tmp_path):
    key = f"genomes/toy2/{read_pointer(StoreRoot(str(store)), 'genomes/toy2').current}/site_position/c/0"
    turn(store / key)
    refused = run("copy", store, tmp_path / "copy", check=4)
    assert f"{key}: missing or not as it was recorded" in refused.error
    assert not (tmp_path / "copy" / "catalog.json").exists()


def test_storage_options_of_both_sides(made):
    run(
        "copy", made, "memory://maintain-cli", "--genome", "toy2", "--no-usage", "--storage-option", "anon=true",
        "--source-option", "anon=false", "--target-option", "use_listings_cache=false",
    )  # fmt: skip
    copied = StoreRoot("memory://maintain-cli", {"anon": True, "use_listings_cache": False})
    assert read_pointer(copied, "genomes/toy2") is not None


def test_prune_keeps_pins_and_says_what_it_frees(store):
    rows = {(r["name"], r["current"]): r for r in json.loads(run("ls", store, "--json").stdout)["generations"]}
    old = rows["toy1", False]
    assert old["superseded"] is not None
    assert [base.split("/")[0] for base in old["pinned_by"]] == ["splits"]
    assert json.loads(run("prune", store, "--older-than", "0", "--json").stdout)["removed"] == []
    shutil.rmtree(store / "splits")
    (store / "catalog.json").unlink()
    run("verify", store, "--repair")
    planned = json.loads(run("prune", store, "--older-than", "0", "--dry-run", "--json").stdout)
    (item,) = planned["removed"]
    assert (item["key"], item["n_bytes"]) == (f"genomes/toy1/{old['generation']}", old["n_bytes"])
    before = sum(map(len, files_of(store).values()))
    assert "removed" in run("prune", store, "--older-than", "0").stdout
    assert before - sum(map(len, files_of(store).values())) == item["n_bytes"]
    assert "0 damaged, 0 notes" in run("verify", store).stdout
    assert open_store(str(store)).genomes["toy1"].usage.to_pandas().shape[0] > 0
    assert "write a number and s, m, h, d or w" in run("prune", store, "--older-than", "soon", check=3).error


def test_ls_prints_a_table_with_totals(made):
    lines = run("ls", made).stdout.splitlines()
    assert lines[0].split() == [
        "kind",
        "name",
        "generation",
        "status",
        "current",
        "superseded",
        "pinned",
        "by",
        "objects",
        "bytes",
    ]
    assert len(lines) == 1 + 6 + 1
    total = sum(p.stat().st_size for p in made.rglob("*") if p.is_file() and len(p.relative_to(made).parts) > 3)
    rows = json.loads(run("ls", made, "--json").stdout)["generations"]
    usage_pointers = list(made.glob("usage/*/*/zarr.json"))
    assert sum(r["n_bytes"] for r in rows) == total - sum(p.stat().st_size for p in usage_pointers)
    assert [r["name"] for r in json.loads(run("ls", made, "usage/toy1", "--json").stdout)["generations"]] == [
        "toy1/main"
    ]
