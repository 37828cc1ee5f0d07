"""A metrics server whose numbers a test sets, so that a real HorizontalPodAutoscaler scales.

The API server reaches it by an APIService that points to a Service of type ExternalName, which needs no network of the
cluster. It is not there unless it is opened: a cluster without metrics is what most are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiohttp import web
from kubernetes.aio.client import ApiClient, ApiregistrationV1Api, CoreV1Api, V1Pod

from tests.kubernetes.kubelet.log_server import Certificate, served

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
NAME = "metrics-server"
MEMORY = "32Mi"


class Metrics:
    """`cpu` is what each container of a pod takes, by its namespace and its label app.kubernetes.io/instance."""

    def __init__(self, api: ApiClient) -> None:
        self.cpu: dict[tuple[str, str], str] = {}
        self._core = CoreV1Api(api)
        self._registration = ApiregistrationV1Api(api)

    @asynccontextmanager
    async def open(self, certificate: Certificate) -> AsyncIterator[Metrics]:
        """The cluster has metrics for a while."""
        app = web.Application()
        app.router.add_get(f"/apis/{GROUP}/{VERSION}", self._kinds)
        app.router.add_get(f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/pods", self._pods)
        async with served(app, certificate) as port:
            await self._register(port)
            try:
                yield self
            finally:
                await self._registration.delete_api_service(f"{VERSION}.{GROUP}")
                await self._core.delete_namespaced_service(NAME, "kube-system")

    async def _register(self, port: int) -> None:
        spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
        await self._core.create_namespaced_service("kube-system", {"metadata": {"name": NAME}, "spec": spec})
        where = {"namespace": "kube-system", "name": NAME, "port": port}
        priorities = {"groupPriorityMinimum": 100, "versionPriority": 100}
        spec = {"group": GROUP, "version": VERSION, "service": where, "insecureSkipTLSVerify": True, **priorities}
        await self._registration.create_api_service({"metadata": {"name": f"{VERSION}.{GROUP}"}, "spec": spec})

    async def _kinds(self, _request: web.Request) -> web.Response:
        pods = {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics", "verbs": ["get", "list"]}
        return web.json_response(
            {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}", "resources": [pods]}
        )

    async def _pods(self, request: web.Request) -> web.Response:
        selector = request.query.get("labelSelector", "")
        listed = await self._core.list_namespaced_pod(request.match_info["namespace"], label_selector=selector)
        items = [self._measured(pod) for pod in listed.items if pod.status.phase == "Running" and self._cpu(pod)]
        message = {"kind": "PodMetricsList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": items}
        return web.json_response(message)

    def _cpu(self, pod: V1Pod) -> str:
        instance = (pod.metadata.labels or {}).get("app.kubernetes.io/instance", "")
        return self.cpu.get((pod.metadata.namespace, instance), "")

    def _measured(self, pod: V1Pod) -> object:
        metadata = {key: getattr(pod.metadata, key) for key in ("name", "namespace", "labels")}
        usage = {"cpu": self._cpu(pod), "memory": MEMORY}
        containers = [{"name": each.name, "usage": usage} for each in pod.spec.containers]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"metadata": metadata, "timestamp": now, "window": "1s", "containers": containers}
