"""Models that look at similar rows or at each column alone: nearest neighbours, naive Bayes."""

from __future__ import annotations

from easyml_server.domain.algorithms import Algorithm, Hyperparameter, Task
from easyml_server.domain.catalogue.parameters import choice, integer, number

_NEIGHBORS: tuple[Hyperparameter, ...] = (
    integer("n_neighbors", 5, "Neighbours that are asked.", (1, 10_000), search=(1, 50)),
    choice(
        "weights",
        "uniform",
        "Whether near neighbours count more.",
        ("uniform", "distance"),
        search=("uniform", "distance"),
    ),
    choice("algorithm", "auto", "How neighbours are found.", ("auto", "ball_tree", "kd_tree", "brute")),
    integer("leaf_size", 30, "Rows below which a search tree is no longer divided.", (1, 10_000)),
    number(
        "p", 2.0, "Power of the Minkowski distance: 1 is Manhattan, 2 is Euclidean.", above=0, most=100, search=(1, 2)
    ),
    choice(
        "metric",
        "minkowski",
        "Measure of distance.",
        ("minkowski", "euclidean", "manhattan", "chebyshev", "cosine"),
    ),
)

ALGORITHMS = (
    Algorithm(
        name="k_neighbors",
        task=Task.CLASSIFICATION,
        display_name="k nearest neighbours",
        description="The vote of the most similar training rows. Cannot use weights.",
        implementation="sklearn.neighbors.KNeighborsClassifier",
        hyperparameters=_NEIGHBORS,
        predicts_probabilities=True,
        scales_inputs=True,
        supports_weights=False,
    ),
    Algorithm(
        name="gaussian_nb",
        task=Task.CLASSIFICATION,
        display_name="Gaussian naive Bayes",
        description="Treats each column alone; very fast, a baseline for small tables.",
        implementation="sklearn.naive_bayes.GaussianNB",
        hyperparameters=(
            number(
                "var_smoothing",
                1e-9,
                "Share of the largest variance that is added to all, for stability.",
                least=0,
                most=1e6,
                search=(1e-12, 1),
                log=True,
            ),
        ),
        predicts_probabilities=True,
        scales_inputs=True,
    ),
    Algorithm(
        name="k_neighbors",
        task=Task.REGRESSION,
        display_name="k nearest neighbours",
        description="The mean of the most similar training rows. Cannot use weights.",
        implementation="sklearn.neighbors.KNeighborsRegressor",
        hyperparameters=_NEIGHBORS,
        scales_inputs=True,
        supports_weights=False,
    ),
)
