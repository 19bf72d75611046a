"""New conditions for a stored genome: one more panel, nothing else touched."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

import splicestore as ss
from tests.service.study import splicestore, write_study


@pytest.fixture
def study(tmp_path):
    config = write_study(tmp_path / "in")
    splicestore("ingest", "genomes", tmp_path / "store", config, check=0)
    return tmp_path


def add(study, panel="march", condition="Heart", table=None, *options, check=0):
    table = table or (study / "in" / "toy1.tsv").read_text()
    (study / "in" / f"{panel}.tsv").write_text(table)
    sheet = study / "in" / f"{panel}.sheet.csv"
    sheet.write_text(f"sample,file,condition\ns1,{panel}.tsv,{condition}\n")
    return splicestore("ingest", "usage", study / "store", panel, sheet, "--genome", "toy1", *options, check=check)


def hashes(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def test_a_panel_adds_conditions_and_touches_nothing(study):
    before = hashes(study / "store" / "genomes") | hashes(study / "store" / "usage")
    report = json.loads(add(study, "march", "Heart", None, "--json").stdout)
    assert (report["status"], report["conditions"], report["dropped"]) == ("published", ["Heart"], {})
    after = hashes(study / "store" / "genomes") | hashes(study / "store" / "usage")
    assert {key: value for key, value in after.items() if "/march/" not in key} == before
    genome = ss.open_store(str(study / "store")).genomes["toy1"]
    assert genome.condition_names == ["Brain_1", "Heart"]
    table = genome.usage.to_pandas()
    both = [table[table["condition"] == c].drop(columns="condition").to_dict("records") for c in ("Brain_1", "Heart")]
    assert both[0] == both[1]
    assert len(both[0]) == 40


def test_the_same_command_again_is_a_no_op_and_a_changed_file_is_a_new_generation(study):
    first = json.loads(add(study, "march", "Heart", None, "--json").stdout)
    before = hashes(study / "store")
    again = json.loads(add(study, "march", "Heart", None, "--json").stdout)
    assert (again["status"], again["generation"]) == ("unchanged", first["generation"])
    assert hashes(study / "store") == before
    text = (study / "in" / "toy1.tsv").read_text().replace("\t90\t", "\t30\t")
    changed = json.loads(add(study, "march", "Heart", text, "--json").stdout)
    assert changed["generation"] != first["generation"]
    usage = ss.open_store(str(study / "store")).genomes["toy1"].usage.to_pandas()
    assert set(usage[usage["condition"] == "Heart"]["alpha"]) == {30.0}


def test_a_condition_of_another_panel_is_refused(study):
    done = add(study, "march", "Brain_1", check=3)
    assert "condition 'Brain_1' is in panel 'main' of genome toy1 already" in done.stderr
    assert not (study / "store" / "usage" / "toy1" / "march").exists()


def test_unseen_sites_are_counted_or_refused(study):
    text = (study / "in" / "toy1.tsv").read_text()
    extra = text + "s1\tchrA\t5\t+\tx\t0.9\t90\t5\t5\n"
    report = json.loads(add(study, "march", "Heart", extra, "--json").stdout)
    assert report["dropped"] == {"usage_site:unknown_site": 1}
    refused = add(study, "april", "Liver", extra, "--new-sites", "error", check=3)
    assert "1 rows lie on no splice site of genome toy1; --new-sites drop" in refused.stderr
    assert not (study / "store" / "usage" / "toy1" / "april").exists()


def test_unknown_genomes_and_empty_sheets_are_named(study):
    sheet = study / "in" / "sheet.csv"
    sheet.write_text("sample,file,condition\ns1,toy1.tsv,Heart\n")
    done = splicestore("ingest", "usage", study / "store", "march", sheet, "--genome", "toy9")
    assert done.returncode == 4
    assert "no genome 'toy9' is stored; did you mean toy1?" in done.stderr
    sheet.write_text("sample,file,condition,genome_id\ns1,toy1.tsv,Heart,other\n")
    done = splicestore("ingest", "usage", study / "store", "march", sheet, "--genome", "toy1")
    assert done.returncode == 3
    assert "has no row for genome 'toy1'" in done.stderr


def two_conditions(study, panel, *conditions, options=(), check=0):
    sheet = study / "in" / f"{panel}.sheet.csv"
    sheet.write_text("sample,file,condition\n" + "".join(f"s{c},toy1.tsv,{c}\n" for c in conditions))
    command = ("ingest", "usage", study / "store", panel, sheet, "--genome", "toy1", *options)
    return splicestore(*command, check=check)


def test_conditions_of_a_panel_are_let_go_only_when_asked(study):
    two_conditions(study, "march", "Heart")
    grown = two_conditions(study, "march", "Heart", "Lung", options=["--json"])
    assert json.loads(grown.stdout)["status"] == "replaced"
    before = hashes(study / "store")
    refused = two_conditions(study, "march", "Lung", check=3)
    assert (
        "panel 'march' of genome toy1 has 1 conditions that are not in the files given, first 'Heart'" in refused.stderr
    )
    assert hashes(study / "store") == before
    two_conditions(study, "march", "Lung", options=["--replace"])
    assert ss.open_store(str(study / "store")).genomes["toy1"].condition_names == ["Brain_1", "Lung"]


def test_usage_of_chromosomes_that_were_left_out_does_not_fail_the_join_gate(tmp_path):
    config = write_study(tmp_path / "in")
    document = json.loads(config.read_text())
    document["genomes"][0]["chromosomes"] = ["chrA"]
    # Seven rows of ten are on the other contig.
    table = tmp_path / "in" / "toy1.tsv"
    header, *rows = table.read_text().splitlines()
    kept = [row for row in rows if "\tchrB\t" in row or "_3300\t" in row]
    table.write_text("\n".join([header, *kept, *[r.replace("chrB", "chrC") for r in rows if "chrB" in r]]) + "\n")
    config.write_text(json.dumps(document))
    report = json.loads(splicestore("ingest", "genomes", tmp_path / "store", config, "--json", check=0).stdout)
    dropped = report["genomes"]["toy1"]["dropped"]
    assert dropped["usage_site:chromosome_not_selected"] == len(kept) - 10 + 20
    assert "usage_site:unknown_contig" not in dropped
    # Also for a panel that comes later, to the stored genome.
    added = json.loads(add(tmp_path, "march", "Heart", table.read_text(), "--json").stdout)
    assert added["dropped"] == {"usage_site:chromosome_not_selected": 40}
    # Names that are of another naming scheme are still refused.
    elsewhere = add(tmp_path, "april", "Lung", table.read_text().replace("chrA", "NC_1"), check=3)
    assert "50 of its 50 rows name contigs that the genome does not have, first 'NC_1'" in elsewhere.stderr


def test_a_panel_whose_gate_was_overridden_is_joined_again_with_a_new_annotation(study):
    shifted = (study / "in" / "toy1.tsv").read_text().replace("_3300\t", "_elsewhere\t")
    header, *rows = shifted.splitlines()
    moved = [row if "_elsewhere" in row else row.replace("\tchr", "\tscaffold") for row in rows]
    text = "\n".join([header, *moved]) + "\n"
    assert "--override-gates" in add(study, "march", "Heart", text, check=3).stderr
    add(study, "march", "Heart", text, "--override-gates")
    genomes = study / "in" / "genomes.json"
    document = json.loads(genomes.read_text())
    document["genomes"][0]["chromosomes"] = ["chrA", "chrB"]
    genomes.write_text(json.dumps(document))
    annotation = study / "in" / "toy1.gtf.gz"
    lines = gzip.decompress(annotation.read_bytes()).decode().splitlines()
    annotation.write_bytes(gzip.compress("\n".join(line for line in lines if "chrB_200" not in line).encode() + b"\n"))
    splicestore("ingest", "genomes", study / "store", genomes, check=0)
    genome = ss.open_store(str(study / "store")).genomes["toy1"]
    assert genome.condition_names == ["Brain_1", "Heart"]


def test_a_sheet_without_a_row_for_the_genome_is_refused(tmp_path):
    config = write_study(tmp_path / "in")
    (tmp_path / "in" / "sheet.csv").write_text("sample,file,condition,genome_id\ns1,toy1.tsv,Heart,toy7\n")
    genomes = tmp_path / "in" / "genomes.yaml"
    genomes.write_text("genomes: [{genome_id: toy1, fasta: toy1.fa, annotation: toy1.gtf.gz, samples: sheet.csv}]\n")
    done = splicestore("ingest", "genomes", tmp_path / "store", genomes, check=3)
    assert "has no row for genome 'toy1' in its column genome_id; did you mean toy7?" in done.stderr
    assert not (tmp_path / "store" / "genomes").exists()
    assert config.exists()


def junctions_of(store: Path) -> list[tuple[str, int, int, str]]:
    """Introns of the stored genome as (contig, 0-based start, end, strand)."""
    genome = ss.open_store(str(store)).genomes["toy1"]
    ptr, start, end = (genome.array(n) for n in ("transcript_exon_ptr", "exon_start", "exon_end"))
    strand = genome.gene_strand[genome.array("transcript_gene")]
    found = []
    for row in range(len(ptr) - 1):
        for left, right in zip(end[ptr[row] : ptr[row + 1] - 1], start[ptr[row] + 1 : ptr[row + 1]], strict=True):
            contig = int(genome.contig_of(left))
            offset = int(genome.contig_offset[contig])
            name = genome.contig_names[contig]
            found.append((name, int(left) - offset, int(right) - offset, "+" if strand[row] > 0 else "-"))
    return found


def test_a_matrix_gives_the_same_counts_as_one_file_per_sample(study):
    introns = junctions_of(study / "store")
    assert len(introns) > 10
    reads = {name: [(7 * i + k) % 13 for i in range(len(introns))] for k, name in enumerate(("S1", "S2", "S3", "S4"))}
    condition = {"S1": "Heart", "S2": "Heart", "S3": "Lung"}
    folder = study / "in"
    lines = ["#1.2", f"{len(introns)}\t4", "Name\tDescription\t" + "\t".join(reads)]
    for i, (contig, start, end, strand) in enumerate(introns):
        cells = "\t".join(str(values[i]) for values in reads.values())
        lines.append(f"{contig}_{start + 1}_{end}_{strand}\tg\t{cells}")
    (folder / "all.gct").write_text("\n".join(lines) + "\n")
    sheet = ["sample,file,condition,format"] + [f"{s},all.gct,{c}m,gct" for s, c in condition.items()]
    (folder / "matrix.csv").write_text("\n".join(sheet) + "\n")
    sheet = ["sample,file,condition,format"]
    for sample, name in condition.items():
        rows = [f"{c}\t{s}\t{e}\t{strand}\t{n}" for (c, s, e, strand), n in zip(introns, reads[sample], strict=True)]
        (folder / f"{sample}.tsv").write_text("\n".join(["contig\tstart\tend\tstrand\treads", *rows]) + "\n")
        sheet.append(f"{sample},{sample}.tsv,{name}f,junctions")
    (folder / "files.csv").write_text("\n".join(sheet) + "\n")
    for panel in ("matrix", "files"):
        splicestore("ingest", "usage", study / "store", panel, folder / f"{panel}.csv", "--genome", "toy1", check=0)
    usage = ss.open_store(str(study / "store")).genomes["toy1"].usage.to_pandas()
    for name in ("Heart", "Lung"):
        one, other = (
            usage[usage["condition"] == f"{name}{end}"].drop(columns="condition").reset_index(drop=True) for end in "mf"
        )
        assert len(one)
        assert one.equals(other)
    bad = folder / "bad.csv"
    bad.write_text("sample,file,condition,format\nS9,all.gct,Skin,gct\n")
    done = splicestore("ingest", "usage", study / "store", "bad", bad, "--genome", "toy1")
    assert done.returncode == 3
    assert "has no sample 'S9'" in done.stderr
