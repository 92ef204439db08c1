"""A server that speaks S3, in this process, with an empty bucket."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "of-no-use", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def bucket(server: Any) -> Iterator[str]:
    """The URL of a place in the bucket; the environment tells fsspec where the server is."""
    import boto3
    import s3fs

    from tasks.store import shared_store

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    running = server(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    address = f"http://{host}:{port}"
    patch = pytest.MonkeyPatch()
    try:
        for variable, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": address, "FSSPEC_S3_ENDPOINT_URL": address}).items():
            patch.setitem(os.environ, variable, value)
        name = f"study-{uuid4().hex}"  # all servers of a process have the same buckets
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket=name)
        s3fs.S3FileSystem.clear_instance_cache()  # which is of the server before
        shared_store._open.cache_clear()
        yield f"s3://{name}/of/hospitals"
    finally:
        patch.undo()
        running.stop()
