"""The algorithms that can be trained, by family. The server lists them without loading any of them."""

from __future__ import annotations

from easyml_server.domain.algorithms import Algorithm, Task
from easyml_server.domain.catalogue import boosting, linear, neighbors, neural, svm, trees

ALGORITHMS: tuple[Algorithm, ...] = tuple(
    sorted(
        (algorithm for family in (linear, svm, neighbors, trees, boosting, neural) for algorithm in family.ALGORITHMS),
        key=lambda algorithm: (list(Task).index(algorithm.task), algorithm.name),
    )
)

_BY_NAME = {(algorithm.task, algorithm.name): algorithm for algorithm in ALGORITHMS}


def find_algorithm(task: Task, name: str) -> Algorithm | None:
    """The algorithm of that name for that task, if there is one."""
    return _BY_NAME.get((task, name))
