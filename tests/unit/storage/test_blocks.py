"""Block reads: what zarr reads, byte for byte, in one request per shard; damage is never read as data."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Zstd
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from splicestore.errors import StoreError
from splicestore.storage import StoreRoot
from splicestore.storage.blocks import IndexCache, ShardedArray, read_together

DTYPES = ["uint8", "int32", "int64", "float32", "float16"]
CHECKED = ZstdCodec(level=3, checksum=True)
SHUFFLED = [BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()]


class FolderSource:
    """Files of a folder, with a count of requests by (kind, key)."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.requests = Counter()
        self.lock = threading.Lock()

    def _read(self, kind, key):
        with self.lock:
            self.requests[kind, key] += 1
        return (self.folder / key).read_bytes()

    def get_range(self, key, start, length):
        return self._read("range", key)[start : start + length]

    def get_suffix(self, key, length):
        try:
            return self._read("suffix", key)[-length:]
        except FileNotFoundError:
            return None

    def get(self, key):
        try:
            return self._read("whole", key)
        except FileNotFoundError:
            return None

    def count(self, kind):
        return sum(n for (k, _), n in self.requests.items() if k == kind)


def write_array(folder, shape, dtype="uint8", *, chunks, shards=None, fill=0, index_location="end", **options):
    if shards is not None and index_location != "end":
        shards = {"shape": shards, "index_location": index_location}
    options = {"compressors": [CHECKED]} | options
    return zarr.create_array(
        f"{folder}/array", shape=shape, dtype=dtype, chunks=chunks, shards=shards, fill_value=fill, zarr_format=3, **options
    )  # fmt: skip


def metadata(folder):
    return json.loads(Path(folder, "array", "zarr.json").read_text())


def open_blocks(folder, source=None, **options):
    array = ShardedArray.open(source or FolderSource(folder), "array", metadata(folder), **options)
    assert array is not None
    return array


def values_of(rng, shape, dtype):
    if dtype.startswith("float"):
        values = rng.standard_normal(shape).astype(dtype)
        values[rng.random(shape) < 0.2] = np.nan
        values[rng.random(shape) < 0.1] = -0.0
        return values
    return rng.integers(0, 100, shape).astype(dtype)


@st.composite
def array_plans(draw):
    """Shape, chunk, shard, dtype, fill, what is written, what is read."""
    two = draw(st.booleans())
    rows = draw(st.integers(0, 150))
    chunk_rows, per_shard = draw(st.integers(1, 20)), draw(st.integers(1, 6))
    shape, chunks, shards = [rows], [chunk_rows], [chunk_rows * per_shard]
    if two:
        width, across = draw(st.integers(1, 5)), draw(st.integers(1, 3))
        shape, chunks, shards = [*shape, draw(st.integers(1, 14))], [*chunks, width], [*shards, width * across]
    dtype = draw(st.sampled_from(DTYPES))
    fills = [0.0, float("nan"), float("inf"), -1.5] if dtype.startswith("float") else [0, 4]
    bounds = st.tuples(st.integers(0, rows), st.integers(0, rows)).map(sorted)
    return {
        "shape": tuple(shape), "chunks": tuple(chunks), "shards": draw(st.sampled_from([tuple(shards), None])),
        "dtype": dtype, "fill": draw(st.sampled_from(fills)), "index_location": draw(st.sampled_from(["end", "start"])),
        "writes": draw(st.lists(bounds, max_size=3)), "reads": draw(st.lists(bounds, min_size=1, max_size=4)),
        "seed": draw(st.integers(0, 2**32 - 1)), "compressors": draw(st.sampled_from([[CHECKED], SHUFFLED])),
    }  # fmt: skip


def write_plan(folder, plan):
    array = write_array(
        folder, plan["shape"], plan["dtype"], chunks=plan["chunks"], shards=plan["shards"], fill=plan["fill"],
        index_location=plan["index_location"], compressors=plan["compressors"],
    )  # fmt: skip
    rng = np.random.default_rng(plan["seed"])
    for start, end in plan["writes"]:
        if end > start:
            array[start:end] = values_of(rng, (end - start, *plan["shape"][1:]), plan["dtype"])
    return array


