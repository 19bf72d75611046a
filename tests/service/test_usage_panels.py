"""New conditions for a stored genome: one more panel, nothing else touched."""

from __future__ import annotations

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
