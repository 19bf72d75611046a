"""An estimate against what really happens: memory is a bound, disk and objects are near, nothing is read whole."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pysam
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from splicestore.config import GenomeConfig, GenomesConfig, UsageFile
from splicestore.errors import ConfigError, InputError
from splicestore.ingest import costs, dry_run
from splicestore.ingest.costs import GenomeCounts, Requests, Span, UsageCounts
from splicestore.ingest.estimate import (
    Estimate,
    GenomeEstimate,
    Machine,
    estimate,
    estimate_genome,
    estimate_genomes,
    peak_on_machine,
    setting_that_fits,
    spell_seconds,
)
from splicestore.ingest.genomes import ingest_genomes, load_genomes_config
from splicestore.ingest.heads import HEAD_BYTES, count_annotation, count_fasta, place_of, read_head, text_bytes
from splicestore.ingest.inputs import IngestOptions
from splicestore.kernels.sites import introns_of, sites_of
from splicestore.readers.annotation import read_annotation, select_transcripts
from splicestore.simulate import SimulateOptions, simulate_study
from splicestore.storage import StoreRoot
from tests.servers.proxy import fault_proxy
from tests.servers.s3 import moto_server

REPOSITORY = Path(__file__).resolve().parents[3]
HERE = Machine(cores=2, memory_bytes=2**35, disk_free_bytes=2**40)


# -- whole ingests -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """One genome of 2 Mb."""
    return simulated(tmp_path_factory.mktemp("study"), megabases=2, genes=80, conditions=4)


def simulated(folder: Path, **options: float) -> Path:
    simulate_study(str(folder), SimulateOptions(genomes=1, seed=3, **options))
    return folder


def ingested(config: Path, store: Path, *words: str) -> dict:
    """Report of the command, run in a process of its own."""
    command = [sys.executable, "-m", "splicestore", "ingest", "genomes", str(store), str(config), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["genomes"]


def objects_and_bytes(store: Path) -> tuple[int, int]:
    sizes = [os.path.getsize(Path(folder, name)) for folder, _, names in os.walk(store) for name in names]
    return len(sizes), sum(sizes)


def check_against(found: GenomeEstimate, report: dict, store: Path, *, within: float) -> None:
    n_objects, n_bytes = objects_and_bytes(store)
    assert report["observed_peak_bytes"] <= found.peak_bytes <= within * report["observed_peak_bytes"]
    assert n_bytes / 1.5 <= found.stored_bytes <= 1.5 * n_bytes
    assert n_objects <= found.n_objects <= 1.5 * n_objects
    assert found.n_bases == pytest.approx(report["n_bases"], rel=0.02)
    assert found.n_genes == pytest.approx(report["n_genes"], rel=0.15)
    assert found.n_sites == pytest.approx(sum(report["n_sites"].values()), rel=0.15)
    assert found.n_conditions == len(report["conditions"])


def test_a_small_genome_needs_what_was_estimated(study, tmp_path):
    config = study / "genomes.json"
    (found,) = estimate_genomes(load_genomes_config(str(config)).genomes)
    check_against(found, ingested(config, tmp_path / "store")["sim1"], tmp_path / "store", within=4)


@pytest.mark.slow
def test_a_genome_of_20_mb_needs_what_was_estimated(tmp_path):
    config = simulated(tmp_path / "study", megabases=20, genes=800, conditions=8) / "genomes.json"
    (found,) = estimate_genomes(load_genomes_config(str(config)).genomes)
    check_against(found, ingested(config, tmp_path / "store")["sim1"], tmp_path / "store", within=4)


@pytest.mark.slow
def test_memory_is_a_bound_where_most_junctions_lie_on_no_site(study, tmp_path):
    rows = (study / "usage" / "sim1.Brain_1.1.SJ.out.tab").read_text().splitlines()
    made = [f"chr1\t{1000 + 3 * i}\t{5000 + 3 * i}\t1\t1\t0\t1\t0\t30" for i in range(300_000)]
    usage = []
    for condition in range(3):
        path = tmp_path / f"{condition}.SJ.out.tab"
        path.write_text("\n".join([*rows, *made]) + "\n")
        usage.append({"file": str(path), "condition": f"c{condition}"})
    config = tmp_path / "genomes.json"
    files = {"fasta": str(study / "genomes/sim1.fa.gz"), "annotation": str(study / "annotation/sim1.gtf.gz")}
    config.write_text(json.dumps({"genomes": [{"genome_id": "g", **files, "usage": usage}]}))
    (found,) = estimate_genomes(load_genomes_config(str(config)).genomes)
    report = ingested(config, tmp_path / "store", "--override-gates")["g"]
    assert report["observed_peak_bytes"] <= found.peak_bytes


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("fasta", "annotation", "usage"),
    [
        ("yeast/S288C.R64-2-1.fa.gz", "yeast/S288C.R64-2-1.gff3.gz", ()),
        ("yeast/CPG_1a.fa.gz", "yeast/CPG_1a.gff3.gz", ()),
        ("vertebrates/hg38.fa.gz", "vertebrates/refseq.hg38.gtf.gz", ("hg38.isoseq.SJ.tab.gz", "hg38.junctions.tsv.gz")),
        ("vertebrates/mm10.fa.gz", "vertebrates/mm10.cgp.gff.gz", ("mm10.ERR033015.SJ.tab.gz", "mm10.junctions.tsv.gz")),
        ("vertebrates/monDom5.fa.gz", "vertebrates/monDom5.cgp.gff.gz", ()),
    ],
    ids=["S288C", "CPG_1a", "human", "mouse", "opossum"],
)  # fmt: skip
def test_real_genomes_take_the_disk_that_was_estimated(data_dir, tmp_path, fasta, annotation, usage):
    files = tuple(UsageFile(file=str(data_dir / "vertebrates" / u), condition=f"c{i}") for i, u in enumerate(usage))
    genome = GenomeConfig(
        genome_id="g", fasta=str(data_dir / fasta), annotation=str(data_dir / annotation), usage=files,
        missing_contigs="drop",
    )  # fmt: skip
    found = estimate_genome(genome)
    options = IngestOptions(override_gates=True, scheduler="sync")
    (report,) = ingest_genomes(StoreRoot(str(tmp_path / "store")), GenomesConfig(genomes=(genome,)), options)
    n_objects, n_bytes = objects_and_bytes(tmp_path / "store")
    assert n_bytes / 1.5 <= found.stored_bytes <= 1.5 * n_bytes
    assert n_objects <= found.n_objects <= 1.5 * n_objects
    summary = report.document()
    assert found.n_bases == pytest.approx(summary["n_bases"], rel=0.02)
    assert found.n_sites == pytest.approx(sum(summary["n_sites"].values()), rel=0.15)


def test_requests_to_an_object_store_are_those_counted_at_the_server(study):
    config = load_genomes_config(str(study / "genomes.json"))
    (local,) = estimate_genomes(config.genomes)
    with moto_server() as s3, fault_proxy(s3.url) as proxy:
        bucket, options = s3.bucket(), s3.storage_options(proxy.url)
        list(ingest_genomes(StoreRoot(f"s3://{bucket}/store", options), config, IngestOptions(scheduler="sync")))
        made = Counter("LIST" if "list-type" in r.query else r.method for r in proxy.log())
        inputs = StoreRoot(f"s3://{bucket}/inputs", options)
        genome = config.genomes[0]
        moved = {}
        for role in ("fasta", "annotation"):
            path = Path(getattr(genome, role))
            inputs.put(path.name, path.read_bytes())
            moved[role] = inputs.url_of(path.name)
        remote = estimate_genome(genome.model_copy(update=moved), options)
    requests = local.requests
    for found, counted in ((requests.put, made["PUT"]), (requests.get, made["GET"]), (requests.list, made["LIST"])):
        assert counted <= found <= 1.5 * counted
    assert remote.counts == local.counts
    assert remote.bytes_in == local.bytes_in
    assert remote.requests.get > local.requests.get


# -- heads -------------------------------------------------------------------------------------------------------


def write_text(path: Path, text: bytes, form: str) -> Path:
    if form == "plain":
        path.write_bytes(text)
    elif form == "gzip":
        path.write_bytes(gzip.compress(text, 1))
    else:
        with pysam.BGZFile(str(path), "wb") as stream:
            stream.write(text)
    return path


records = st.lists(
    st.lists(st.text("ACGTNacgt", min_size=1, max_size=70), min_size=1, max_size=5), min_size=1, max_size=6
)


@pytest.mark.parametrize("form", ["plain", "gzip", "bgzip"])
@given(records=records, crlf=st.booleans())
@settings(max_examples=25)
def test_bases_and_records_of_a_small_file_are_counted(tmp_path_factory, form, records, crlf):
    end = "\r\n" if crlf else "\n"
    text = "".join(f">c{i} described{end}{end.join(lines)}{end}" for i, lines in enumerate(records)).encode()
    path = write_text(tmp_path_factory.mktemp("heads") / "g.fa", text, form)
    place, size = place_of(str(path)), path.stat().st_size
    head = read_head(place, size)
    assert head.is_whole
    assert head.is_seekable == (form != "gzip")
    assert text_bytes(place, size, head) == len(text)
    assert count_fasta(head) == {"bases": sum(len(s) for r in records for s in r), "contigs": len(records)}


@pytest.mark.parametrize("form", ["plain", "gzip", "bgzip"])
def test_of_a_large_file_one_mib_is_read(tmp_path, monkeypatch, form):
    letters = np.random.default_rng(0).choice(np.frombuffer(b"ACGT", dtype=np.uint8), 4_000_020).tobytes()
    text = b">c1\n" + b"\n".join(letters[i : i + 60] for i in range(0, len(letters), 60)) + b"\n"
    path = write_text(tmp_path / "g.fa", text, form)
    asked = []
    plain = StoreRoot.get_range

    def recorded(root, key, start, length):
        asked.append(length)
        return plain(root, key, start, length)

    monkeypatch.setattr(StoreRoot, "get_range", recorded)
    found = estimate_genome(GenomeConfig(genome_id="g", fasta=str(path)))
    assert sum(asked) <= HEAD_BYTES
    assert found.n_bases == pytest.approx(4_000_020, rel=0.02)


def test_an_index_beside_the_fasta_gives_its_lengths(tmp_path):
    text = b">a\n" + b"ACGT" * 10 + b"\n>b\n" + b"ACGT" * 5 + b"\n"
    path = write_text(tmp_path / "g.fa.gz", text, "bgzip")
    Path(f"{path}.fai").write_text("a\t40\t3\t40\t41\nb\t20\t47\t20\t21\n")
    whole = GenomeConfig(genome_id="g", fasta=str(path))
    assert estimate_genome(whole).n_bases == 60
    assert estimate_genome(whole.model_copy(update={"chromosomes": ("b",)})).n_bases == 20


def test_without_an_index_a_choice_of_chromosomes_is_counted_whole_and_said(tmp_path):
    path = write_text(tmp_path / "g.fa", b">a\nACGT\n>b\nAC\n", "plain")
    found = estimate_genome(GenomeConfig(genome_id="g", fasta=str(path), chromosomes=("b",)))
    assert found.n_bases == 6
    assert "without a .fai" in found.notes[0]


def check_annotation_counts(path: Path, policy: str) -> None:
    """Compare with what the reader itself makes of the whole file."""
    annotation = read_annotation(str(path))
    kept = select_transcripts(annotation, policy)
    introns = introns_of(annotation.exon_ptr, annotation.exon_start, annotation.exon_end)
    introns = introns.take(kept[introns.transcript] & (introns.end - introns.start >= 5))
    gene = annotation.transcripts["gene"].to_numpy()
    strand = annotation.genes["strand"].to_numpy()[gene]
    contig = annotation.genes["contig"].astype("category").cat.codes.to_numpy()[gene[introns.transcript]]
    shifted = replace(
        introns, start=introns.start + (contig.astype(int) << 40), end=introns.end + (contig.astype(int) << 40)
    )
    n_sites = len(sites_of(shifted, strand, gene.astype("int32")))
    head = read_head(place_of(str(path)), path.stat().st_size)
    assert head.is_whole
    counts = count_annotation(head, policy)
    assert counts["genes"] == pytest.approx(len(annotation.genes), rel=0.02)
    assert counts["selected"] == pytest.approx(kept.sum(), rel=0.02)
    assert counts["sites"] == pytest.approx(n_sites, rel=0.02)


@pytest.mark.parametrize("policy", ["all", "splicevo", "protein_coding"])
def test_annotation_heads_are_counted_as_the_reader_reads(study, policy):
    check_annotation_counts(study / "annotation" / "sim1.gtf.gz", policy)


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", ["refseq.hg38.gtf.gz", "mm10.cgp.gff.gz", "GRCm38.mm10.subset.gff3.gz", "monDom5.cgp.gff.gz"]
)
def test_real_annotation_heads_are_counted_as_the_reader_reads(data_dir, name):
    check_annotation_counts(data_dir / "vertebrates" / name, "all")


def test_a_damaged_gzip_head_is_named(tmp_path):
    path = tmp_path / "g.fa.gz"
    path.write_bytes(gzip.compress(bytes(range(256)) * 20)[:30] + b"\0" * 5000)
    with pytest.raises(InputError, match=r"g\.fa\.gz: not readable as gzip"):
        estimate_genome(GenomeConfig(genome_id="g", fasta=str(path)))


def test_all_missing_files_are_in_one_error(tmp_path):
    fasta = write_text(tmp_path / "g.fa", b">a\nACGT\n", "plain")
    usage = (UsageFile(file=str(tmp_path / "u1"), condition="x"), UsageFile(file=str(tmp_path / "u2"), condition="y"))
    genomes = (
        GenomeConfig(genome_id="a", fasta=str(fasta), annotation=str(tmp_path / "no.gtf"), usage=usage),
        GenomeConfig(genome_id="b", fasta=str(tmp_path / "no.fa")),
    )
    with pytest.raises(InputError, match="4 input files do not exist") as error:
        estimate_genomes(genomes)
    assert all(name in str(error.value) for name in ("no.gtf", "no.fa", "u1", "u2"))


def test_missing_optional_usage_is_left_out_unless_none_is_there(study):
    genome = load_genomes_config(str(study / "genomes.json")).genomes[0]
    absent = UsageFile(file=str(study / "usage" / "nothing.tsv"), condition="z", optional=True)
    found = estimate_genome(genome.model_copy(update={"usage": (*genome.usage, absent)}))
    assert found.n_conditions == 4
    with pytest.raises(InputError, match=r"1 input files do not exist: .*nothing\.tsv"):
        estimate_genome(genome.model_copy(update={"usage": (absent,)}))


def test_missing_files_are_named_among_thousands(tmp_path):
    fasta = write_text(tmp_path / "g.fa", b">a\nACGT\n", "plain")
    names = [tmp_path / f"{i}.tsv" for i in range(2_500)]
    for path in names[:-1]:
        path.write_text("chr1\t1\t2\t1\t1\t1\t1\t0\t9\n")
    genome = GenomeConfig(
        genome_id="g", fasta=str(fasta), usage=tuple(UsageFile(file=str(p), condition=p.name) for p in names)
    )
    with pytest.raises(InputError, match=r"1 input files do not exist: .*/2499\.tsv"):
        estimate_genome(genome)


# -- memory, advice, tasks ---------------------------------------------------------------------------------------


@st.composite
def genome_estimates(draw) -> GenomeEstimate:
    """Genomes from a yeast to a wheat, with panels from none to a thousand conditions."""
    n_conditions = draw(st.sampled_from([0, 1, 7, 8, 99, 1_000]))
    rows = draw(st.integers(0, 400_000)) * n_conditions
    usage = UsageCounts(
        n_conditions=n_conditions,
        rows=rows,
        junctions=rows * draw(st.sampled_from([0, 1])),
        largest_text=draw(st.integers(0, 10**8)) if n_conditions else 0,
        widest_group=min(8, n_conditions),
    )
    sites = draw(st.integers(0, 500_000))
    counts = GenomeCounts(
        bases=draw(st.integers(1, 17 * 10**9)), genes=sites // 10, transcripts=sites // 5, selected=sites // 6,
        exons=sites * 2, sites=sites, annotation_text=500.0 * sites, usage=usage,
    )  # fmt: skip
    return GenomeEstimate("g", counts, draw(st.booleans()), 0, 0, 0, Requests(0, 0, 0))


def planned(genomes, scheduler="sync", n_workers=1, machine=HERE) -> Estimate:
    return Estimate(tuple(genomes), scheduler, n_workers, machine)


@given(genome=genome_estimates(), max_memory=st.integers(2**28, 2**38), n_workers=st.integers(1, 64))
def test_advice_names_a_setting_that_fits_or_says_that_none_does(genome, max_memory, n_workers):
    whole = planned([genome], f"processes:{n_workers}", n_workers)
    advice = setting_that_fits(whole, max_memory)
    if found := re.search(r"--scheduler (\w+):(\d+) ", advice):
        assert peak_on_machine([genome], found[1], int(found[2])) <= max_memory
    elif found := re.search(r"(\d+) panels of (\d+) conditions", advice):
        panels, n_conditions = int(found[1]), int(found[2])
        assert genome.peak_bytes > max_memory
        assert (panels - 1) * n_conditions < genome.n_conditions <= panels * n_conditions
        panel = replace(genome, counts=replace(genome.counts, usage=genome.counts.usage.of_conditions(n_conditions)))
        assert panel.peak_bytes <= max_memory
    elif advice.startswith("use --scheduler sync"):
        assert genome.peak_bytes <= max_memory
    else:
        bare = replace(genome, counts=replace(genome.counts, usage=UsageCounts()))
        assert advice.startswith("no setting fits")
        assert bare.peak_bytes > max_memory or genome.n_conditions > 0


@given(genome=genome_estimates(), n_workers=st.integers(1, 64))
def test_more_workers_need_no_less_memory_and_no_more_time(genome, n_workers):
    machine = Machine(128, 2**40, 2**50)
    few, more = (planned([genome], f"threads:{n}", n, machine) for n in (n_workers, n_workers + 1))
    assert few.peak_bytes <= more.peak_bytes
    assert more.wall_seconds.high <= few.wall_seconds.high * 1.0001
    assert few.wall_seconds.low <= few.wall_seconds.high


@given(genome=genome_estimates(), fewer=st.integers(1, 1_000))
def test_a_panel_of_fewer_conditions_needs_no_more_memory(genome, fewer):
    usage = genome.counts.usage
    if usage.n_conditions:
        smaller = replace(genome.counts, usage=usage.of_conditions(min(fewer, usage.n_conditions)))
        assert replace(genome, counts=smaller).peak_bytes <= genome.peak_bytes


def test_a_thousand_genomes_of_a_million_windows_stay_below_a_hundred_thousand_tasks():
    usage = UsageCounts(n_conditions=99, n_files=99, rows=99 * 300_000, widest_group=8)
    genome = GenomeEstimate(
        "g", GenomeCounts(bases=10**9, sites=400_000, usage=usage), True, 0, 0, 0, Requests(0, 0, 0)
    )
    whole = planned([genome] * 1_000, "processes:32", 32)
    cut = planned([genome] * 1_000, "tcp://scheduler:8786", 600)
    assert dry_run.planned_tasks(whole).n_tasks == 1_000
    tasks = dry_run.planned_tasks(cut)
    assert 40_000 < tasks.n_tasks < tasks.n_partitions < 100_000
    assert tasks.state_bytes < 2**24


def test_the_verdict_says_what_is_needed_and_what_there_is(study):
    config = load_genomes_config(str(study / "genomes.json"))
    fitting = estimate(config, scheduler="processes:2", machine=HERE)
    assert re.match(
        r"fits: processes:2 needs \S+ MiB of 32\.0 GiB and \S+ KiB of 1\.0 TiB free disk; ", fitting.verdict
    )
    crowded = estimate(config, scheduler="processes:64", machine=replace(HERE, memory_bytes=2**31))
    assert re.search(r"does not fit: processes:64 .*; use --scheduler processes:\d ", crowded.verdict)
    full = estimate(config, machine=replace(HERE, disk_free_bytes=1000))
    assert re.search(r"does not fit: .*; free \S+ KiB more, or name a store elsewhere", full.verdict)
    remote = estimate(config, machine=replace(HERE, disk_free_bytes=None))
    assert "on the object store" in remote.verdict
    assert remote.wall_seconds.high > estimate(config, machine=HERE).wall_seconds.high


def test_workers_of_a_cluster_must_be_told(study):
    config = load_genomes_config(str(study / "genomes.json"))
    with pytest.raises(ConfigError, match="say how many of its workers"):
        estimate(config, scheduler="tcp://scheduler:8786", machine=HERE)
    found = estimate(config, scheduler="tcp://scheduler:8786", n_workers=40, machine=HERE)
    assert found.peak_bytes < planned(found.genomes, "processes:40", 40).peak_bytes
    assert "a thread" in found.verdict


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(3, 9, "3 to 9 s"), (200, 900, "3 to 15 min"), (700, 1800, "0.2 to 0.5 h"), (40_000, 90_000, "11 to 25 h")],
)
def test_times_are_spelled_in_units_that_people_plan_in(low, high, text):
    assert spell_seconds(Span(low, high)) == text


# -- tables held to what was measured ----------------------------------------------------------------------------


def benchmark_row(case: str) -> dict:
    rows = json.loads((REPOSITORY / "benchmarks" / "results" / "plan.json").read_text())
    return next(row for row in rows if row["case"] == case)


def test_rates_are_those_of_the_benchmark():
    row = benchmark_row("ingest_rates")
    for name, figure in row["figures"].items():
        assert getattr(costs.RATES, name) == pytest.approx(figure, rel=0.05), (
            f"costs.RATES.{name} is not benchmarks/results/plan.json's; take the new figure over"
        )
    assert row["machine"]["cpu"] in costs.__doc__.replace("\n", " ")


def test_state_of_a_task_is_that_of_the_benchmark():
    measured = benchmark_row("scheduler_state")["figures"]["bytes_per_task"]
    assert pytest.approx(measured, rel=0.25) == dry_run.TASK_STATE_BYTES


# -- the command -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command() -> typer.Typer:
    from splicestore.cli.estimate import estimate as run

    app = typer.Typer()
    app.command()(run)
    return app


def test_the_command_prints_a_plan_and_writes_nothing(command, study, tmp_path):
    words = [str(tmp_path / "store"), str(study / "genomes.json"), "--max-memory", "1GiB"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split()[:3] == ["genome", "bases", "genes"]
    assert lines[1].startswith("sim1")
    assert "--max-memory 1.0 GiB: --scheduler sync fits" in done.output
    assert lines[-1].startswith("fits: sync needs")
    assert not (tmp_path / "store").exists()


def test_the_document_holds_the_plan(command, study, tmp_path):
    done = CliRunner().invoke(command, [str(tmp_path / "store"), str(study / "genomes.json"), "--json"])
    found = json.loads(done.output)
    genome = found["genomes"]["sim1"]
    assert genome["n_partitions"] == {"sequence": 1, "tables": 1, "usage": 1}
    assert genome["n_conditions"] == 4
    assert found["n_tasks"] == 2
    assert found["stored_bytes"] == genome["stored_bytes"]
    assert found["projected_peak_bytes"] == genome["projected_peak_bytes"]
    assert found["wall_seconds"]["low"] < found["wall_seconds"]["high"]
    assert found["fits"] is True