@settings(max_examples=150)
@given(plan=array_plans())
def test_rows_are_those_of_zarr_byte_for_byte(plan):
    with tempfile.TemporaryDirectory() as folder:
        array = write_plan(folder, plan)
        blocks = open_blocks(folder)
        assert (blocks.shape, blocks.dtype) == (array.shape, array.dtype)
        for start, end in [*plan["reads"], (0, plan["shape"][0])]:
            ours, theirs = blocks.read(start, end), np.asarray(array[start:end])
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
            assert ours.tobytes() == theirs.tobytes()


@settings(max_examples=50)
@given(plan=array_plans(), data=st.data())
def test_boxes_are_those_of_zarr_byte_for_byte(plan, data):
    with tempfile.TemporaryDirectory() as folder:
        array = write_plan(folder, plan)
        blocks = open_blocks(folder)
        for start, end in plan["reads"]:
            columns = st.integers(0, plan["shape"][-1])
            left, right = sorted(data.draw(st.tuples(columns, columns)))
            if len(plan["shape"]) == 1:
                with pytest.raises(IndexError, match="has one dimension, so no columns"):
                    blocks.read(start, end, (left, right))
                continue
            ours, theirs = blocks.read(start, end, (left, right)), np.asarray(array[start:end, left:right])
            assert (ours.shape, ours.tobytes()) == (theirs.shape, theirs.tobytes())


@settings(max_examples=40)
@given(plan=array_plans())
def test_reads_together_are_the_reads_apart(plan):
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(3) as threads:
        write_plan(folder, plan)
        blocks = open_blocks(folder)
        together = read_together([(blocks, start, end) for start, end in plan["reads"]], threads)
        assert len(together) == len(plan["reads"])
        for rows, (start, end) in zip(together, plan["reads"], strict=True):
            assert rows.tobytes() == blocks.read(start, end).tobytes()


@pytest.mark.parametrize("location", ["end", "start"])
@pytest.mark.parametrize("bits", [np.nan, np.float32(np.inf), "0x7fc00001"])
def test_fill_values_keep_their_bits(tmp_path, bits, location):
    write_array(tmp_path, (30,), "float32", chunks=(5,), shards=(10,), fill=0.0, index_location=location)
    document = metadata(tmp_path)
    document["fill_value"] = bits if isinstance(bits, str) else {True: "NaN", False: "Infinity"}[bool(np.isnan(bits))]
    blocks = ShardedArray.open(FolderSource(tmp_path), "array", document)
    expected = np.array(int(bits, 16), "uint32") if isinstance(bits, str) else np.float32(bits).view("uint32")
    assert blocks is not None
    assert blocks.read(3, 17).view("uint32").tolist() == [int(expected)] * 14


@pytest.mark.parametrize("start_end", [(-1, 3), (4, 3), (0, 31)])
def test_rows_beyond_the_array_are_refused(tmp_path, start_end):
    write_array(tmp_path, (30,), chunks=(5,), shards=(10,))
    with pytest.raises(IndexError, match=r"array: rows \[-?\d+, \d+\) do not lie in \[0, 30\)"):
        open_blocks(tmp_path).read(*start_end)


# -- requests ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["end", "start"])
def sequence(request, tmp_path):
    """Bases in three shards of 8 chunks; the second shard was never written, the third is short."""
    rng = np.random.default_rng(7)
    values = rng.integers(0, 4, 2_200).astype(np.uint8)
    values[800:1_600] = 4
    array = write_array(tmp_path, (2_200,), chunks=(100,), shards=(800,), fill=4, index_location=request.param)
    array[:] = values
    assert sorted(p.name for p in Path(tmp_path, "array", "c").iterdir()) == ["0", "2"]
    return tmp_path, values


