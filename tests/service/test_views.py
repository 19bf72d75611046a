"""Views of a store in Python: identical windows, remote inputs, memory stores, pinned generations."""

from __future__ import annotations

import functools
import http.server
import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml

import splicestore as ss
from splicestore.config import GenomeConfig
from splicestore.errors import InputError, StoreNotFoundError
from splicestore.ingest import ingest_genome, ingest_genomes, load_genomes_config
from splicestore.kernels.sequence import decode_bases
from splicestore.storage import StoreRoot
from tests.service.study import splicestore, write_study


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    config = write_study(folder / "in", n_genomes=2)
    list(ingest_genomes(StoreRoot(str(folder / "store")), load_genomes_config(str(config))))
    return ss.open_store(str(folder / "store"))


def test_readme_lines_work(store):
    genome = store.genomes["toy1"]
    sites = genome.gene("toy1_chrA_300").sites.to_pandas()
    assert sites.columns.tolist() == ["contig", "position", "strand", "kind", "source"]
    assert len(sites) == 10
    dataset = genome.windows(window_size=100, context_size=45).to_xarray()
    assert dict(dataset.sizes) == {**dict(dataset.sizes), "base": 190, "position": 100, "condition": 1}
    assert int((dataset.label == 2).sum()) == 20
    assert repr(store).startswith("Store(")
    assert "12,000 bases" in repr(genome)


def test_fetch_pads_with_n_and_never_reads_the_neighbour(store):
    genome = store.genomes["toy1"]
    assert decode_bases(genome.fetch("chrA", -3, 0)) == "NNN"
    assert decode_bases(genome.fetch("chrA", 5_999, 6_002))[1:] == "NN"
    assert len(genome.fetch("chrB", 7_000, 7_005)) == 5
    with pytest.raises(InputError, match="did you mean chrA"):
        genome.fetch("chrAA", 0, 1)


def test_identical_windows_have_one_hash_on_either_strand(tmp_path):
    rng = np.random.default_rng(0)
    piece = "".join(rng.choice(list("ACGT"), 50))
    turned = piece[::-1].translate(str.maketrans("ACGT", "TGCA"))
    other = "".join(rng.choice(list("ACGT"), 50))
    (tmp_path / "g.fa").write_text(f">a\n{piece}{other}\n>b\n{turned}\n")
    root = StoreRoot("memory://hashes")
    ingest_genome(root, GenomeConfig(genome_id="g", fasta=str(tmp_path / "g.fa")))
    windows = ss.open_store("memory://hashes").genomes["g"].windows(50, 10)
    first, second, third = windows.sequence_hash()
    assert first.tolist() == third.tolist()
    assert first.tolist() != second.tolist()


def test_inputs_may_be_urls(tmp_path):
    config = write_study(tmp_path / "in")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "in"))
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        remote = GenomeConfig(genome_id="toy1", fasta=f"{base}/toy1.fa", annotation=f"{base}/toy1.gtf.gz")
        far = ingest_genome(StoreRoot(str(tmp_path / "far")), remote)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    document = json.loads(config.read_text())
    near = GenomeConfig(
        genome_id="toy1",
        fasta=str(tmp_path / "in" / "toy1.fa"),
        annotation=str(tmp_path / "in" / document["genomes"][0]["gtf_path"]),
    )
    assert ingest_genome(StoreRoot(str(tmp_path / "near")), near).generation == far.generation


def test_yaml_and_sample_sheet_equal_splicevos_json(tmp_path):
    config = write_study(tmp_path / "in")
    (tmp_path / "in" / "sheet.tsv").write_text("sample\tfile\ttissue\ttimepoint\ns1\ttoy1.tsv\tBrain\t1\n")
    entry = {"genome_id": "toy1", "fasta": "toy1.fa", "annotation": "toy1.gtf.gz", "species": "toy", "common_name": "toy",
             "transcripts": "splicevo", "samples": "sheet.tsv"}  # fmt: skip
    (tmp_path / "in" / "genomes.yaml").write_text(yaml.safe_dump({"genomes": [entry]}))
    (one,) = ingest_genomes(StoreRoot(str(tmp_path / "one")), load_genomes_config(str(config)))
    (two,) = ingest_genomes(
        StoreRoot(str(tmp_path / "two")), load_genomes_config(str(tmp_path / "in" / "genomes.yaml"))
    )
    assert one.generation == two.generation
    tables = [ss.open_store(str(tmp_path / n)).genomes["toy1"].usage.to_pandas() for n in ("one", "two")]
    assert tables[0].equals(tables[1])
    assert len(tables[0]) == 40


