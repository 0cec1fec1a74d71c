"""Show the rendered site on this machine: `python recipes/serve.py [PORT]` (or `make serve`).

As on a web host, an address that leads nowhere is answered with the site's own page 404.html and status 404.
"""

import functools
import sys
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).resolve().parents[1] / "_build" / "html"


class Handler(SimpleHTTPRequestHandler):
    """A folder of pages; a folder without an index.html leads nowhere."""

    def list_directory(self, path):
        self.send_error(404)

    def send_error(self, code, message=None, explain=None):
        page = Path(self.directory) / "404.html"
        if code != 404 or not page.is_file():
            return super().send_error(code, message, explain)
        body = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def server(site: Path = SITE, port: int = 0) -> ThreadingHTTPServer:
    """A server of a folder, for this machine only; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=site))


if __name__ == "__main__":
    with server(port=int(sys.argv[1]) if sys.argv[1:] else 8888) as web, suppress(KeyboardInterrupt):
        print(f"The site is at http://127.0.0.1:{web.server_port}  (stop with Ctrl+C)", flush=True)
        web.serve_forever()