def test_a_warm_read_is_one_range_request_per_shard_and_a_cold_one_has_the_index_besides(sequence):
    folder, values = sequence
    source = FolderSource(folder)
    blocks = open_blocks(folder, source)
    assert blocks.read(130, 450).tolist() == values[130:450].tolist()
    assert source.requests.total() == 2
    for start, end in [(0, 800), (700, 701), (130, 450), (99, 101)]:
        source.requests.clear()
        assert blocks.read(start, end).tolist() == values[start:end].tolist()
        assert dict(source.requests) == {("range", "array/c/0"): 1}
    source.requests.clear()
    blocks.read(0, 2_200)
    assert source.count("range") + source.count("suffix") == 1 + 1 + 2  # known shard, absent shard, new shard
    source.requests.clear()
    assert blocks.read(0, 2_200).tolist() == values.tolist()
    assert dict(source.requests) == {("range", "array/c/0"): 1, ("range", "array/c/2"): 1}


def test_a_run_holds_no_byte_beyond_its_chunks(sequence):
    folder, _ = sequence
    lengths = []

    class Measured(FolderSource):
        def get_range(self, key, start, length):
            lengths.append(length)
            return super().get_range(key, start, length)

    blocks = open_blocks(folder, Measured(folder))
    blocks.read(0, 1)
    lengths.clear()
    for i in range(8):
        blocks.read(100 * i, 100 * i + 100)
    blocks.read(0, 800)
    assert sum(lengths[:8]) == lengths[8]


def test_chunks_never_written_cost_no_request(tmp_path):
    array = write_array(tmp_path, (1_000,), chunks=(100,), shards=(1_000,), fill=4)
    array[700:800] = 1
    source = FolderSource(tmp_path)
    blocks = open_blocks(tmp_path, source)
    blocks.read(0, 10)
    source.requests.clear()
    assert blocks.read(0, 700).tolist() == [4] * 700
    assert source.requests.total() == 0


def test_unsharded_columns_are_one_request_per_chunk(tmp_path):
    write_array(tmp_path, (250,), "int64", chunks=(100,))[:] = np.arange(250)
    source = FolderSource(tmp_path)
    assert open_blocks(tmp_path, source).read(90, 250).tolist() == list(range(90, 250))
    assert dict(source.requests) == {("whole", f"array/c/{i}"): 1 for i in range(3)}


def test_more_columns_than_a_shard_is_wide_are_one_request_per_shard(tmp_path):
    values = np.random.default_rng(3).poisson(2, (64, 300)).astype(np.float32)
    write_array(tmp_path, (64, 300), "float32", chunks=(8, 128), shards=(32, 128), fill=np.nan)[:] = values
    source = FolderSource(tmp_path)
    blocks = open_blocks(tmp_path, source)
    assert np.array_equal(blocks.read(10, 30), values[10:30])
    source.requests.clear()
    assert np.array_equal(blocks.read(11, 25), values[11:25])
    assert dict(source.requests) == {("range", f"array/c/0/{j}"): 1 for j in range(3)}


@pytest.mark.parametrize("columns", [(-1, 3), (0, 301), (5, 4)])
def test_columns_beyond_the_array_are_refused(tmp_path, columns):
    write_array(tmp_path, (64, 300), "float32", chunks=(8, 128))
    with pytest.raises(IndexError, match=r"columns \[.*\) do not lie in \[0, 300\)"):
        open_blocks(tmp_path).read(0, 10, columns)


@pytest.mark.parametrize("compressors", [[CHECKED], SHUFFLED], ids=["zstd", "blosc"])
def test_a_box_reads_its_own_chunks_alone_and_neighbours_together(tmp_path, compressors):
    """Chunks of noise, each longer than what is read along; zarr lays them in a shard along a Z."""
    values = np.random.default_rng(5).integers(0, 2**32, (512, 512)).astype(np.uint32)
    options = {"chunks": (128, 256), "shards": (512, 512), "compressors": compressors}
    write_array(tmp_path, values.shape, "uint32", **options)[:] = values
    n_bytes = []

    class Measuring(FolderSource):
        def get_range(self, key, start, length):
            n_bytes.append(length)
            return super().get_range(key, start, length)

    blocks = open_blocks(tmp_path, Measuring(tmp_path))
    stored = (tmp_path / "array/c/0/0").stat().st_size
    assert np.array_equal(blocks.read(0, 512, (0, 512)), values)
    assert (len(n_bytes), sum(n_bytes)) == (1, stored - 8 * 16 - 4)
    whole = n_bytes.pop()
    for left in (0, 256):
        assert np.array_equal(blocks.read(0, 512, (left, left + 256)), values[:, left : left + 256])
        assert np.array_equal(blocks.read(130, 140, (left + 3, left + 5)), values[130:140, left + 3 : left + 5])
    assert sum(n_bytes) == whole + 2 * whole // 8
    assert len(n_bytes) <= 2 * (4 + 1)


