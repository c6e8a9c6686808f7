"""${{ parameters.name }}: answers HTTP with the standard library alone."""

import json
import os
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GREETING = "Hello from a paved road"

STATEMENTS = """
CREATE TABLE IF NOT EXISTS visits (id INTEGER PRIMARY KEY, n BIGINT NOT NULL);
INSERT INTO visits (id, n) VALUES (1, 0) ON CONFLICT (id) DO NOTHING;
UPDATE visits SET n = n + 1 WHERE id = 1;
SELECT n FROM visits WHERE id = 1;
"""


def count():
    """Counts a visit and returns how many there were; None when there is no database or it does not answer."""
    client = os.environ.get("PAVIOR_SQL")
    if not client or "DATABASE_URL" not in os.environ:
        return None
    done = subprocess.run([client, "sql"], input=STATEMENTS, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0 or not lines:
        return None
    return int(json.loads(lines[-1])["n"])


def render(name, version, environment, visits):
    """Returns the page."""
    counter = "no database" if visits is None else str(visits)
    return f"{GREETING}\nname: {name}\nversion: {version}\nenvironment: {environment}\nvisits: {counter}\n"


def answer(path):
    """Returns the status and the body for a path."""
    if path == "/healthz":
        return 200, "ok\n"
    if path != "/":
        return 404, "not found\n"
    get = os.environ.get
    return 200, render(
        get("APP_NAME", "${{ parameters.name }}"), get("APP_VERSION", "local"), get("APP_ENVIRONMENT", "local"), count()
    )


class Handler(BaseHTTPRequestHandler):
    """Answers GET."""

    def do_GET(self):
        status, body = answer(self.path)
        data = body.encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
