"""Files that cannot be counted, each refused by name with what to do; samples and options that cannot be meant."""

from __future__ import annotations

import sys

import pytest

from splicestore.alignments import CountOptions, SampleFile, count_usage
from splicestore.alignments.settings import check_samples
from splicestore.errors import ConfigError, InputError
from tests.oracles.bam_oracle import OracleRead
from tests.unit.alignments.bam_files import read_table, write_bam

pysam = pytest.importorskip("pysam", reason="BAM files need pysam: pip install 'splicestore[bio]'")

SPLICED = [OracleRead("chrA", 80, "20M100N20M"), OracleRead("chrA", 90, "40M")]


def count(tmp_path, *paths, **more):
    return count_usage([SampleFile.parse(str(p)) for p in paths], str(tmp_path / "out.tsv"), **more)


@pytest.fixture
def bam(tmp_path):
    return write_bam(tmp_path / "liver.bam", SPLICED)


def test_a_missing_file_a_folder_and_other_bytes(tmp_path):
    (tmp_path / "text.bam").write_text("no alignments here\n" * 10)
    with pytest.raises(InputError, match=r"gone\.bam: no such file"):
        count(tmp_path, tmp_path / "gone.bam")
    with pytest.raises(InputError, match="is a folder, a BAM file was expected"):
        count(tmp_path, tmp_path)
    with pytest.raises(InputError, match=r"text\.bam: not a BAM or CRAM file"):
        count(tmp_path, tmp_path / "text.bam")


def test_sam_text_is_refused(tmp_path):
    (tmp_path / "a.sam").write_text("@HD\tVN:1.6\tSO:coordinate\n@SQ\tSN:chrA\tLN:400\n")
    with pytest.raises(InputError, match=r"a\.sam: is SAM text.*samtools sort"):
        count(tmp_path, tmp_path / "a.sam")


def test_no_index_is_refused_or_made(tmp_path):
    path = write_bam(tmp_path / "a.bam", SPLICED, index=False)
    with pytest.raises(InputError, match=r"a\.bam: has no readable index; `samtools index .*`.*or add --index"):
        count(tmp_path, path)
    assert count(tmp_path, path, make_index=True).n_sites == 2
    assert (tmp_path / "a.bam.bai").exists()


def test_unsorted_files_are_refused_whatever_their_header_says(tmp_path):
    backwards = SPLICED[::-1]
    path = write_bam(tmp_path / "a.bam", backwards, sort_order="queryname", index=False)
    with pytest.raises(InputError, match=r"a\.bam: is sorted as 'queryname', needed is 'coordinate'; `samtools sort"):
        count(tmp_path, path, make_index=True)
    path = write_bam(tmp_path / "b.bam", backwards, sort_order="unknown", index=False)
    with pytest.raises(InputError, match=r"b\.bam: cannot be indexed, it may not be sorted"):
        count(tmp_path, path, make_index=True)


def test_a_file_without_its_last_block_is_refused(tmp_path, bam):
    whole = (tmp_path / "liver.bam").read_bytes()
    (tmp_path / "liver.bam").write_bytes(whole[:-28])
    with pytest.raises(InputError, match=r"liver\.bam: truncated or damaged \(the end-of-file block is missing\)"):
        count(tmp_path, bam)