def test_store_root_is_a_source(sequence):
    folder, values = sequence
    root = StoreRoot(str(folder))
    blocks = ShardedArray.open(root, "array", root.get_json("array/zarr.json"))
    assert blocks is not None
    assert blocks.read(0, 2_200).tolist() == values.tolist()


# -- threads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_bytes", [64 * 1024 * 1024, 700, 0], ids=["all-held", "one-held", "none-held"])
def test_sixteen_threads_at_once_read_the_same(sequence, max_bytes):
    folder, values = sequence
    blocks = open_blocks(folder, indexes=IndexCache(max_bytes))
    gate = threading.Barrier(16, timeout=20)

    def read(seed):
        starts = np.random.default_rng(seed).integers(0, 1_800, 20)
        gate.wait()
        return all(np.array_equal(blocks.read(s, s + 400), values[s : s + 400]) for s in starts.tolist())

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(read, range(16)))


def test_threads_that_miss_one_index_wait_for_one_request(tmp_path):
    class Slow(FolderSource):
        def get_suffix(self, key, length):
            time.sleep(0.2)
            return super().get_suffix(key, length)

    write_array(tmp_path, (800,), chunks=(100,), shards=(800,))[:] = 1
    source = Slow(tmp_path)
    blocks = open_blocks(tmp_path, source)
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda i: int(blocks.read(i, i + 1)[0]), range(16))) == [1] * 16
    assert source.count("suffix") == 1


def test_an_index_that_could_not_be_read_is_asked_for_again(tmp_path):
    class Flaky(FolderSource):
        broken = True

        def get_suffix(self, key, length):
            if self.broken:
                raise OSError("the network is down")
            return super().get_suffix(key, length)

    write_array(tmp_path, (800,), chunks=(100,), shards=(800,))[:] = 1
    source = Flaky(tmp_path)
    blocks = open_blocks(tmp_path, source)
    with pytest.raises(OSError, match="the network is down"):
        blocks.read(0, 1)
    source.broken = False
    assert blocks.read(0, 1).tolist() == [1]


def three_arrays(tmp_path, make_source):
    arrays = []
    for i in range(3):
        folder = tmp_path / str(i)
        write_array(folder, (800,), chunks=(100,), shards=(800,))[:] = i + 1
        arrays.append(open_blocks(folder, make_source(folder)))
    return arrays


def test_requests_and_their_indexes_are_in_flight_together(tmp_path):
    meeting = threading.Barrier(3, timeout=20)

    class Meeting(FolderSource):
        """A request is answered when three are waiting."""

        def get_range(self, key, start, length):
            meeting.wait()
            return super().get_range(key, start, length)

        def get_suffix(self, key, length):
            meeting.wait()
            return super().get_suffix(key, length)

    arrays = three_arrays(tmp_path, Meeting)
    with ThreadPoolExecutor(3) as threads:
        rows = read_together([(array, 5, 7) for array in arrays], threads)
    assert [r.tolist() for r in rows] == [[1, 1], [2, 2], [3, 3]]


