"""Serving the demo web on loopback: one process, every host by its Host header.

`python -m gptwo.demo.server FOLDER PARENT` prints its port and serves until its parent is gone.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gptwo.artifacts import open_folder
from gptwo.errors import ResourceError
from gptwo.progress import worker_process

SLOW_SECONDS = 0.5
NEVER_SECONDS = 3600.0


@contextmanager
def serve_demo_web(folder: Path) -> Iterator[str]:
    """Serve the demo web in `folder` from a child process; yields "127.0.0.1:PORT"."""
    open_folder(folder, "demoweb")
    command = [sys.executable, "-m", "gptwo.demo.server", str(folder), str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            port = child.stdout.readline().strip()
            if not port:
                raise ResourceError(
                    "the demo web did not start", remedy="see the lines above; pip install .[demo]"
                )
            yield f"127.0.0.1:{port}"
        finally:
            child.kill()


def main(folder: Path, parent: int) -> None:
    """The child process."""
    import uvicorn

    worker_process(parent)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        make_app(folder), log_level="critical", access_log=False, lifespan="off", http="h11"
    )
    uvicorn.Server(config).run(sockets=[listener])


def make_app(folder: Path) -> Any:
    """The ASGI application: looks a page up by host and path and answers as it behaves."""
    import asyncio

    from starlette.requests import Request
    from starlette.responses import Response

    table = pq.read_table(folder / "site.parquet").to_pylist()
    site = {(row["host"], row["path"]): row for row in table}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        host = request.headers.get("host", "").split(":")[0].lower()
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        row = site.get((host, path)) or site.get((host, request.url.path))
        if row is None:
            await Response("not here", 404)(scope, receive, send)
            return
        if row["behaviour"] == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        elif row["behaviour"] == "never":
            await asyncio.sleep(NEVER_SECONDS)
        headers = {"content-type": row["content_type"]}
        if row["location"]:
            headers["location"] = row["location"]
        if row["behaviour"] == "truncated":
            headers["content-length"] = str(len(row["body"]) * 2)
            start = [(k.encode(), v.encode()) for k, v in headers.items()]
            await send({"type": "http.response.start", "status": 200, "headers": start})
            await send({"type": "http.response.body", "body": row["body"], "more_body": False})
            return
        await Response(row["body"], row["status"], headers)(scope, receive, send)

    return app


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
