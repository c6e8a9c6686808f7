"""Starts the platform for the tests, and calls it as different people."""

import os
import pathlib
import re
import subprocess
import tempfile
import threading
import uuid

import grpc

BINARY = os.environ["PAVIOR_TEST_BINARY"]
STARTER = pathlib.Path(os.environ["PAVIOR_TEST_STARTER"])


class System:
    """Everything in one process, with the starter kit loaded through the public API."""

    def __init__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="pavior-python-")
        self.data = self._directory.name
        free = [f"--set=listen.{name}=127.0.0.1:0" for name in ("gateway", "admin", "git")]
        self._log = open(pathlib.Path(self.data) / "server.log", "w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [
                BINARY,
                "serve",
                "--all",
                *free,
                f"--set=data_dir={self.data}",
                "--set=development.issuer=true",
                "--set=shutdown.notice_ms=0",
                f"--set=drivers.skeleton_roots=['{STARTER / 'skeletons'}']",
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.address = self._read_address()
        for folder in ("organization", "databases/sqlite", "templates"):
            self.command("operator", "apply", "-f", str(STARTER / folder))

    def _read_address(self):
        for line in self._process.stderr:
            self._log.write(line)
            found = re.match(r"gateway listens on (\S+)", line)
            if found:
                # The pipe must be drained, or the server would stop when it is full.
                threading.Thread(target=self._drain, daemon=True).start()
                return found.group(1)
        self._log.seek(0)
        raise RuntimeError(f"the server did not start:\n{self._log.read()}")

    def _drain(self):
        for line in self._process.stderr:
            self._log.write(line)

    def token(self, person):
        """A token of the development issuer."""
        command = [BINARY, "token", "--dev", "--as", person, "--data", self.data]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def command(self, person, *arguments):
        """Runs a client command as a person."""
        environment = {
            **os.environ,
            "PAVIOR_SERVER": f"http://{self.address}",
            "PAVIOR_ORGANIZATION": "acme",
            "PAVIOR_TOKEN": self.token(person),
        }
        done = subprocess.run([BINARY, *arguments], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"pavior {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def channel(self, person=None):
        """A channel that carries a person's token; none without a person."""
        channel = grpc.insecure_channel(self.address)
        return channel if person is None else grpc.intercept_channel(channel, Bearer(self.token(person)))

    def stop(self):
        """Ends the platform and removes its data."""
        self._process.terminate()
        code = self._process.wait(timeout=60)
        self._log.close()
        self._directory.cleanup()
        if code != 0:
            raise RuntimeError(f"the server ended with {code}")


class _Details(grpc.ClientCallDetails):
    def __init__(self, details, metadata):
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = metadata
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression


class Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Puts a bearer token on every call."""

    def __init__(self, token):
        self._token = token

    def _with_token(self, details):
        metadata = [*(details.metadata or []), ("authorization", f"Bearer {self._token}")]
        return _Details(details, metadata)

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(self._with_token(details), request)

    def intercept_unary_stream(self, continuation, details, request):
        return continuation(self._with_token(details), request)


def request_id():
    """A fresh id that makes a mutation repeatable."""
    return str(uuid.uuid4())