def test_samples_of_a_condition_are_summed_then_divided(tmp_path):
    write_study(tmp_path / "in")
    folder = tmp_path / "in"
    text = (folder / "toy1.tsv").read_text()
    (folder / "second.tsv").write_text(text.replace("\t90\t5\t5", "\t0\t10\t0"))
    genome = GenomeConfig(
        genome_id="toy1", fasta=str(folder / "toy1.fa"), annotation=str(folder / "toy1.gtf.gz"),
        usage=[{"file": str(folder / f), "condition": "both"} for f in ("toy1.tsv", "second.tsv")],
    )  # fmt: skip
    ingest_genome(StoreRoot("memory://summed"), genome)
    usage = ss.open_store("memory://summed").genomes["toy1"].usage.to_pandas()
    assert set(usage["alpha"]) == {90.0}
    assert set(usage["beta"]) == {20.0}
    np.testing.assert_allclose(usage["sse"], 90 / 110, rtol=1e-6)


def test_new_annotation_joins_usage_again_from_its_recorded_files(tmp_path):
    from splicestore.errors import StoreError
    from splicestore.ingest import IngestOptions

    config = load_genomes_config(str(write_study(tmp_path / "in")))
    root = StoreRoot(str(tmp_path / "store"))
    list(ingest_genomes(root, config))
    held = ss.open_store(str(tmp_path / "store")).genomes["toy1"]
    before = held.usage.to_pandas()
    # The same genes without the second contig: other sites, and a configuration that does not name the usage.
    fewer = config.genomes[0].model_copy(update={"chromosomes": ("chrA",), "missing_contigs": "drop", "usage": ()})
    table = Path(config.genomes[0].usage[0].file)
    kept = table.read_bytes()
    table.write_bytes(kept.replace(b"\t9\t", b"\t8\t") + b"")
    if table.read_bytes() == kept:
        table.write_bytes(kept + kept.splitlines()[-1] + b"\n")
    with pytest.raises(StoreError, match=r"panel 'main' must be joined again, but its input .* changed .*--drop-usage"):
        ingest_genome(root, fewer, IngestOptions(override_gates=True))
    table.unlink()
    with pytest.raises(StoreError, match="is not there any more"):
        ingest_genome(root, fewer, IngestOptions(override_gates=True))
    assert ss.open_store(str(tmp_path / "store")).genomes["toy1"].generation == held.generation
    table.write_bytes(kept)
    ingest_genome(root, fewer, IngestOptions(override_gates=True))
    now = ss.open_store(str(tmp_path / "store")).genomes["toy1"]
    after = now.usage.to_pandas()
    assert now.generation != held.generation
    assert len(after)
    assert after.to_dict("records") == before[before["contig"] == "chrA"].to_dict("records")
    dropped = config.genomes[0].model_copy(update={"min_intron": 300, "usage": ()})
    table.unlink()
    ingest_genome(root, dropped, IngestOptions(override_gates=True, drop_usage=True))
    assert ss.open_store(str(tmp_path / "store")).genomes["toy1"].condition_names == []
    # A reader that was open before goes on with what it held.
    assert held.usage.to_pandas().equals(before)


def test_views_travel_by_address(store):
    genome = store.genomes["toy1"]
    copy = pickle.loads(pickle.dumps(genome))
    assert copy.generation == genome.generation
    assert copy.read_bases(0, 50).tolist() == genome.read_bases(0, 50).tolist()
    assert b"_group" not in pickle.dumps(genome)


def test_unknown_names_are_answered_with_close_ones(store):
    with pytest.raises(StoreNotFoundError, match="nothing named 'toy3' is published under genomes; did you mean"):
        _ = store.genomes["toy3"]
    assert "toy1" in store.genomes
    assert 5 not in store.genomes
    with pytest.raises(StoreNotFoundError, match="no store here"):
        ss.open_store("memory://nothing-here")


def test_a_genome_without_annotation_is_tiled_whole(tmp_path):
    (tmp_path / "g.fa").write_text(">a\n" + "ACGTN" * 50 + "\n>b\nAC\n")
    root = StoreRoot("memory://bare")
    report = ingest_genome(root, GenomeConfig(genome_id="g", fasta=str(tmp_path / "g.fa")))
    assert report.summary["n_genes"] == 0
    windows = ss.open_store("memory://bare").genomes["g"].windows(100, 10)
    assert windows.to_pandas()[["contig", "start", "end", "strand"]].values.tolist() == [
        ["a", 0, 100, "+"], ["a", 100, 200, "+"], ["a", 200, 300, "+"], ["b", 0, 100, "+"],
    ]  # fmt: skip
    assert (windows.label()[2, 50:] == 255).all()
    assert (windows.label()[2, :50] == 0).all()
    assert decode_bases(windows.sequence()[3])[:14] == "N" * 10 + "ACNN"


def test_a_run_killed_before_the_catalogue_is_mended_by_the_same_command(tmp_path):
    config = load_genomes_config(str(write_study(tmp_path / "in")))
    root = StoreRoot(str(tmp_path / "store"))
    list(ingest_genomes(root, config))
    root.put(
        "catalog.json", json.dumps({"format": 1, "genomes": {}, "usage": {}, "splits": {}, "predictions": {}}).encode()
    )
    (again,) = ingest_genomes(root, config)
    assert again.status == "unchanged"
    assert list(ss.open_store(str(tmp_path / "store")).genomes) == ["toy1"]
    assert len(ss.open_store(str(tmp_path / "store")).genomes["toy1"].usage.to_pandas()) == 40


