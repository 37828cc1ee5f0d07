"""What can be trained."""

from __future__ import annotations

from easyml.v1 import algorithm_pb2
from easyml.v1 import training_service_pb2 as pb
from easyml_client.errors import NotFound
from easyml_client.plans.paging import collect, pages
from easyml_client.resources.algorithms import Algorithm
from easyml_client.steps import Plan, Stream
from easyml_client.values import enum_number


def list_(*, task: str | None = None, page_size: int = 0) -> Stream[Algorithm]:
    """The algorithms with their settings, by task and name; `task` is "classification" or "regression"."""
    request = pb.ListAlgorithmsRequest(task=enum_number("task", algorithm_pb2.Task, task), page_size=page_size)
    yield from pages(request, pb.ListAlgorithmsResponse, lambda page: map(Algorithm.of, page.algorithms))


def get(name: str, *, task: str | None = None) -> Plan[Algorithm]:
    """One algorithm; without a task the first of that name, classification before regression."""
    found = yield from collect(list_(task=task))
    for algorithm in found:
        if algorithm.name == name:
            return algorithm
    known = ", ".join(dict.fromkeys(algorithm.name for algorithm in found))
    raise NotFound(f"There is no algorithm {name!r}; there are {known}.", metadata={"algorithm": name})
