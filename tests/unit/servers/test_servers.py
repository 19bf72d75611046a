"""The servers, the proxy's faults and the kills do what tests and benchmarks rely on."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError
from obstore.store import HTTPStore, S3Store

from tests.servers import rules
from tests.servers.kills import processes_left, run_and_kill, splicestore_command
from tests.servers.process import REPOSITORY, server_process
from tests.servers.proxy import fault_proxy
from tests.servers.rules import Request, Rule, RuleBook
from tests.servers.s3 import moto_server
from tests.servers.static import byte_range, static_server

BODY = bytes(range(256)) * 40

SIGNATURE = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}
"""Without one the server takes a request for an anonymous one, which may not read; it looks no closer."""


pytest_plugins = ["tests.servers.fixtures"]


def open_store(endpoint, bucket, *, max_retries=0, timeout="10s"):
    return S3Store(
        bucket,
        endpoint=endpoint,
        access_key_id="test",
        secret_access_key="test",
        region="us-east-1",
        client_options={"allow_http": True, "timeout": timeout},
        retry_config={
            "max_retries": max_retries,
            "retry_timeout": timedelta(seconds=10),
            "backoff": {
                "init_backoff": timedelta(milliseconds=5),
                "max_backoff": timedelta(milliseconds=20),
                "base": 2,
            },
        },
    )


@contextlib.contextmanager
def connected(url, timeout=10.0):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        yield connection
    finally:
        connection.close()


def ask(url, method, path, body=None, **headers):
    """One request: status, headers, body."""
    with connected(url) as connection:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, SIGNATURE | given)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


# -- processes ---------------------------------------------------------------------------------------------------


def test_an_s3_server_comes_and_goes(s3):
    with moto_server() as server:
        assert server.port != s3.port
        name = server.bucket()
        options = server.storage_options()
        assert options == {"endpoint_url": server.url, "key": "test", "secret": "test", "region": "us-east-1"}
        assert server.storage_options("http://elsewhere")["endpoint_url"] == "http://elsewhere"
        store = open_store(server.url, name)
        store.put("folder/key", BODY)
        assert bytes(store.get_range("folder/key", start=300, length=5)) == BODY[300:305]
        assert [entry["path"] for chunk in store.list() for entry in chunk] == ["folder/key"]
        assert is_alive(server.pid)
        with pytest.raises(RuntimeError, match="'a' was not made: 400"):
            server.bucket("a")
    assert not is_alive(server.pid)


def test_servers_die_with_the_process_that_asked_for_them(tmp_path):
    script = (
        "import os, signal\n"
        "from tests.servers.process import REPOSITORY, server_process\n"
        f"with server_process('tests.servers.static', {str(tmp_path)!r}) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert wait_until(lambda: not is_alive(int(done.stdout)))


def test_a_server_that_does_not_start_says_why():
    with (
        pytest.raises(RuntimeError, match="(?s)tests.servers.nothing announced no port.*No module named"),
        server_process("tests.servers.nothing"),
    ):
        pass


# -- the proxy, passing on ---------------------------------------------------------------------------------------


def test_a_proxy_without_rules_changes_nothing(s3, s3_proxy, s3_bucket):
    direct, through = open_store(s3.url, s3_bucket), open_store(s3_proxy.url, s3_bucket)
    large = os.urandom(12 << 20)
    through.put("large", large, chunk_size=5 << 20, max_concurrency=3)
    through.put("small/ä b+%", BODY, use_multipart=False)
    through.put("empty", b"", use_multipart=False)
    assert bytes(direct.get("large").bytes()) == bytes(through.get("large").bytes()) == large
    assert bytes(through.get("small/ä b+%").bytes()) == BODY
    assert bytes(through.get("empty").bytes()) == b""
    assert bytes(through.get("large", options={"range": {"suffix": 7}}).bytes()) == large[-7:]
    assert [bytes(x) for x in through.get_ranges("large", starts=[5, 1 << 20], lengths=[3, 4])] == [
        large[5:8], large[1 << 20 : (1 << 20) + 4],
    ]  # fmt: skip
    assert through.head("small/ä b+%") == direct.head("small/ä b+%")
    listed = [sorted(entry["path"] for chunk in store.list() for entry in chunk) for store in (direct, through)]
    assert listed[0] == listed[1] == ["empty", "large", "small/ä b+%"]
    through.delete("empty")
    assert [entry["path"] for chunk in direct.list("empty") for entry in chunk] == []
    assert s3_proxy.counts().faults == {}


def test_conditional_writes_are_decided_by_the_server(s3_proxy, s3_bucket):
    store = open_store(s3_proxy.url, s3_bucket)
    tag = store.put("pointer", b"1", mode="create", use_multipart=False)["e_tag"]
    with pytest.raises(AlreadyExistsError, match="pointer"):
        store.put("pointer", b"2", mode="create", use_multipart=False)
    store.put("pointer", b"3", mode={"e_tag": tag}, use_multipart=False)
    with pytest.raises(BaseError, match="412"):
        store.put("pointer", b"4", mode={"e_tag": tag}, use_multipart=False)
    assert bytes(store.get("pointer").bytes()) == b"3"
    writes = [entry for entry in s3_proxy.log() if entry.method == "PUT"]
    assert [entry.status for entry in writes] == [200, 412, 200, 412]
    assert [list(entry.headers) for entry in writes] == [["if-none-match"]] * 2 + [["if-match"]] * 2


def test_a_connection_is_kept_though_the_server_closes_its_own(s3_proxy, s3_bucket):
    with connected(s3_proxy.url) as connection:
        for number in range(5):
            connection.request("PUT", f"/{s3_bucket}/{number}", BODY)
            assert connection.getresponse().read() == b""
        connection.request("GET", f"/{s3_bucket}/3", headers=SIGNATURE | {"Range": "bytes=10-19"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (206, BODY[10:20])
    counts = s3_proxy.counts()
    assert (counts.requests, counts.connections, counts.max_in_flight) == (6, 1, 1)
    assert counts.operations == {"put": 5, "get": 1}
    assert counts.statuses == {200: 5, 206: 1}
    assert (counts.bytes_up, counts.bytes_down) == (5 * len(BODY), 10)


def test_chunked_bodies_and_expectations_pass(s3_proxy, s3_bucket):
    with connected(s3_proxy.url) as connection:
        pieces = [b"abc", BODY, b"z" * 300_000]
        connection.request("PUT", f"/{s3_bucket}/chunked", iter(pieces), encode_chunked=True)
        assert connection.getresponse().read() == b""
        connection.putrequest("PUT", f"/{s3_bucket}/expected")
        connection.putheader("Content-Length", "4")
        connection.putheader("Expect", "100-continue")
        connection.endheaders(b"body")
        assert connection.getresponse().status == 200
    assert ask(s3_proxy.url, "GET", f"/{s3_bucket}/chunked")[2] == b"".join(pieces)
    assert ask(s3_proxy.url, "GET", f"/{s3_bucket}/expected")[2] == b"body"


def test_the_log_holds_no_secrets(s3_proxy, s3_bucket):
    query = "X-Amz-Signature=s3cret&X-Amz-Credential=s3cret&part=1"
    status = ask(s3_proxy.url, "GET", f"/{s3_bucket}/x?{query}", Authorization="AWS4-HMAC-SHA256 Credential=s3cret")[0]
    (entry,) = s3_proxy.log()
    assert (entry.path, entry.query) == (f"{s3_bucket}/x", "X-Amz-Signature=-&X-Amz-Credential=-&part=1")
    assert "s3cret" not in repr(entry)
    assert (entry.status, entry.operation, entry.method) == (status, "get", "GET")
    assert time.time() - 10 < entry.started <= entry.started + entry.seconds <= time.time()


def test_a_server_that_is_down_is_a_bad_gateway():
    with fault_proxy("http://127.0.0.1:1") as proxy:
        status, _, said = ask(proxy.url, "GET", "/bucket/key")
        assert (status, b"BadGateway" in said) == (502, True)
        assert proxy.log()[0].fault.startswith("no answer from the server")
    with pytest.raises(ValueError, match="in front of http://HOST:PORT"), fault_proxy("https://example.org"):
        pass


# -- the proxy, breaking -----------------------------------------------------------------------------------------


def test_slow_down_surfaces_without_retries_and_is_survived_with_them(s3_proxy, s3_bucket):
    s3_proxy.set(rules.slow_down(operation="put", nth=2))
    store = open_store(s3_proxy.url, s3_bucket)
    store.put("a", b"1", use_multipart=False)
    with pytest.raises(BaseError, match="SlowDown"):
        store.put("b", b"2", use_multipart=False)
    with pytest.raises(FileNotFoundError):
        store.get("b")
    s3_proxy.set(rules.slow_down(operation="put", times=2))
    open_store(s3_proxy.url, s3_bucket, max_retries=3).put("b", b"3", use_multipart=False)
    assert bytes(store.get("b").bytes()) == b"3"
    assert [entry.fault for entry in s3_proxy.log() if entry.path.endswith("/b") and entry.method == "PUT"] == [
        "SlowDown"
    ] * 3 + [""]


@pytest.mark.parametrize(
    "rule", [rules.slow_down(after=True, nth=1), rules.reset(after=True, nth=1)], ids=["error", "reset"]
)
def test_a_write_may_happen_though_the_writer_hears_of_a_failure(s3_proxy, s3_bucket, rule):
    s3_proxy.set(rule)
    path = f"/{s3_bucket}/key"
    with contextlib.suppress(ConnectionError):
        assert ask(s3_proxy.url, "PUT", path, b"first", If_None_Match="*")[0] == 503
    assert ask(s3_proxy.url, "PUT", path, b"second", If_None_Match="*")[0] == 412
    assert ask(s3_proxy.url, "GET", path)[2] == b"first"
    first, second, _ = s3_proxy.log()
    assert (first.fault.endswith(" after"), first.status, second.fault) == (
        True,
        503 if rule.fault == "error" else 0,
        "",
    )


def test_resets_reach_the_client_and_nothing_the_server(s3, s3_proxy, s3_bucket):
    s3_proxy.set(rules.reset(operation="put"))
    with pytest.raises(ConnectionResetError):
        ask(s3_proxy.url, "PUT", f"/{s3_bucket}/key", b"x")
    with pytest.raises(BaseError, match="error sending request"):
        open_store(s3_proxy.url, s3_bucket).put("key", b"x", use_multipart=False)
    assert ask(s3.url, "GET", f"/{s3_bucket}/key")[0] == 404


def test_truncated_bodies_promise_more_than_they_hold(s3_proxy, s3_bucket):
    ask(s3_proxy.url, "PUT", f"/{s3_bucket}/key", BODY)
    s3_proxy.set(rules.truncate(keep=0.25, operation="get", times=1))
    with connected(s3_proxy.url) as connection:
        connection.request("GET", f"/{s3_bucket}/key", headers=SIGNATURE)
        answer = connection.getresponse()
        assert answer.headers["Content-Length"] == str(len(BODY))
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
    assert caught.value.partial == BODY[: len(BODY) // 4]
    assert s3_proxy.log()[-1].bytes_down == len(BODY) // 4
    assert ask(s3_proxy.url, "GET", f"/{s3_bucket}/key")[2] == BODY
    s3_proxy.set(rules.truncate(operation="get"))
    with pytest.raises(BaseError):
        open_store(s3_proxy.url, s3_bucket).get("key").bytes()


def test_a_bucket_may_be_read_only_or_refuse_to_be_listed(s3, s3_proxy, s3_bucket):
    open_store(s3.url, s3_bucket).put("key", BODY, use_multipart=False)
    store = open_store(s3_proxy.url, s3_bucket)
    s3_proxy.set(rules.deny("put|delete"))
    with pytest.raises(PermissionDeniedError, match="AccessDenied"):
        store.put("key", b"", use_multipart=False)
    for refused in (store.delete, lambda key: store.delete([key]), lambda key: store.put(key, b"x" * (6 << 20))):
        with pytest.raises(PermissionDeniedError, match="AccessDenied"):
            refused("key")
    assert bytes(store.get("key").bytes()) == BODY
    s3_proxy.set(*rules.no_list_bucket())
    # The library has no better name for a refused listing than its most general error.
    with pytest.raises(BaseError, match="AccessDenied"):
        list(store.list())
    with pytest.raises(BaseError, match="AccessDenied"):
        store.list_with_delimiter("folder/")
    with pytest.raises(PermissionDeniedError):
        store.get("absent")
    assert bytes(store.get("key").bytes()) == BODY
    store.put("other", b"", use_multipart=False)


def test_rules_choose_by_key(s3_proxy, s3_bucket):
    s3_proxy.set(rules.slow_down(key=r"/zarr\.json$", operation="put|get"))
    paths = ["a/zarr.json", "zarr.json", "a/zarr.json.old", "azarr_json", "c/0"]
    assert [ask(s3_proxy.url, "PUT", f"/{s3_bucket}/{path}", b"")[0] for path in paths] == [503, 503, 200, 200, 200]


def test_latency_adds_up_and_bandwidth_limits(s3_proxy, s3_bucket):
    ask(s3_proxy.url, "PUT", f"/{s3_bucket}/key", BODY * 20)
    s3_proxy.set(rules.latency(60), rules.latency(40, operation="get"), rules.bandwidth(1_000_000, operation="get"))
    began = time.monotonic()
    ask(s3_proxy.url, "GET", f"/{s3_bucket}/key", Range="bytes=0-9")
    assert 0.1 <= time.monotonic() - began < 1
    began = time.monotonic()
    assert len(ask(s3_proxy.url, "GET", f"/{s3_bucket}/key")[2]) == 204_800
    assert 0.3 <= time.monotonic() - began < 1.5
    assert s3_proxy.counts().faults == {}


def test_jitter_lets_requests_end_in_another_order(s3_proxy, s3_bucket):
    s3_proxy.set(rules.latency(jitter_ms=300))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ask(s3_proxy.url, "HEAD", f"/{s3_bucket}/{number}"), range(8)))
    numbers = [entry.number for entry in s3_proxy.log()]
    assert numbers != sorted(numbers)
    assert s3_proxy.counts().max_in_flight > 1


def test_a_request_may_never_be_answered(s3_proxy, s3_bucket):
    s3_proxy.set(rules.silent(nth=1))
    with pytest.raises(BaseError, match="(?i)timed? ?out|error sending request"):
        open_store(s3_proxy.url, s3_bucket, timeout="300ms").get("key")
    assert ask(s3_proxy.url, "GET", f"/{s3_bucket}/key")[0] == 404
    assert wait_until(lambda: "silent" in s3_proxy.counts().faults)


def test_a_cut_network_stands_still_until_it_is_restored(s3, s3_proxy, s3_bucket):
    s3_proxy.set(rules.cut(nth=2))
    paths = [f"/{s3_bucket}/{number}" for number in range(3)]
    assert ask(s3_proxy.url, "PUT", paths[0], b"x")[0] == 200
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(ask(s3_proxy.url, "PUT", paths[1], b"x")[0]))
    waiting.start()
    with connected(s3_proxy.url, timeout=0.3) as connection:
        connection.request("PUT", paths[2], b"x")
        with pytest.raises(TimeoutError):
            connection.getresponse()
    assert answers == []
    assert [ask(s3.url, "HEAD", path)[0] for path in paths] == [200, 404, 404]
    s3_proxy.restore()
    waiting.join()
    # The client of the third gave up: its request is lost, as it would be.
    assert answers == [200]
    assert [ask(s3.url, "HEAD", path)[0] for path in paths] == [200, 200, 404]


def test_rules_that_make_no_sense_are_refused(s3_proxy):
    with pytest.raises(ValueError, match=r"fraction lies in \[0, 1\]"):
        rules.slow_down(fraction=1.5)
    with pytest.raises(ValueError, match="not a regular expression"):
        rules.reset(key="(")
    with pytest.raises(ValueError, match="no fault 'fire'; there are: error, reset"):
        Rule("fire")
    with pytest.raises(ValueError, match="must be positive"):
        rules.bandwidth(0)
    status, _, said = ask(s3_proxy.url, "PUT", "/__proxy__/rules", b'{"rules": [{"fault": "fire"}], "seed": 0}')
    assert (status, b"no fault" in said) == (400, True)


# -- rules without a proxy ---------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32), order=st.permutations(range(60)), fraction=st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_draws_depend_on_the_request_not_on_the_order(seed, order, fraction):
    requests = [Request("GET", f"/bucket/{number % 40}", {}) for number in range(60)]
    sent = [requests[number] for number in order]

    def struck(some):
        book = RuleBook((rules.slow_down(fraction=fraction),), seed)
        return sorted((request.target, book.judge(request).name) for request in some)

    assert struck(sent) == struck(requests)
    if fraction in (0, 1):
        assert {name for _, name in struck(sent)} == {"SlowDown" if fraction else ""}


def test_fractions_are_met_and_differ_between_seeds():
    def struck(seed):
        book = RuleBook((rules.slow_down(fraction=0.2),), seed)
        return [bool(book.judge(Request("GET", f"/bucket/{number}", {})).name) for number in range(5_000)]

    assert sum(struck(0)) == pytest.approx(1_000, abs=120)
    assert struck(0) == struck(0) != struck(1)
    book = RuleBook((rules.slow_down(fraction=0.5),), 0)
    again = [bool(book.judge(Request("GET", "/bucket/key", {})).name) for _ in range(200)]
    assert sum(again) == pytest.approx(100, abs=40)


SIGNED = {"x-amz-date": "20260101T000000Z"}


@pytest.mark.parametrize(
    ("method", "target", "headers", "operation"),
    [
        ("GET", "/bucket?list-type=2&prefix=a%2F", {}, "list"),
        ("GET", "/bucket/?delimiter=%2F", {}, "list"),
        ("GET", "/bucket", SIGNED, "list"),
        ("GET", "/file.txt", {}, "get"),
        ("GET", "/bucket/a/b?versionId=1", SIGNED, "get"),
        ("HEAD", "/bucket/a", SIGNED, "head"),
        ("HEAD", "/bucket", SIGNED, "bucket"),
        ("PUT", "/bucket", {}, "bucket"),
        ("PUT", "/bucket/a?partNumber=1&uploadId=x", {}, "put"),
        ("POST", "/bucket/a?uploads", {}, "put"),
        ("POST", "/bucket/a?uploadId=x", {}, "put"),
        ("POST", "/bucket?delete", {}, "delete"),
        ("DELETE", "/bucket/a", {}, "delete"),
        ("OPTIONS", "/bucket/a", {}, "other"),
    ],
)
def test_operations_are_told_apart(method, target, headers, operation):
    assert Request(method, target, headers).operation == operation


# -- static files ------------------------------------------------------------------------------------------------


@given(size=st.integers(0, 50), first=st.none() | st.integers(0, 60), last=st.none() | st.integers(0, 60))
def test_ranges_name_the_bytes_that_they_mean(size, first, last):
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    positions = list(range(size))
    if first is None and last is None:
        assert byte_range(header, size) is None
        return
    if first is not None and last is not None and last < first:
        assert byte_range(header, size) is None
        return
    wanted = (
        positions[-last:]
        if first is None and last
        else [p for p in positions if p >= (first or 0) and (last is None or p <= last)]
    )
    if first is None and not last:
        wanted = []
    start, stop = byte_range(header, size)
    assert positions[start:stop] == wanted
    assert (start < stop) == bool(wanted)


def test_static_files_have_ranges_and_no_listings(tmp_path):
    served, secret = tmp_path / "served", tmp_path / "secret"
    (served / "folder").mkdir(parents=True)
    (served / "folder" / "a b.bin").write_bytes(BODY)
    secret.write_bytes(b"secret")
    path = "/folder/a%20b.bin"
    with static_server(served) as url:
        status, headers, body = ask(url, "GET", path)
        assert (status, body, headers["Accept-Ranges"]) == (200, BODY, "bytes")
        tag = headers["ETag"]
        for header, span in {
            "bytes=3-9": (3, 10),
            "bytes=-5": (len(BODY) - 5, len(BODY)),
            "bytes=10200-99999": (10_200, 10_240),
        }.items():
            status, headers, body = ask(url, "GET", path, Range=header)
            assert (status, body) == (206, BODY[slice(*span)])
            assert headers["Content-Range"] == f"bytes {span[0]}-{span[1] - 1}/{len(BODY)}"
        status, headers, _ = ask(url, "GET", path, Range="bytes=10240-")
        assert (status, headers["Content-Range"]) == (416, "bytes */10240")
        status, headers, body = ask(url, "HEAD", path)
        assert (status, headers["Content-Length"], body) == (200, "10240", b"")
        assert ask(url, "GET", path, If_None_Match=tag)[0] == 304
        assert ask(url, "GET", path, If_Match='"other"')[0] == 412
        assert [ask(url, "GET", p)[0] for p in ("/", "/folder", "/folder/", "/absent", "/../secret", "/%2e%2e/secret")] == [
            403, 403, 403, 404, 404, 404,
        ]  # fmt: skip
        assert ask(url, "PUT", path, b"x")[0] == 501
        store = HTTPStore(url, client_options={"allow_http": True})
        assert bytes(store.get_range("folder/a b.bin", start=256, length=3)) == b"\x00\x01\x02"
        with fault_proxy(url) as proxy, connected(proxy.url) as connection:
            for _ in range(3):
                connection.request("GET", path)
                assert connection.getresponse().read() == BODY
            assert proxy.counts().connections == 1


# -- kills -------------------------------------------------------------------------------------------------------

FAMILY = """
setsid bash -c 'setsid sleep 300 & sleep 300' &
(sleep 300 &)
env -i sleep 300 &
(trap '' TERM HUP INT; exec sleep 300) &
echo ready; wait
"""


def test_a_kill_leaves_no_process_of_the_tree():
    done = run_and_kill(["bash", "-c", FAMILY], after=0.5)
    assert (done.status, done.stdout, done.killed_at, done.writes) == (-signal.SIGKILL, "ready\n", None, ())
    assert 0.5 <= done.seconds < 5
    assert processes_left(done.marker) == []


def test_what_outlives_a_command_is_named_and_killed():
    done = run_and_kill(["bash", "-c", "setsid sleep 301 & echo said; echo meant >&2; exit 3"])
    assert (done.status, done.stdout, done.stderr) == (3, "said\n", "meant\n")
    assert [line.partition(": ")[2] for line in done.orphans] == ["sleep 301"]
    assert processes_left(done.marker) == []


def test_a_command_that_takes_too_long_is_killed():
    with pytest.raises(TimeoutError, match="(?s)ran longer than 0 s; it wrote:.*so far"):
        run_and_kill(["bash", "-c", "echo so far >&2; sleep 300"], timeout=0.4)


WRITERS = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor

def write(task):
    from splicestore.storage.keys import StoreRoot
    folder, name = task
    root = StoreRoot(folder)
    root.create(f"{name}/first", b"1")
    for number in range(5):
        root.put(f"{name}/{number}", b"2")
    assert root.put_if(f"{name}/first", b"3", root.read(f"{name}/first").tag)

if __name__ == "__main__":
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(write, [(sys.argv[1], name) for name in ("a", "b", "c")]))
    print("all")
"""