def test_an_alias_table_joins_usage_anew(tmp_path):
    folder = tmp_path / "in"
    write_study(folder)
    (folder / "toy1.tsv").write_text((folder / "toy1.tsv").read_text().replace("\tchrB\t", "\tNC_2\t"))
    (folder / "aliases.tsv").write_text("NC_2\tchrB\n")
    usage = [{"file": str(folder / "toy1.tsv"), "condition": "x"}]
    plain = GenomeConfig(
        genome_id="toy1", fasta=str(folder / "toy1.fa"), annotation=str(folder / "toy1.gtf.gz"), usage=usage
    )
    root = StoreRoot(str(tmp_path / "store"))
    from splicestore.ingest import IngestOptions

    ingest_genome(root, plain, IngestOptions(override_gates=True))
    assert len(ss.open_store(root.url).genomes["toy1"].usage.to_pandas()) == 20
    ingest_genome(root, plain.model_copy(update={"aliases": str(folder / "aliases.tsv")}))
    assert len(ss.open_store(root.url).genomes["toy1"].usage.to_pandas()) == 40


def test_a_sheet_that_names_one_sample_of_a_file_takes_that_sample(tmp_path):
    folder = tmp_path / "in"
    write_study(folder)
    text = (folder / "toy1.tsv").read_text()
    header, *rows = text.splitlines()
    other = [row.replace("s1\t", "s2\t", 1).replace("\t90\t5\t5", "\t7\t0\t0") for row in rows]
    (folder / "toy1.tsv").write_text("\n".join([header, *rows, *other]) + "\n")
    (folder / "sheet.tsv").write_text("sample\tfile\tcondition\ns2\ttoy1.tsv\tx\n")
    genome = GenomeConfig(
        genome_id="toy1",
        fasta=str(folder / "toy1.fa"),
        annotation=str(folder / "toy1.gtf.gz"),
        samples=str(folder / "sheet.tsv"),
    )
    ingest_genome(StoreRoot("memory://one-sample"), genome)
    assert set(ss.open_store("memory://one-sample").genomes["toy1"].usage.to_pandas()["alpha"]) == {7.0}


def split_of_two(folder):
    """Two genomes and a split of them."""
    config = load_genomes_config(str(write_study(folder / "in", n_genomes=2)))
    root = StoreRoot(str(folder / "store"))
    list(ingest_genomes(root, config))
    split = (
        "split",
        "windows",
        root.url,
        "run1",
        "--orthology",
        folder / "in" / "orthologs.tsv",
        "--test-fraction",
        "0.5",
    )
    splicestore(*split, "--window-size", "200", "--context-size", "40", "--seed", "3", check=0)
    return ss.open_store(root.url)


def test_a_split_opens_its_genomes_with_what_they_would_say_themselves(tmp_path):
    store = split_of_two(tmp_path)
    before = store.n_requests
    opened = store.open_pinned(store.splits["run1"], ["toy1", "toy2"])
    known = [
        (g.contig_offset, g.contig_length, g.block_site_ptr, g.condition_names, g.usage_generations) for g in opened
    ]
    # Pointer and document of each panel; all else is asked once.
    assert store.n_requests - before <= 16 + 2 * 2
    for genome, mine in zip(opened, known, strict=True):
        own = ss.open_store(store.url).genomes[genome.genome_id]
        assert own.generation == genome.generation
        for values, theirs in zip(mine[:3], (own.contig_offset, own.contig_length, own.block_site_ptr), strict=True):
            np.testing.assert_array_equal(values, theirs)
        assert mine[3:] == (own.condition_names, own.usage_generations)
        assert genome.read_bases(0, 100).tolist() == own.read_bases(0, 100).tolist()


def test_usage_that_came_after_the_split_is_streamed_and_a_copy_keeps_what_was_looked_up(tmp_path):
    store = split_of_two(tmp_path)
    (genome,) = store.open_pinned(store.splits["run1"], ["toy1"])
    held = genome.condition_names
    (tmp_path / "in" / "sheet.csv").write_text("sample,file,condition\ns1,toy1.tsv,Heart\n")
    sheet = tmp_path / "in" / "sheet.csv"
    splicestore("ingest", "usage", store.url, "march", sheet, "--genome", "toy1", check=0)
    copy = pickle.loads(pickle.dumps(genome))
    assert copy.condition_names == held == ["Brain_1"]
    fresh = ss.open_store(store.url)
    (now,) = fresh.open_pinned(fresh.splits["run1"], ["toy1"])
    assert now.condition_names == ["Brain_1", "Heart"]
    assert pickle.loads(pickle.dumps(now)).usage_generations == now.usage_generations
