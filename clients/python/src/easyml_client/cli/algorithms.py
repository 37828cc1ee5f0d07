"""`easyml algorithms`."""

from __future__ import annotations

from easyml_client.cli.app import group
from easyml_client.cli.common import EVERYWHERE, Common, connected
from easyml_client.cli.output import clean, print_json, print_list, print_one, print_table

app = group("algorithms", "What can be trained, with every setting.")


@app.command(name="list")
def list_(*, task: str | None = None, common: Common = EVERYWHERE) -> None:
    """List the algorithms.

    Example: `easyml algorithms list --task regression`

    :param task: classification or regression; both if left out.
    """
    columns = {
        "NAME": lambda algorithm: algorithm.name,
        "TASK": lambda algorithm: algorithm.task,
        "WHAT IT IS": lambda algorithm: algorithm.display_name,
        "SETTINGS": lambda algorithm: len(algorithm.hyperparameters),
        "REPORTS ITERATIONS": lambda algorithm: algorithm.reports_iterations,
    }
    with connected(common) as client:
        print_list(client.algorithms.list(task=task), columns, as_json=common.json, empty="No algorithms.")


@app.command
def show(name: str, /, *, task: str | None = None, common: Common = EVERYWHERE) -> None:
    """Show an algorithm and its settings.

    Example: `easyml algorithms show random_forest`

    :param name: Name, as in `easyml algorithms list`.
    :param task: classification or regression, where both have it.
    """
    with connected(common) as client:
        algorithm = client.algorithms.get(name, task=task)
    if common.json:
        print_json(algorithm)
        return
    lines = {
        "Name": algorithm.name,
        "Task": algorithm.task,
        "Implementation": algorithm.implementation,
        "Probabilities": algorithm.predicts_probabilities,
        "Row weights": algorithm.supports_weights,
    }
    print_one(algorithm, lines, as_json=False)
    print(f"\n{clean(algorithm.description)}\n")
    print_table(
        ["SETTING", "TYPE", "DEFAULT", "ACCEPTS", "WHAT IT DOES"],
        [[h.name, h.type, _default(h.default_value), h.accepts, h.description] for h in algorithm.hyperparameters],
    )


def _default(value: object) -> object:
    return "the library's" if value is None else value
