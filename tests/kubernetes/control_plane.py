"""A throw-away control plane: etcd, API server, controllers, scheduler and kwok, each a process of one program.

None of them outlives the tests: each ends when the pipe on its standard input closes, as it does with whoever holds it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.kubernetes import build, parts
from tests.kubernetes.parts import Place

START_SECONDS = 120.0
CALL_SECONDS = 120.0
ATTEMPTS = 3
MERGE = "application/merge-patch+json"
T = TypeVar("T")


class PartEnded(RuntimeError):
    """A process of the control plane is gone that should be there."""


class ControlPlane:
    """A running one. `call` and `kubectl` are the tests' own ways to it; `kubeconfig` is everybody's."""

    def __init__(self, program: Path, place: Place) -> None:
        self.place = place
        self.tokens: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._program = program
        self._numbers = count(1)

    @property
    def host(self) -> str:
        """The API server's URL."""
        return self.place.url

    @property
    def ca_file(self) -> Path:
        """By which its certificate is known."""
        return self.place.certificate[0]

    def start(self) -> None:
        """Returns when pods can be made."""
        self.place.folder.mkdir(parents=True)
        self._make_key()
        self._make_tokens()
        self._spawn("etcd", parts.etcd(self.place))
        self._until(lambda: socket.create_connection(("127.0.0.1", self.place.etcd_port), 1).close())
        self._spawn("kube-apiserver", parts.api_server(self.place))
        self._until(lambda: self.call("GET", "/readyz"))
        for user in parts.USERS:
            self._write_kubeconfig(self.place.kubeconfig(user), user, self.tokens[user], self.host)
        self._spawn("kube-controller-manager", parts.controller_manager(self.place))
        self._spawn("kube-scheduler", parts.scheduler(self.place))
        self._spawn("kwok", parts.kwok(self.place))
        self._add_fake_node()
        self._until(lambda: self.call("GET", "/api/v1/namespaces/default/serviceaccounts/default"))

    def stop(self) -> None:
        """Nothing of it is kept, so nothing is waited for."""
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.processes.clear()

    def kubeconfig(self, user: str = "admin", *, server: str = "") -> Path:
        """The file of one of parts.USERS; by way of another address, such as a proxy's, if one is given."""
        if not server:
            return self.place.kubeconfig(user)
        path = self.place.folder / f"{user}-{next(self._numbers)}.kubeconfig"
        self._write_kubeconfig(path, user, self.tokens[user], server)
        return path

    def kubeconfig_of(self, namespace: str, service_account: str, *, server: str = "") -> Path:
        """The file of a service account, with a token of an hour and whatever rights it has."""
        where = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        token = self.call("POST", where, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
        path = self.place.folder / f"{namespace}-{service_account}-{next(self._numbers)}.kubeconfig"
        self._write_kubeconfig(path, service_account, token, server or self.host)
        return path

    def namespace(self, pods: str = parts.PROCESSES, *, level: str = "restricted", name: str = "") -> str:
        """A new one, whose pods are processes or fake, and have to be so secure; its name. Nobody waits for its end."""
        name = name or f"test-{next(self._numbers)}"
        labels = {"pod-security.kubernetes.io/enforce": level}
        annotations = {"scheduler.alpha.kubernetes.io/node-selector": pods}
        metadata = {"name": name, "labels": labels, "annotations": annotations}
        self.call("POST", "/api/v1/namespaces", {"metadata": metadata})
        self._until(lambda: self.call("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default"))
        return name

    def call(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Any:
        """Ask the API as its administrator; raises urllib.error.HTTPError as it refuses."""
        request = urllib.request.Request(
            self.host + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.tokens['admin']}", "Content-Type": content_type},
        )
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with urllib.request.urlopen(request, context=context, timeout=CALL_SECONDS) as response:
            said = response.read()
        return json.loads(said) if said.startswith(b"{") else said.decode()

    def kubectl(self, *arguments: str, user: str = "admin", given: str = "") -> subprocess.CompletedProcess[str]:
        """Run kubectl to its end, whatever that is."""
        return subprocess.run(
            self.command(*arguments),
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=CALL_SECONDS,
            env=self.environment(user),
        )

    def command(self, *arguments: str) -> list[str]:
        """Of kubectl."""
        return [str(self._program), "kubectl", *arguments]

    def environment(self, user: str = "admin") -> dict[str, str]:
        """In which kubectl asks this control plane."""
        return {**_bare(), "KUBECONFIG": str(self.place.kubeconfig(user)), "HOME": str(self.place.folder)}

    def described(self, namespace: str) -> str:
        """Its pods, their events and the ends of their logs, for the message of a test that failed."""
        names = self.kubectl("-n", namespace, "get", "pods", "-o", "name").stdout.split()
        asked = [("describe", "pods"), *(("logs", name, "--all-containers", "--tail=20") for name in names)]
        said = [self.kubectl("-n", namespace, *arguments) for arguments in asked]
        return "\n".join(each.stdout + each.stderr for each in said)

    def log(self, part: str) -> str:
        """The end of what a part wrote."""
        return (self.place.folder / f"{part}.log").read_text(errors="replace")[-3000:]

    def _spawn(self, part: str, arguments: Sequence[str]) -> None:
        with (self.place.folder / f"{part}.log").open("ab") as log:
            self.processes[part] = subprocess.Popen(
                [self._program, part, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.place.folder,
                # Ctrl-C is told to the tests alone, which stop it after whoever needs it.
                start_new_session=True,
                env={**_bare(), "GOGC": "50", "CONTROL_PLANE_FOLLOWS_STDIN": "yes"},
            )

    def _until(self, look: Callable[[], T]) -> T:
        end = time.monotonic() + START_SECONDS
        while True:
            for part, process in self.processes.items():
                if process.poll() is not None:
                    raise PartEnded(f"{part} ended with {process.returncode}: {self.log(part)}")
            try:
                return look()
            except OSError as error:
                if time.monotonic() > end:
                    raise TimeoutError(f"the control plane did not come up: {error}") from error
            time.sleep(0.05)

    def _make_key(self) -> None:
        # Not `genpkey`: the API server does not take the public key of a PKCS #8 file.
        options = ["-name", "prime256v1", "-genkey", "-noout", "-out", str(self.place.signing_key)]
        subprocess.run(["openssl", "ecparam", *options], check=True, capture_output=True)

    def _make_tokens(self) -> None:
        self.tokens = {name: secrets.token_hex(16) for name in parts.USERS}
        lines = [f'{self.tokens[name]},{user},{name},"{groups}"\n' for name, (user, groups) in parts.USERS.items()]
        self.place.tokens.touch(mode=0o600)
        self.place.tokens.write_text("".join(lines))

    def _write_kubeconfig(self, path: Path, user: str, token: str, server: str) -> None:
        cluster = {"server": server, "certificate-authority": str(self.ca_file)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(content))

    def _add_fake_node(self) -> None:
        key, value = parts.FAKE.split("=")
        metadata = {"name": "fake", "labels": {"kubernetes.io/hostname": "fake", key: value}}
        self.call("POST", "/api/v1/nodes", {"metadata": metadata})


@contextmanager
def running_control_plane(folder: Path) -> Iterator[ControlPlane]:
    """A control plane for a while; at other ports if somebody else took one of those it had found."""
    program = find_program()
    with ExitStack() as stack:
        for attempt in range(ATTEMPTS):
            plane = ControlPlane(program, _a_place(folder / str(attempt)))
            try:
                plane.start()
            except PartEnded as error:
                plane.stop()
                if "address already in use" not in str(error) or attempt == ATTEMPTS - 1:
                    raise
            except BaseException:
                plane.stop()
                raise
            else:
                stack.callback(plane.stop)
                break
        yield plane


def find_program() -> Path:
    """The program, or the reason why there is none."""
    if sys.platform != "linux":
        pytest.skip("the Kubernetes of the tests needs Linux: 127.0.0.0/8, and children that end with their parent")
    program = build.cached()
    if program.exists():
        return program
    if shutil.which("go") is not None:
        raise FileNotFoundError("There is no Kubernetes for the tests: run `make control-plane`.")
    if os.environ.get("CI"):
        pytest.fail("CI runs the tests on Kubernetes: install Go, run `make control-plane`.")
    pytest.skip("no Go, so no Kubernetes for the tests: install Go, run `make control-plane`")


def _a_place(folder: Path) -> Place:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    try:
        return Place(folder, *(found.getsockname()[1] for found in sockets))
    finally:
        for found in sockets:
            found.close()


def _bare() -> Mapping[str, str]:
    """An environment with nothing in it that changes what a program does."""
    return {"PATH": os.environ.get("PATH", "")}
