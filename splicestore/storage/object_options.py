"""Options and credentials of object stores: fsspec's spelling in, obstore's out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from splicestore.errors import ConfigError

OBJECT_SCHEMES = ("s3", "s3a")
HTTP_SCHEMES = ("http", "https")

MAX_RETRIES = 10
RETRY_SECONDS = 180
REQUEST_TIMEOUT = "120s"
CONNECT_TIMEOUT = "10s"

_OBSTORE_NAMES = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "endpoint_url": "endpoint",
    "region_name": "region",
    "anon": "skip_signature",
    "requester_pays": "request_payer",
}
_OWN_NAMES = ("max_retries", "retry_seconds", "timeout", "connect_timeout", "profile", "client_kwargs")


def split_bucket(url: str) -> tuple[str, str]:
    """Split ``s3://bucket/prefix`` into bucket and prefix."""
    bucket, _, prefix = url.split("://", 1)[1].partition("/")
    if not bucket:
        raise ConfigError(f"{url}: no bucket; write s3://BUCKET/PREFIX")
    return bucket, prefix.strip("/")


def open_object_store(url: str, options: Mapping[str, Any]) -> Any:
    """Open an obstore store rooted at a URL.

    Parameters
    ----------
    url
        ``s3://bucket/prefix`` or ``https://host/path``.
    options
        As fsspec spells them: ``endpoint_url``, ``key``, ``secret``, ``token``, ``region``, ``anon``, ``requester_pays``,
        ``profile``, ``client_kwargs``; ``max_retries``, ``retry_seconds``, ``timeout``, ``connect_timeout`` (``"30s"``); any option of
        obstore's ``S3Store``. What is not given comes from the usual variables (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``,
        ``AWS_PROFILE``, ...).

    Raises
    ------
    ConfigError
        For an option that does not exist.
    """
    from obstore.exceptions import BaseError
    from obstore.store import HTTPStore, S3Store

    given = dict(options)
    try:
        given.update(given.pop("client_kwargs", None) or {})
        common = _common_options(url, given)
        if url.split("://", 1)[0] in HTTP_SCHEMES:
            return HTTPStore(url, **common)
        bucket, prefix = split_bucket(url)
        config = _s3_config(given)
        return S3Store(bucket, prefix=prefix or None, **config, **common)
    except ConfigError:
        raise
    except (BaseError, TypeError, ValueError) as error:
        known = ", ".join([*_OBSTORE_NAMES, "region", *_OWN_NAMES])
        raise ConfigError(f"{url}: {str(error).splitlines()[0]} (--storage-option; usual ones: {known})") from error


def _common_options(url: str, given: dict[str, Any]) -> dict[str, Any]:
    return {
        "client_options": _client_options(url, given),
        "retry_config": {
            "max_retries": int(given.pop("max_retries", MAX_RETRIES)),
            "retry_timeout": timedelta(seconds=float(given.pop("retry_seconds", RETRY_SECONDS))),
        },
    }


def _client_options(url: str, given: dict[str, Any]) -> dict[str, Any]:
    endpoint = str(given.get("endpoint_url") or given.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL_S3")
                   or os.environ.get("AWS_ENDPOINT_URL") or url)  # fmt: skip
    if not endpoint.startswith(("http://", "https://", "s3://", "s3a://")):
        raise ConfigError(f"{url}: endpoint {endpoint!r} is no URL; write http://{endpoint} or https://{endpoint}")
    options: dict[str, Any] = {
        "timeout": str(given.pop("timeout", REQUEST_TIMEOUT)),
        "connect_timeout": str(given.pop("connect_timeout", CONNECT_TIMEOUT)),
    }
    if endpoint.startswith("http://"):
        options["allow_http"] = True
    return options


def _s3_config(given: dict[str, Any]) -> dict[str, Any]:
    profile = given.pop("profile", None)
    config = {_OBSTORE_NAMES.get(name, name): value for name, value in given.items() if value is not None}
    if "endpoint" not in config and "AWS_ENDPOINT_URL_S3" in os.environ:
        config["endpoint"] = os.environ["AWS_ENDPOINT_URL_S3"]
    config.setdefault("region", os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1")
    # What is given goes before what the surroundings say, as everywhere.
    is_given = bool({"access_key_id", "skip_signature"} & set(config))
    in_variables = "AWS_ACCESS_KEY_ID" in os.environ
    found = not in_variables and ("AWS_PROFILE" in os.environ or _credentials_file().exists())
    if not is_given and (profile or found):
        config["credential_provider"] = _profile_credentials(profile)
    return config


def _credentials_file() -> Path:
    return Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()


def _profile_credentials(profile: str | None) -> Any:
    """Credentials of a profile, refreshed by boto3 where it is installed."""
    try:
        from boto3 import Session
        from botocore.exceptions import ProfileNotFound
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise ConfigError(
            "credentials of an AWS profile need boto3: pip install 'splicestore[s3]', or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        ) from error
    try:
        return Boto3CredentialProvider(Session(profile_name=profile))
    except ProfileNotFound as error:
        raise ConfigError(
            f"AWS profile {profile or os.environ.get('AWS_PROFILE')!r}: there is none of that name in {_credentials_file()}"
        ) from error