def test_reading_together_from_inside_the_same_full_pool_does_not_hang(tmp_path):
    arrays = three_arrays(tmp_path, FolderSource)
    with ThreadPoolExecutor(1) as threads:
        rows = threads.submit(read_together, [(array, 0, 2) for array in arrays], threads).result(timeout=20)
    assert [r.tolist() for r in rows] == [[1, 1], [2, 2], [3, 3]]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_an_error_of_one_request_is_raised(tmp_path, broken):
    arrays = three_arrays(tmp_path, FolderSource)
    (tmp_path / str(broken) / "array/c/0").write_bytes(b"nothing of the kind")
    with ThreadPoolExecutor(2) as threads, pytest.raises(StoreError, match="truncated"):
        read_together([(array, 0, 2) for array in arrays], threads)


def test_rows_go_where_they_are_asked_to(tmp_path):
    arrays = three_arrays(tmp_path, FolderSource)
    buffer = np.zeros(20, dtype=arrays[1].dtype)
    with ThreadPoolExecutor(2) as threads:
        rows = read_together([(arrays[0], 0, 3), (arrays[1], 2, 7, buffer[10:15]), (arrays[2], 0, 1, None)], threads)
        assert np.shares_memory(rows[1], buffer)
        assert buffer.tolist() == [0] * 10 + [2] * 5 + [0] * 5
        assert [len(r) for r in rows] == [3, 5, 1]
        for wrong in (buffer[:4], buffer[:10:2], buffer[:5].astype(np.float64)):
            with pytest.raises(ValueError, match=r"out is .*, the rows are .* \(5,\), C-contiguous"):
                read_together([(arrays[1], 2, 7, wrong)], threads)


def test_nothing_asked_for_is_nothing_read(tmp_path):
    with ThreadPoolExecutor(1) as threads:
        assert read_together([], threads) == []


@given(
    keys=st.lists(st.integers(0, 12), max_size=60), sizes=st.lists(st.integers(0, 40), min_size=13, max_size=13),
    max_bytes=st.integers(0, 6_000),
)  # fmt: skip
def test_the_cache_holds_no_more_than_it_may_and_what_was_used_last(keys, sizes, max_bytes):
    cache = IndexCache(max_bytes)
    loaded = []

    def load(key):
        loaded.append(key)
        return None if key % 4 == 0 else np.full((sizes[key], 2), key, dtype=np.int64)

    for key in keys:
        index = cache.get(key, lambda key=key: load(key))
        assert index is None if key % 4 == 0 else (index == key).all() and len(index) == sizes[key]
        assert cache.n_bytes <= max_bytes
        before = len(loaded)
        cache.get(key, lambda key=key: load(key))
        fits = 512 + (0 if key % 4 == 0 else 16 * sizes[key]) <= max_bytes
        assert (len(loaded) == before) == fits


def test_a_shared_cache_keeps_stores_apart(tmp_path):
    shared = IndexCache()
    for fill in (1, 2):
        folder = tmp_path / str(fill)
        array = write_array(folder, (40,), chunks=(10,), shards=(40,), fill=fill)
        if fill == 1:
            array[10:20] = 9
        expected = np.asarray(array[:])
        assert np.array_equal(open_blocks(folder, indexes=shared).read(0, 40), expected)


# -- damage ------------------------------------------------------------------------------------------------------


def read_or_refuse(folder, n_rows):
    try:
        return open_blocks(folder).read(0, n_rows)
    except StoreError as error:
        complaint = str(error)
    assert complaint.startswith("array/c/0: ")
    assert "`splicestore verify`" in complaint
    return None


@pytest.mark.parametrize("compressors", [[CHECKED], SHUFFLED], ids=["zstd", "blosc"])
@pytest.mark.parametrize("sharded", ["end", "start", None])
def test_a_flipped_bit_in_any_byte_is_refused_or_changes_nothing(tmp_path, sharded, compressors):
    rng = np.random.default_rng(11)
    values = rng.integers(0, 4, 300).astype(np.uint8)
    chunks, shards = ((16,), (320,)) if sharded else ((320,), None)
    options = {"index_location": sharded or "end", "compressors": compressors}
    write_array(tmp_path, (300,), chunks=chunks, shards=shards, fill=4, **options)[:] = values
    target = tmp_path / "array/c/0"
    good = target.read_bytes()
    refused = 0
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(8))
        target.write_bytes(bad)
        rows = read_or_refuse(tmp_path, 300)
        refused += rows is None
        assert rows is None or np.array_equal(rows, values)
    assert refused > 0.9 * len(good)