def keys_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_writes_of_all_processes_are_counted_and_the_kth_kills_all(tmp_path):
    script = tmp_path / "writers.py"
    script.write_text(WRITERS)
    whole = run_and_kill([sys.executable, str(script), str(tmp_path / "whole")])
    assert (whole.status, whole.stdout, whole.killed_at, whole.orphans) == (0, "all\n", None, ()), whole.stderr
    assert [write.number for write in whole.writes] == list(range(1, 22))
    assert sorted(set(whole.keys)) == keys_below(tmp_path / "whole")
    assert [write.method for write in whole.writes if write.key.startswith("b/")] == ["create", *["put"] * 5, "put_if"]
    for when in ("before", "after"):
        folder = tmp_path / when
        done = run_and_kill([sys.executable, str(script), str(folder)], on_write=9, when=when)
        assert (done.status, done.stdout, len(done.writes)) == (-signal.SIGKILL, "", 9), done.stderr
        assert done.killed_at.number == 9
        assert done.killed_at.root == str(folder)
        assert done.killed_at.state == ("begun" if when == "before" else "done")
        # A write that began before the ninth in the other process may be under way at the kill.
        written = {write.key for write in done.writes if write.state == "done"}
        begun = {write.key for write in done.writes[: 8 if when == "before" else 9]}
        stored = {key for key in keys_below(folder) if not key.endswith(".partial")}
        assert written <= stored <= begun
        assert len(begun - written) <= 1
        assert processes_left(done.marker) == []


def test_a_command_line_is_run_as_users_run_it():
    done = run_and_kill(splicestore_command("--help"))
    assert (done.status, "ingest" in done.stdout, done.writes) == (0, True, ())