def test_a_file_damaged_in_the_middle_is_refused(tmp_path):
    many = [OracleRead("chrA", i % 300, f"{10 + i % 70}M", tags={"XX": i * 7919 % 100_003}) for i in range(20_000)]
    path = tmp_path / "a.bam"
    write_bam(path, many)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.bam: truncated or damaged \((error while reading|truncated file)"):
        count(tmp_path, path)


def test_an_index_of_another_version_of_the_file_is_noticed(tmp_path, bam):
    (tmp_path / "old.bai").write_bytes((tmp_path / "liver.bam.bai").read_bytes())
    write_bam(bam, [*SPLICED, OracleRead("chrB", 5, "40M"), OracleRead("chrB", 5, "40M", 4)])
    assert count(tmp_path, bam).samples["liver"].skipped == {"unmapped": 1}
    (tmp_path / "liver.bam.bai").write_bytes((tmp_path / "old.bai").read_bytes())
    write_bam(tmp_path / "longer.bam", [*SPLICED, *SPLICED])
    (tmp_path / "longer.bam.bai").write_bytes((tmp_path / "old.bai").read_bytes())
    with pytest.raises(
        InputError, match=r"longer\.bam: has 4 alignments, its index says 2: the index is of another version"
    ):
        count(tmp_path, tmp_path / "longer.bam", overwrite=True)


def test_cram_needs_its_reference(tmp_path):
    header = pysam.AlignmentHeader.from_dict({"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": [{"SN": "c", "LN": 50}]})
    verbosity = pysam.set_verbosity(0)
    with pysam.AlignmentFile(str(tmp_path / "a.cram"), "wc", header=header):
        pass
    pysam.set_verbosity(verbosity)
    with pytest.raises(ConfigError, match=r"a\.cram: is CRAM.*add --reference FASTA"):
        count(tmp_path, tmp_path / "a.cram")


def test_cram_with_its_reference_counts_as_the_bam(tmp_path, bam):
    (tmp_path / "g.fa").write_text(f">chrA\n{'ACGT' * 100}\n>chrB\n{'ACGTA' * 18}\n")
    pysam.faidx(str(tmp_path / "g.fa"))
    with (
        pysam.AlignmentFile(bam) as source,
        pysam.AlignmentFile(
            str(tmp_path / "a.cram"), "wc", template=source, reference_filename=str(tmp_path / "g.fa")
        ) as file,
    ):
        for read in source.fetch():
            read.query_sequence = "A" * read.infer_query_length()
            file.write(read)
    pysam.index(str(tmp_path / "a.cram"))
    count(tmp_path, tmp_path / "a.cram", reference=str(tmp_path / "g.fa"))
    from_cram = read_table(tmp_path / "out.tsv")
    count(tmp_path, bam, overwrite=True)
    assert from_cram == read_table(tmp_path / "out.tsv")


def test_no_spliced_read_is_refused_with_what_was_read(tmp_path):
    path = write_bam(tmp_path / "dna.bam", [OracleRead("chrA", 5, "40M"), OracleRead("chrA", 5, "40M", 256), OracleRead("chrA", 9, "40M", mapping_quality=3)])  # fmt: skip
    message = (
        r"none of the 1 reads counted in dna has an intron \(skipped: 1 secondary, 1 mapping_quality\).*spliced aligner"
    )
    with pytest.raises(InputError, match=message):
        count(tmp_path, path)


def test_no_junction_that_passes_is_refused_with_what_there_was(tmp_path, bam):
    message = r"1 junctions were seen, none passes --min-junction-reads 2 \(most: 1\), --min-overhang 8 \(largest: 20\)"
    with pytest.raises(InputError, match=message):
        count(tmp_path, bam, options=CountOptions(min_junction_reads=2))
    assert not (tmp_path / "out.tsv").exists()


GTF = 'chr{}\tt\texon\t81\t{}\t.\t+\t.\tgene_id "g"; transcript_id "t";\nchr{}\tt\texon\t201\t{}\t.\t+\t.\tgene_id "g"; transcript_id "t";\n'


def test_an_annotation_of_other_contigs_or_another_assembly_is_refused(tmp_path, bam):
    (tmp_path / "a.gtf").write_text(GTF.format(7, 100, 7, 220))
    with pytest.raises(InputError, match=r"a\.gtf: none of its contigs \(chr7, \.\.\.\) is in the alignments.*chrA"):
        count(tmp_path, bam, annotation=str(tmp_path / "a.gtf"))
    (tmp_path / "b.gtf").write_text(GTF.format("A", 100, "A", 4_000))
    with pytest.raises(InputError, match=r"b\.gtf: reaches base 4,000 of chrA, which has 400 in the alignments"):
        count(tmp_path, bam, annotation=str(tmp_path / "b.gtf"))


def test_files_of_different_assemblies_are_refused(tmp_path, bam):
    other = write_bam(tmp_path / "b.bam", SPLICED, contigs={"chrA": 401})
    with pytest.raises(InputError, match=r"b\.bam: chrA has 401 bases, but 400 in .*liver\.bam"):
        count(tmp_path, bam, other)
    other = write_bam(tmp_path / "c.bam", [OracleRead("chrZ", 5, "40M")], contigs={"chrZ": 401})
    with pytest.raises(InputError, match=r"c\.bam: shares no contig with .*liver\.bam"):
        count(tmp_path, bam, other)


def test_a_table_that_is_there_stays_unless_told(tmp_path, bam):
    (tmp_path / "out.tsv").write_text("mine")
    with pytest.raises(ConfigError, match=r"out\.tsv: exists already.*--overwrite"):
        count(tmp_path, bam)
    count(tmp_path, bam, overwrite=True)
    assert (tmp_path / "out.tsv").read_text().startswith("Region\tSite\t")


def test_names_of_samples(tmp_path, bam):
    assert SampleFile.parse("a/b/liver.rep1.bam") == SampleFile("liver.rep1", "a/b/liver.rep1.bam")
    assert SampleFile.parse("Liver.1=x.bam") == SampleFile("Liver.1", "x.bam")
    assert SampleFile.parse("https://host/x.bam?sig=a=b") == SampleFile("x", "https://host/x.bam?sig=a=b")
    with pytest.raises(ConfigError, match=r"1 samples share a name \(liver\); write NAME=path"):
        count(tmp_path, bam, bam)
    with pytest.raises(ConfigError, match="no BAM file"):
        check_samples([])
    count(tmp_path, f"one={bam}", f"two={bam}")
    header = (tmp_path / "out.tsv").read_text().splitlines()[0]
    assert header.startswith("Sample\tRegion\tSite\tStrand\tGene\tSSE\talpha_count\tbeta1_count\tbeta2Simple_count\t")
    assert {key[0] for key in read_table(tmp_path / "out.tsv")} == {"one", "two"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strandedness": "fr"}, "--strandedness 'fr': use unstranded, forward, reverse"),
        ({"multi_mapping": "best"}, "--multi-mapping 'best': use drop or keep"),
        ({"min_intron": 50, "max_intron": 40}, "--min-intron 50, --max-intron 40"),
        ({"min_overhang": 0}, "--min-overhang 0: at least 1"),
        ({"min_mapping_quality": 256}, "--min-mapping-quality 256: from 0 to 255"),
    ],
)
def test_options_that_cannot_be_meant(tmp_path, bam, options, message):
    with pytest.raises(ConfigError, match=message):
        count(tmp_path, bam, options=CountOptions(**options))


def test_without_pysam_the_message_says_how_to_get_it(tmp_path, bam, monkeypatch):
    monkeypatch.setitem(sys.modules, "pysam", None)
    with pytest.raises(ConfigError, match=r"needs pysam: pip install 'splicestore\[bio\]'"):
        count(tmp_path, bam)


def test_the_default_mapping_quality_follows_what_becomes_of_multi_mapping_reads(tmp_path):
    star = [
        OracleRead("chrA", 80, "20M100N20M", mapping_quality=q, tags={"NH": n})
        for q, n in ((255, 1), (3, 2), (1, 4), (0, 9))
    ]
    path = write_bam(tmp_path / "a.bam", star)
    for how, alpha, skipped in (("drop", 1, {"mapping_quality": 3}), ("keep", 4, {})):
        report = count(tmp_path, path, options=CountOptions(multi_mapping=how), overwrite=True)
        assert report.samples["a"].skipped == skipped
        assert read_table(tmp_path / "out.tsv")["", "chrA", 100, "?", "L"][0] == alpha