@pytest.mark.parametrize("location", ["end", "start"])
def test_an_object_cut_off_anywhere_is_refused(tmp_path, location):
    array = write_array(tmp_path, (300,), "int32", chunks=(50,), shards=(300,), index_location=location)
    array[:] = np.random.default_rng(2).integers(0, 9, 300)
    target = tmp_path / "array/c/0"
    good = target.read_bytes()
    for length in [*range(0, len(good), 7), len(good) - 1]:
        target.write_bytes(good[:length])
        assert read_or_refuse(tmp_path, 300) is None


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (Zstd(level=3).encode(b"x" * 90), "it holds 90 bytes, a chunk has 100"),
        (Zstd(level=3).encode(b"x" * 70_000), "it holds 70000 bytes, a chunk has 100"),
        (Zstd(level=3).encode(b"x" * 100) * 2, "Zstd|destination"),
        (b"\x28\xb5\x2f\xfd\x00\x00" + (1 | 90 << 3).to_bytes(3, "little") + b"x" * 90, "it holds 90 bytes"),
        (b"\x28\xb5\x2f\xfd", "its header is cut off"),
        (b"plainly no frame" * 10, "it is no zstd frame"),
        (b"", "it is no zstd frame"),
    ],
    ids=["short", "long", "two-frames", "short-unannounced", "header", "text", "empty"],
)
def test_a_frame_of_another_length_or_kind_is_refused(tmp_path, frame, complaint):
    write_array(tmp_path, (100,), chunks=(100,))[:] = 1
    (tmp_path / "array/c/0").write_bytes(frame)
    with pytest.raises(StoreError, match=rf"array/c/0: the chunk at bytes .* is damaged: .*({complaint})"):
        open_blocks(tmp_path).read(0, 100)


def test_a_frame_that_does_not_announce_its_size_is_read(tmp_path):
    """Other writers stream: one raw block of 100 bytes, no content size in the header."""
    write_array(tmp_path, (100,), chunks=(100,))[:] = 1
    content = bytes(range(100))
    (tmp_path / "array/c/0").write_bytes(b"\x28\xb5\x2f\xfd\x00\x00" + (1 | 100 << 3).to_bytes(3, "little") + content)
    assert open_blocks(tmp_path).read(0, 100).tobytes() == content


def test_an_index_whose_entries_were_swapped_is_refused(tmp_path):
    """Every frame is whole and every length right: only the checksum of the index tells."""
    write_array(tmp_path, (100,), chunks=(50,), shards=(100,))[:] = np.arange(100)
    target = tmp_path / "array/c/0"
    good = target.read_bytes()
    first, second, checksum = good[-36:-20], good[-20:-4], good[-4:]
    target.write_bytes(good[:-36] + second + first + checksum)
    with pytest.raises(StoreError, match="array/c/0: the checksum of its shard index is wrong"):
        open_blocks(tmp_path).read(0, 100)


def test_a_run_that_comes_short_is_called_truncated(tmp_path):
    write_array(tmp_path, (100,), chunks=(50,), shards=(100,), index_location="start")[:] = np.arange(100)
    target = tmp_path / "array/c/0"
    target.write_bytes(target.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"array/c/0: bytes \[36, \d+\) were asked for, \d+ came: truncated"):
        open_blocks(tmp_path).read(0, 100)


def test_an_index_with_a_right_checksum_and_impossible_places_is_refused(tmp_path):
    write_array(tmp_path, (100,), chunks=(50,), shards=(100,))[:] = 1
    pairs = np.array([[0, 10], [-7, 10]], "<i8").tobytes()
    (tmp_path / "array/c/0").write_bytes(b"0" * 10 + pairs + google_crc32c.value(pairs).to_bytes(4, "little"))
    with pytest.raises(StoreError, match="array/c/0: its shard index points outside of the object"):
        open_blocks(tmp_path).read(0, 10)


