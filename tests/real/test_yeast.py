"""Both yeast strains: the introns the annotations hold, and the split by chromosomes."""

from __future__ import annotations

import json

import pytest
import yaml

from splicestore.store import open_store
from tests.service.study import splicestore


@pytest.fixture(scope="module")
def study(tmp_path_factory, data_dir):
    folder = tmp_path_factory.mktemp("yeast")
    files = {"S288C": "S288C.R64-2-1", "CPG_1a": "CPG_1a"}
    genomes = [
        {
            "genome_id": g,
            "fasta": str(data_dir / "yeast" / f"{stem}.fa.gz"),
            "annotation": str(data_dir / "yeast" / f"{stem}.gff3.gz"),
        }
        for g, stem in files.items()
    ]
    (folder / "genomes.yaml").write_text(yaml.safe_dump({"genomes": genomes}))
    done = splicestore("ingest", "genomes", folder / "store", folder / "genomes.yaml", "--json", check=0)
    (folder / "ingest.json").write_text(done.stdout)
    return folder


def test_s288c_has_its_introns_and_no_frameshifts(study):
    report = json.loads((study / "ingest.json").read_text())["genomes"]["S288C"]
    assert (report["n_bases"], report["n_contigs"], report["n_genes"]) == (12_157_105, 17, 7_134)
    # 345 distinct gaps of coding exons: 47 of 1 bp are frameshifts, the other 298 introns; 281 of these are canonical.
    assert report["n_sites"] == {"donor": 298, "acceptor": 298}
    assert report["canonical_fraction"] == pytest.approx(281 / 298, abs=1e-6)
    assert report["dropped"] == {"exon:not_spliceosomal": 484, "intron:short_intron": 47}
    motifs = open_store(str(study / "store")).genomes["S288C"].attributes["motifs"]["motifs"]
    assert (motifs["GT-AG"], motifs["GC-AG"]) == (273, 8)


def test_cpg_1a_is_all_canonical(study):
    report = json.loads((study / "ingest.json").read_text())["genomes"]["CPG_1a"]
    assert report["n_bases"] == 12_121_362
    assert report["n_sites"] == {"donor": 383, "acceptor": 383}
    assert report["canonical_fraction"] == 1.0


def test_actin_base_by_base(study):
    """ACT1 (YFL039C) on chrVI -: exons 53260-54377 and 54687-54696, one intron of 309 bp, as SGD has it."""
    genome = open_store(str(study / "store")).genomes["S288C"]
    sites = genome.gene("ACT1").sites.to_pandas()
    assert sites[["contig", "position", "strand", "kind"]].values.tolist() == [
        ["chrVI", 54_376, "-", "acceptor"],
        ["chrVI", 54_686, "-", "donor"],
    ]


def test_split_by_chromosomes_with_short_names(study, data_dir):
    done = splicestore(
        "split", "windows", study / "store", "chrom", "--orthology", data_dir / "yeast" / "orthologs.S288C_CPG_1a.tsv.gz",
        "--reference-genome", "S288C", "--test-chromosomes", "I,V,XI", "--json", check=0,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["windows"] == {"train": 24_753, "val": 0, "test": 3_349, "excluded": 245}
    assert report["genes"] == {"train": 11_337, "val": 0, "test": 1_548, "excluded": 0}
    assert report["leakage"]["groups_crossing"] == 0
    assert report["largest_component_fraction"] == pytest.approx(24 / 12_885, abs=1e-6)
    table = open_store(str(study / "store")).splits["chrom"].to_pandas()
    reference = table[(table["genome"] == "S288C") & table["contig"].isin(["chrI", "chrV", "chrXI"])]
    assert set(reference["subset"]) == {"test"}
