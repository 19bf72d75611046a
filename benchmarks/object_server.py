"""Objects of a folder over HTTP as S3 answers reads, each answer late: for streams, which only read.

Beside a server that imitates all of S3 in Python, which takes some 3 ms of the same cores for a request, this one takes some
0.9 ms (measured): so that it is the latency that is measured. The host of a URL's first path segment is the bucket, its name is ignored.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_application(folder: Path, latency_s: float) -> web.Application:
    """Serve GET and HEAD, with ranges, of the files of a folder."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(latency_s)
        path = folder / request.match_info["key"]
        return web.FileResponse(path) if path.is_file() else web.Response(status=404)

    application = web.Application()
    application.router.add_get("/{bucket}/{key:.+}", answer)
    return application


async def serve(folder: Path, latency_s: float) -> None:
    """Serve on a free port until the process is killed; say which."""
    runner = web.AppRunner(make_application(folder, latency_s), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@contextmanager
def object_server(folder: Path, latency_ms: int) -> Iterator[dict[str, str]]:
    """Run the server as a process; yields storage options of ``s3://any-bucket``."""
    command = (sys.executable, __file__, str(folder), str(latency_ms))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield {
                "endpoint_url": f"http://127.0.0.1:{int(process.stdout.readline())}",
                "anon": "true",
                "region": "us-east-1",
            }
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]) / 1000))