def test_an_object_that_vanished_is_named(tmp_path):
    write_array(tmp_path, (100,), chunks=(50,), shards=(100,))[:] = 1
    blocks = open_blocks(tmp_path)
    blocks.read(0, 10)
    (tmp_path / "array/c/0").unlink()
    with pytest.raises(StoreError, match="array/c/0: the object was there when its index was read and is gone"):
        blocks.read(0, 10)


# -- what is not ours --------------------------------------------------------------------------------------------

OTHERS = {
    "gzip": {"compressors": [GzipCodec()]},
    "uncompressed": {"compressors": None},
    "checksum-after-zstd": {"compressors": [CHECKED, Crc32cCodec()]},
    "blosc-unchecked": {"compressors": SHUFFLED[:1]},
    "big-endian": {"serializer": BytesCodec(endian="big")},
    "transposed": {"filters": [TransposeCodec(order=(1, 0))]},
    "v2-keys": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
}


@pytest.mark.parametrize("shards", [None, (20, 10)], ids=["chunks", "shards"])
@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_another_codec_chain_is_left_to_zarr(tmp_path, options, shards):
    write_array(tmp_path, (40, 10), "int32", chunks=(10, 10), shards=shards, **options)
    assert ShardedArray.open(FolderSource(tmp_path), "array", metadata(tmp_path)) is None


@pytest.mark.parametrize("shape", [(), (4, 4, 4)], ids=["no-axis", "three-axes"])
def test_other_ranks_are_left_to_zarr(tmp_path, shape):
    write_array(tmp_path, shape, chunks=tuple(2 for _ in shape))
    assert ShardedArray.open(FolderSource(tmp_path), "array", metadata(tmp_path)) is None


def test_strings_are_left_to_zarr(tmp_path):
    write_array(tmp_path, (4,), str, chunks=(2,), fill="")
    assert ShardedArray.open(FolderSource(tmp_path), "array", metadata(tmp_path)) is None


def change(document, *path, to):
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = to


SHARDING = ("codecs", 0, "configuration")
CHANGES = {
    "another-format": (("zarr_format",), 2),
    "a-group": (("node_type",), "group"),
    "a-new-field": (("must_understand_me",), {}),
    "a-transformer": (("storage_transformers",), [{"name": "other"}]),
    "another-grid": (("chunk_grid", "name"), "rectilinear"),
    "another-type": (("data_type",), {"name": "numpy.datetime64"}),
    "another-separator": (("chunk_key_encoding", "configuration", "separator"), "-"),
    "index-unchecked": ((*SHARDING, "index_codecs"), [{"name": "bytes", "configuration": {"endian": "little"}}]),
    "index-in-the-middle": ((*SHARDING, "index_location"), "middle"),
    "chunks-that-do-not-fill-shards": ((*SHARDING, "chunk_shape"), [7]),
    "chunks-of-another-rank": ((*SHARDING, "chunk_shape"), [5, 5]),
    "no-fill": (("fill_value",), None),
    "no-codecs": (("codecs",), None),
    "no-numbers": (("shape",), "many"),
}


@pytest.mark.parametrize(("path", "value"), CHANGES.values(), ids=CHANGES)
def test_metadata_of_another_kind_is_left_to_zarr(tmp_path, path, value):
    write_array(tmp_path, (40,), chunks=(5,), shards=(20,))
    document = metadata(tmp_path)
    assert ShardedArray.open(FolderSource(tmp_path), "array", document) is not None
    change(document, *path, to=value)
    assert ShardedArray.open(FolderSource(tmp_path), "array", document) is None


def test_codecs_spelled_as_bare_names_are_known(tmp_path):
    write_array(tmp_path, (40,), chunks=(5,), shards=(20,))[:] = 3
    document = metadata(tmp_path)
    change(document, *SHARDING, "codecs", 0, to="bytes")
    change(document, *SHARDING, "index_codecs", 1, to="crc32c")
    blocks = ShardedArray.open(FolderSource(tmp_path), "array", document)
    assert blocks is not None
    assert blocks.read(3, 9).tolist() == [3] * 6
