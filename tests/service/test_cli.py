"""The command line as a subprocess: the whole job, exit statuses, JSON, and what bad input says."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray

from tests.service.study import splicestore, write_study


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    config = write_study(folder / "in", n_genomes=2)
    splicestore("ingest", "genomes", folder / "store", config, check=0)
    splicestore(
        "split", "windows", folder / "store", "run1", "--orthology", folder / "in" / "orthologs.tsv", "--reference-genome", "toy1",
        "--test-chromosomes", "chrB", "--window-size", "400", "--context-size", "100", check=0,
    )  # fmt: skip
    return folder


def test_ingest_reports_the_contract_json(tmp_path):
    config = write_study(tmp_path / "in")
    done = splicestore("ingest", "genomes", tmp_path / "store", config, "--json", check=0)
    report = json.loads(done.stdout)["genomes"]["toy1"]
    assert report["status"] == "published"
    assert report["n_bases"] == 12_000
    assert (report["n_contigs"], report["n_genes"]) == (2, 4)
    assert report["n_sites"] == {"donor": 20, "acceptor": 20}
    assert report["conditions"] == ["Brain_1"]
    assert report["canonical_fraction"] == 1.0
    assert report["dropped"] == {}
    assert report["observed_peak_bytes"] < report["projected_peak_bytes"]
    assert re.fullmatch("[0-9a-f]{16}", report["generation"])


def test_same_command_again_does_nothing_and_other_genomes_are_never_touched(tmp_path):
    config = write_study(tmp_path / "in", n_genomes=2)
    splicestore("ingest", "genomes", tmp_path / "store", config, "--genome", "toy1", check=0)
    before = files_of(tmp_path / "store")
    again = splicestore("ingest", "genomes", tmp_path / "store", config, "--genome", "toy1", "--json", check=0)
    assert json.loads(again.stdout)["genomes"]["toy1"]["status"] == "unchanged"
    assert files_of(tmp_path / "store") == before
    splicestore("ingest", "genomes", tmp_path / "store", config, check=0)
    after = files_of(tmp_path / "store")
    assert {k: after[k] for k in before if k.name != "catalog.json"} == {
        k: v for k, v in before.items() if k.name != "catalog.json"
    }
    assert set(json.loads((tmp_path / "store" / "catalog.json").read_text())["genomes"]) == {"toy1", "toy2"}


def test_workers_equal_one_process(tmp_path):
    config = write_study(tmp_path / "in", n_genomes=2)
    splicestore("ingest", "genomes", tmp_path / "one", config, check=0)
    splicestore("ingest", "genomes", tmp_path / "two", config, "--scheduler", "processes:2", check=0)
    one, two = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert one.keys() == two.keys()
    assert {k for k in one if one[k] != two[k]} <= {k for k in one if k.name == "manifest.json"}


def test_split_reports_the_contract_json_and_conserves(study):
    done = splicestore(
        "split", "windows", study / "store", "again", "--orthology", study / "in" / "orthologs.tsv", "--reference-genome", "toy1",
        "--test-chromosomes", "chrB", "--window-size", "400", "--context-size", "100", "--json", check=0,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["genes"] == {"train": 4, "val": 0, "test": 4, "excluded": 0}
    assert sum(report["windows"].values()) == len(
        xarray.open_zarr(f"{study}/store/splits/again/{report['generation']}").window_start
    )
    assert report["n_components"] == 4
    assert report["leakage"]["groups_crossing"] == 0
    assert sum(report["reasons"].values()) == report["windows"]["excluded"]


def test_info_ls_and_explain(study):
    info = json.loads(splicestore("info", study / "store", "--json", check=0).stdout)
    assert list(info["genomes"]) == ["toy1", "toy2"]
    assert info["splits"]["run1"]["window_size"] == 400
    listed = json.loads(splicestore("ls", study / "store", "--json", check=0).stdout)["generations"]
    assert {(r["kind"], r["name"]) for r in listed} >= {("genomes", "toy1"), ("usage", "toy1/main"), ("splits", "run1")}
    assert all(r["status"] == "complete" and r["n_bytes"] > 0 for r in listed)
    story = splicestore("explain", study / "store", "toy2_chrB_200", check=0).stdout
    assert "5 donors, 5 acceptors" in story
    assert "run1: test" in story
    assert "10 of 10 sites measured" in story


def test_explain_says_why_a_gene_was_dropped(tmp_path):
    config = write_study(tmp_path / "in")
    document = json.loads(config.read_text())
    document["genomes"][0]["chromosomes"] = ["chrA"]
    document["usage_files"] = {}
    config.write_text(json.dumps(document))
    splicestore("ingest", "genomes", tmp_path / "store", config, check=0)
    story = splicestore("explain", tmp_path / "store", "toy1_chrB_200", check=0).stdout
    assert "verdict   not stored: chromosome_not_selected" in story
    missing = splicestore("explain", tmp_path / "store", "toy1_chrA_301", check=3)
    assert "did you mean toy1_chrA_3300" in missing.stderr or "did you mean toy1_chrA_300" in missing.stderr


def test_train_evaluate_predict_and_export(study, tmp_path):
    (tmp_path / "train.yaml").write_text(
        "steps: 4\nbatch_size: 8\nwarmup_steps: 1\ncheckpoint_every: 2\nmodel: {options: {channels: 8, dilations: [1, 2]}}\n"
    )
    store, model = study / "store", tmp_path / "model"
    result = json.loads(
        splicestore("train", store, "run1", tmp_path / "train.yaml", "--output", model, "--json", check=0).stdout
    )
    assert result["step"] == result["stream"]["batches"] == 4
    assert 0 < result["stream"]["waiting_share"] < 1
    assert result["history"][-1]["batches_per_second"] > 0
    metrics = json.loads(splicestore("evaluate", store, "run1", model / "card.json", "--json", check=0).stdout)
    # Held-out gene bodies: 2 genomes x 2 genes x 5 introns.
    assert metrics["scorers"]["model"]["sites"]["all"]["donor"]["n_true"] == 20
    assert metrics["scorers"]["baseline"]["sites"]["all"]["acceptor"]["n_true"] == 20
    predict = ("predict", store, "p1", "--model", model / "card.json", "--split", "run1", "--subset", "test", "--json")
    first = json.loads(splicestore(*predict, check=0).stdout)
    assert first["status"] == "published"
    assert first["tasks"] == ["acceptor", "donor", "sse:Brain_1"]
    assert json.loads(splicestore(*predict, check=0).stdout)["status"] == "unchanged"
    group = xarray.open_zarr(f"{store}/predictions/p1/{first['generation']}")
    scores = group["prediction_toy1"].values
    assert scores.shape == (2, 12_000, 3)
    assert np.isnan(scores[:, :6_000]).all()
    assert ((scores >= 0) | np.isnan(scores)).all()
    assert np.isfinite(scores).any(axis=(1, 2)).all()
    exported = json.loads(
        splicestore("export", "splicevo", store, tmp_path / "dense", "--split", "run1", "--json", check=0).stdout
    )
    assert set(exported["windows"]) == {"train", "test"}
    summary = json.loads((tmp_path / "dense" / "test" / "summary.json").read_text())
    shape = summary["arrays"]["sequences"]["shape"]
    one_hot = np.memmap(tmp_path / "dense" / "test" / "sequences.mmap", dtype="float32", mode="r", shape=tuple(shape))
    assert shape[1:] == [600, 4]
    assert one_hot.sum(axis=2).max() == 1.0
    assert "exists already" in splicestore("export", "splicevo", store, tmp_path / "dense", check=3).stderr


def corrupt_fasta(folder, text):
    (folder / "toy1.fa").write_text(text)


def set_usage(folder, row, column, value):
    lines = (folder / "toy1.tsv").read_text().splitlines()
    cells = lines[row].split("\t")
    cells[column] = value
    lines[row] = "\t".join(cells)
    (folder / "toy1.tsv").write_text("\n".join(lines) + "\n")


def edit_gtf(folder, change):
    path = folder / "toy1.gtf.gz"
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()).decode()).encode()))


def truncate_gtf(folder):
    path = folder / "toy1.gtf.gz"
    path.write_bytes(path.read_bytes()[:-20])


def edit_config(folder, change):
    document = json.loads((folder / "genomes.json").read_text())
    change(document)
    (folder / "genomes.json").write_text(json.dumps(document))


BAD = {
    "truncated gz": (truncate_gtf, r"toy1\.gtf\.gz: gzip stream ends early"),
    "duplicate FASTA record": (
        lambda f: corrupt_fasta(f, (f / "toy1.fa").read_text() + ">chrA\nACGT\n"), r"toy1\.fa.*chrA"),
    "empty FASTA record": (lambda f: corrupt_fasta(f, (f / "toy1.fa").read_text() + ">chrC\n"), r"toy1\.fa.*chrC"),
    "byte that is no base": (lambda f: corrupt_fasta(f, (f / "toy1.fa").read_text() + ">chrC\nACG!T\n"), r"toy1\.fa.*chrC.*'!'"),
    "contig not in FASTA": (
        lambda f: edit_gtf(f, lambda t: t.replace("chrB\t", "chrZ\t")), r"toy1\.gtf\.gz.*'chrZ'.*missing_contigs: drop"),
    "exon past the contig": (
        lambda f: edit_gtf(f, lambda t: t.replace("\t5101\t5220\t", "\t5101\t7000\t")), r"past their contig.*chrB.*6000"),
    "reversed interval": (lambda f: edit_gtf(f, lambda t: t.replace("\t301\t420\t", "\t420\t301\t")), r"toy1\.gtf\.gz.*line 1\b"),
    "off by one": (lambda f: write_study(f, shift=1), r"toy1\.tsv.*splice sites.*(moved by -1|off by)"),
    "NaN count": (lambda f: set_usage(f, 3, 6, "NaN"), r"toy1\.tsv: line 4, column alpha_count: got 'NaN'"),
    "negative count": (lambda f: set_usage(f, 3, 7, "-2"), r"toy1\.tsv: line 4, column beta1_count: got '-2'"),
    "usage of another genome": (
        lambda f: (f / "toy1.tsv").write_text((f / "toy1.tsv").read_text().replace("\tchr", "\tscaffold")), r"0% of its rows"),
    "genome twice": (lambda f: edit_config(f, lambda d: d["genomes"].append(d["genomes"][0])), r"more than once: toy1"),
    "name with a slash": (
        lambda f: edit_config(f, lambda d: (d["genomes"][0].update(genome_id="../x"), d.pop("usage_files"))), r"'\.\./x' is not a name"),
    "unknown chromosome": (
        lambda f: edit_config(f, lambda d: d["genomes"][0].update(chromosomes=["chrAA"])), r"'chrAA'.*did you mean chrA"),
    "unknown key": (lambda f: edit_config(f, lambda d: d["genomes"][0].update(gtf="x")), r"unknown keys \['gtf'\]"),
    "missing file": (lambda f: (f / "toy1.fa").unlink(), r"toy1\.fa: no such file"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name_and_nothing_is_published(case, tmp_path):
    breaks, message = BAD[case]
    folder = tmp_path / "in"
    config = write_study(folder)
    breaks(folder)
    done = splicestore("ingest", "genomes", tmp_path / "store", config)
    assert done.returncode == 3, done.stderr
    assert re.search(message, done.stderr.replace("\n", " ")), done.stderr
    assert done.stderr.startswith("splicestore: ")
    assert "Traceback" not in done.stderr
    pointers = [p for p in (tmp_path / "store").rglob("zarr.json") if '"current"' in p.read_text()]
    assert pointers == []


def test_splicevo_positions_are_recognised_and_recorded(tmp_path):
    for convention in ("spliser", "splicevo"):
        config = write_study(tmp_path / convention, convention=convention)
        splicestore("ingest", "genomes", tmp_path / f"{convention}.store", config, check=0)
        pointer = json.loads((tmp_path / f"{convention}.store" / "usage" / "toy1" / "main" / "zarr.json").read_text())
        (generation,) = pointer["attributes"]["splicestore"]["current"].values()
        group = json.loads(
            (tmp_path / f"{convention}.store" / "usage" / "toy1" / "main" / generation / "zarr.json").read_text()
        )
        (join,) = group["attributes"]["splicestore"]["joins"]
        assert join["convention"] == convention
        assert join["join_rate"] == 1.0


def test_exons_in_any_order_are_the_same_genome(tmp_path):
    config = write_study(tmp_path / "in")
    plain = json.loads(splicestore("ingest", "genomes", tmp_path / "one", config, "--json", check=0).stdout)["genomes"][
        "toy1"
    ]
    edit_gtf(tmp_path / "in", lambda t: "\n".join(reversed(t.strip().split("\n"))) + "\n")
    turned = json.loads(splicestore("ingest", "genomes", tmp_path / "two", config, "--json", check=0).stdout)[
        "genomes"
    ]["toy1"]
    assert (turned["n_sites"], turned["n_genes"], turned["dropped"]) == (
        plain["n_sites"],
        plain["n_genes"],
        plain["dropped"],
    )


def test_unknown_usage_rows_are_in_the_ledger(tmp_path):
    config = write_study(tmp_path / "in")
    set_usage(tmp_path / "in", 5, 2, "17")
    report = json.loads(splicestore("ingest", "genomes", tmp_path / "store", config, "--json", check=0).stdout)[
        "genomes"
    ]["toy1"]
    assert report["dropped"] == {"usage_site:unknown_site": 1}
    story = splicestore("ls", tmp_path / "store", check=0).stdout
    assert "usage" in story
    from splicestore.store import open_store

    ledger = open_store(str(tmp_path / "store")).genomes["toy1"].ledger.to_pandas()
    assert ledger[["item", "identifier", "reason", "count"]].values.tolist() == [
        ["usage_site", "chrA:17:+", "unknown_site", 1]
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["split", "windows", "STORE", "x", "--reference-genome", "toy1", "--test-chromosomes", "chrBB"],
            3,
            "did you mean chrB",
        ),
        (["split", "windows", "STORE", "x", "--reference-genome", "nope", "--test-chromosomes", "chrB"], 3, "nope"),
        (["split", "windows", "STORE", "../x", "--test-fraction", "0.5"], 3, "is not a name"),
        (["split", "windows", "STORE", "x", "--test-fraction", "0.000001"], 3, "empty|no window|test"),
        (["split", "windows", "STORE", "x", "--orthology", "ALIEN", "--test-fraction", "0.3"], 3, "gene"),
        (
            [
                "split",
                "windows",
                "STORE",
                "x",
                "--orthology",
                "OG",
                "--orthology-format",
                "groups",
                "--test-fraction",
                "0.3",
            ],
            3,
            "no two genes",
        ),
        (["train", "STORE", "nope", "YAML", "--output", "OUT"], 4, "nothing named 'nope' is published under splits"),
        (["info", "NOWHERE"], 4, "no store here"),
        (["ingest", "genomes", "STORE"], 2, "CONFIG"),
        (["ingest", "genomes", "STORE", "CONFIG", "--alpha-threshold", "5"], 2, "read-time setting"),
        (
            ["ingest", "genomes", "memory://x", "CONFIG", "--scheduler", "processes:2"],
            3,
            "visible to this process only",
        ),
        (["ingest", "genomes", "STORE", "CONFIG", "--scheduler", "slurm"], 3, "use sync, threads"),
    ],
)
def test_wrong_options_say_what_is_allowed(study, tmp_path, arguments, code, message):
    alien = tmp_path / "alien.tsv"
    alien.write_text("ortholog_group\tgenome_id\tgene_id\nA\ttoy1\tXYZ1\nA\ttoy2\tXYZ2\n")
    (tmp_path / "t.yaml").write_text("steps: 1\n")
    names = {"STORE": study / "store", "ALIEN": alien, "YAML": tmp_path / "t.yaml", "OUT": tmp_path / "m",
             "NOWHERE": tmp_path / "nowhere", "CONFIG": study / "in" / "genomes.json", "OG": study / "in" / "orthologs.tsv"}  # fmt: skip
    done = splicestore(*(names.get(a, a) for a in arguments))
    assert done.returncode == code, done.stderr
    assert re.search(message, done.stderr.replace("\n", " ")), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_ingest_goes_on_and_equals_an_uninterrupted_one(tmp_path, number):
    config = write_study(tmp_path / "in", n_genomes=2)
    splicestore("ingest", "genomes", tmp_path / "whole", config, check=0)
    process = subprocess.Popen(
        [sys.executable, "-m", "splicestore", "ingest", "genomes", str(tmp_path / "store"), str(config)],
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while (
        not list((tmp_path / "store").glob("genomes/*/*/plan.json"))
        and time.monotonic() < deadline
        and process.poll() is None
    ):
        time.sleep(0.002)
    os.kill(process.pid, number)
    process.communicate()
    assert process.returncode in (128 + number, -number, 0)
    splicestore("ingest", "genomes", tmp_path / "store", config, check=0)
    whole, again = files_of(tmp_path / "whole"), files_of(tmp_path / "store")
    different = {k for k in whole if whole[k] != again.get(k)}
    assert {k.name for k in different} <= {"manifest.json"}
    assert {k for k in again if k not in whole and not k.name.endswith(".partial")} == set()


def test_a_full_disk_exits_with_5_and_publishes_nothing(tmp_path):
    config = write_study(tmp_path / "in")
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from splicestore.cli.app import run\n"
        f"sys.exit(run(['ingest', 'genomes', {str(tmp_path / 'store')!r}, {str(config)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 5, done.stderr
    assert "no space left" in done.stderr
    assert [p for p in (tmp_path / "store").rglob("zarr.json") if '"current"' in p.read_text()] == []
    splicestore("ingest", "genomes", tmp_path / "store", config, check=0)


def test_overwrite_never_replaces_what_splicestore_did_not_write(study, tmp_path):
    done = splicestore("export", "splicevo", study / "store", study / "store", "--overwrite")
    assert done.returncode == 3
    assert "--overwrite replaces only folders that splicestore wrote" in done.stderr
    assert (study / "store" / "genomes" / "toy1" / "zarr.json").exists()
    splicestore("export", "splicevo", study / "store", tmp_path / "out", "--genome", "toy1", check=0)
    splicestore("export", "splicevo", study / "store", tmp_path / "out", "--genome", "toy2", "--overwrite", check=0)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".splicestore-output", "toy2"]


@pytest.mark.parametrize(
    "document",
    ['{"genomes": null}', '{"genomes": 3}', '{"genomes": [{"genome_id": "a", "genome_path": "x", "metadata": "m"}], "usage_files": {}}',
     '{"genomes": [{"genome_id": "a", "genome_path": "x"}], "usage_files": ["a"]}',
     '{"genomes": [{"genome_id": "a", "genome_path": "x"}], "usage_files": {"a": {"files": ["u.tsv"]}}}'],
)  # fmt: skip
def test_wrong_shapes_of_a_config_are_one_line(document, tmp_path):
    (tmp_path / "genomes.json").write_text(document)
    done = splicestore("ingest", "genomes", tmp_path / "store", tmp_path / "genomes.json")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("splicestore: ")
    assert done.stderr.count("\n") == 1


def test_a_store_path_that_is_a_file_is_said_so(tmp_path):
    config = write_study(tmp_path / "in")
    (tmp_path / "file").write_text("x")
    done = splicestore("ingest", "genomes", tmp_path / "file", config)
    assert done.returncode == 3
    assert "a file stands where a folder is needed" in done.stderr
    assert splicestore("ls", tmp_path / "nothing").returncode == 4
