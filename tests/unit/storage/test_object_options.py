"""Options and credentials of object stores, as an endpoint sees them: who signs, for which region, with which headers."""

from __future__ import annotations

import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splicestore.cli.output import storage_options
from splicestore.errors import ConfigError, TransferError
from splicestore.storage.keys import StoreRoot
from splicestore.storage.object_options import open_object_store, split_bucket

KEYS = {"key": "AKEY", "secret": "hush-77aa01"}


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path):
    """Nothing of this machine's own: neither variables nor files."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


class Endpoint:
    """Answers every GET with two bytes and remembers what came."""

    def __init__(self):
        self.seen = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                endpoint.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.send_response(200)
                for name, value in (
                    ("Content-Length", "2"), ("ETag", '"x"'), ("Last-Modified", "Tue, 01 Jan 2030 00:00:00 GMT")
                ):  # fmt: skip
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def ask(self, options, url="s3://bucket/prefix"):
        """Path and headers of one GET."""
        assert bytes(open_object_store(url, options).get("k").bytes()) == b"ok"
        return self.seen[-1]

    def signer(self, options):
        """(key id, region) that a GET is signed with."""
        credential = self.ask(options)[1]["authorization"].split("Credential=")[1].split("/")
        return credential[0], credential[2]


@pytest.fixture(scope="module")
def endpoint():
    found = Endpoint()
    yield found
    found.server.shutdown()
    found.server.server_close()


# -- what is sent ------------------------------------------------------------------------------------------------


def test_given_options_reach_the_endpoint(endpoint):
    given = {"endpoint_url": endpoint.url, **KEYS}
    path, headers = endpoint.ask(given)
    assert path == "/bucket/prefix/k"
    assert "hush" not in str(headers)
    assert endpoint.signer(given) == ("AKEY", "us-east-1")
    assert endpoint.signer({**given, "region": "eu-x"}) == ("AKEY", "eu-x")
    assert endpoint.signer({**given, "client_kwargs": {"region_name": "eu-y"}}) == ("AKEY", "eu-y")
    assert endpoint.ask({**given, "token": "T"})[1]["x-amz-security-token"] == "T"
    assert endpoint.ask({**given, "requester_pays": True})[1]["x-amz-request-payer"] == "requester"
    assert "authorization" not in endpoint.ask({**given, "anon": True})[1]
    assert "authorization" not in endpoint.ask({"endpoint_url": endpoint.url, "anon": True})[1]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_usual_variables_do_without_options(endpoint, monkeypatch, name):
    for variable, value in ((name, endpoint.url), ("AWS_ACCESS_KEY_ID", "EKEY"), ("AWS_SECRET_ACCESS_KEY", "hush")):
        monkeypatch.setenv(variable, value)
    assert endpoint.signer({}) == ("EKEY", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-d")
    assert endpoint.signer({}) == ("EKEY", "eu-d")
    monkeypatch.setenv("AWS_REGION", "eu-r")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "T")
    assert endpoint.signer({}) == ("EKEY", "eu-r")
    assert endpoint.ask({})[1]["x-amz-security-token"] == "T"
    assert endpoint.signer({**KEYS, "region": "eu-x"}) == ("AKEY", "eu-x")


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    """A credentials file with two profiles."""
    file = tmp_path / "credentials"
    blocks = (("default", "DKEY"), ("other", "OKEY"))
    file.write_text("".join(f"[{n}]\naws_access_key_id={k}\naws_secret_access_key=hush\n" for n, k in blocks))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))


def test_profiles_sign(endpoint, profiles, monkeypatch):
    given = {"endpoint_url": endpoint.url}
    assert endpoint.signer(given)[0] == "DKEY"
    assert endpoint.signer({**given, "profile": "other"})[0] == "OKEY"
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert endpoint.signer(given)[0] == "OKEY"
    assert endpoint.signer({**given, **KEYS})[0] == "AKEY"


def test_a_profile_that_is_asked_for_goes_before_variables(endpoint, profiles, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "EKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    assert endpoint.signer({"endpoint_url": endpoint.url})[0] == "EKEY"
    assert endpoint.signer({"endpoint_url": endpoint.url, "profile": "other"})[0] == "OKEY"


def test_a_web_server_gets_no_credentials(endpoint):
    path, headers = endpoint.ask(KEYS, url=f"{endpoint.url}/folder")
    assert path == "/folder/k"
    assert "authorization" not in headers


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nope": 1}, "'nope'.*usual ones: key, secret, .*endpoint_url"),
        ({"secrets": "hush-2"}, "'secrets'"),
        ({"timeout": "soon"}, "soon"),
        ({"max_retries": "many"}, "many"),
        ({"retry_seconds": "long"}, "long"),
        ({"secret": None}, "SecretAccessKey"),
        ({"profile": "nobody", "key": None, "secret": None}, "nobody"),
        ({"endpoint_url": "127.0.0.1:9"}, "endpoint.*http"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_option_is_one_line_without_secrets(options, message):
    given = {"endpoint_url": "http://127.0.0.1:9", **KEYS, **options}
    with pytest.raises(ConfigError, match=message) as caught:
        open_object_store("s3://bucket/prefix", given)
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_url_without_a_bucket_is_refused():
    with pytest.raises(ConfigError, match=r"^s3:///x: no bucket; write s3://BUCKET/PREFIX"):
        open_object_store("s3:///x", KEYS)


def test_no_credentials_at_all_says_what_to_give(endpoint):
    # Port 9 has no instance metadata: a machine in a cloud would get its role's credentials there.
    given = {"endpoint_url": endpoint.url, "max_retries": 0, "metadata_endpoint": "http://127.0.0.1:9"}
    with pytest.raises(TransferError, match=r"credentials.*(AWS_ACCESS_KEY_ID|key).*anon=true"):
        StoreRoot("s3://bucket/prefix", given).get("k")


def test_profiles_need_boto3(profiles, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match=r"boto3: pip install 'splicestore\[s3\]'"):
        open_object_store("s3://bucket/prefix", {"profile": "other"})


def test_nobody_listening_is_said_within_the_retries():
    started = time.monotonic()
    given = {**KEYS, "endpoint_url": "http://127.0.0.1:9", "max_retries": 1, "connect_timeout": "1s"}
    with pytest.raises(TransferError, match="s3://bucket/prefix/k: reading failed"):
        StoreRoot("s3://bucket/prefix", given).get("k")
    assert time.monotonic() - started < 5


# -- spelling ----------------------------------------------------------------------------------------------------

NAME = st.from_regex("[a-z0-9][a-z0-9-]{1,10}", fullmatch=True)


@given(bucket=NAME, parts=st.lists(NAME, max_size=3), slashes=st.integers(0, 2), scheme=st.sampled_from(["s3", "s3a"]))
def test_a_url_is_a_bucket_and_a_prefix(bucket, parts, slashes, scheme):
    assert split_bucket(f"{scheme}://{'/'.join([bucket, *parts])}{'/' * slashes}") == (bucket, "/".join(parts))


@pytest.mark.parametrize("text", ["12345678", "1e5", "true", "null", "0x10", "[1]", "plain", '"quoted"', "a=b"])
def test_credentials_on_the_command_line_stay_text(endpoint, text):
    pairs = [f"key={text}", f"secret={text}", f"endpoint_url={endpoint.url}"]
    assert endpoint.signer(storage_options(pairs))[0] == text


def test_other_options_on_the_command_line_may_be_json():
    found = storage_options(
        ["anon=true", "max_retries=3", 'client_kwargs={"region_name": "eu-y"}', "endpoint_url=http://h"]
    )
    assert found == {
        "anon": True, "max_retries": 3, "client_kwargs": {"region_name": "eu-y"}, "endpoint_url": "http://h",
    }  # fmt: skip
