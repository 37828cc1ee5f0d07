"""Decision trees and forests of them. Scaling changes nothing for them."""

from __future__ import annotations

from easyml_server.domain.algorithms import Algorithm, Hyperparameter, Task
from easyml_server.domain.catalogue.parameters import boolean, choice, integer, number

_GINI = ("gini", "entropy", "log_loss")
_ERRORS = ("squared_error", "absolute_error", "poisson")


def growth(max_depth: int | None = None) -> tuple[Hyperparameter, ...]:
    """Settings that limit how far a tree grows, as scikit-learn's trees share them."""
    return (
        integer(
            "max_depth",
            max_depth,
            "Levels of a tree at most; null: until the leaves are pure.",
            (1, 1000),
            nullable=True,
            search=(2, 32),
        ),
        integer("min_samples_split", 2, "Rows a node needs to be split.", (2, 1_000_000), search=(2, 20)),
        integer("min_samples_leaf", 1, "Rows a leaf keeps at least.", (1, 1_000_000), search=(1, 20)),
        number("min_weight_fraction_leaf", 0.0, "Share of all weight a leaf keeps at least.", least=0, most=0.5),
        integer("max_leaf_nodes", None, "Leaves of a tree at most; null: no limit.", (2, 1_000_000), nullable=True),
        number("min_impurity_decrease", 0.0, "A split must lower the impurity by this.", least=0, most=1e12),
        number("ccp_alpha", 0.0, "Strength of pruning by cost and complexity.", least=0, most=1e12),
    )


def words_of_columns(default: str | None) -> Hyperparameter:
    """`max_features` where the library's default is a word or nothing."""
    return choice(
        "max_features",
        default,
        "Columns looked at for each split: the square root or logarithm of their number; null: all.",
        ("sqrt", "log2"),
        nullable=True,
        search=("sqrt", "log2"),
    )


_SHARE_OF_COLUMNS = number(
    "max_features",
    1.0,
    "Share of the columns looked at for each split; null: all.",
    above=0,
    most=1,
    nullable=True,
    search=(0.2, 1),
)


def _criterion(choices: tuple[str, ...]) -> Hyperparameter:
    return choice("criterion", choices[0], "How the quality of a split is measured.", choices, search=choices[:2])


def _tree(criteria: tuple[str, ...]) -> tuple[Hyperparameter, ...]:
    return (
        _criterion(criteria),
        choice("splitter", "best", "Whether the best or a random split is taken.", ("best", "random")),
        *growth(),
        words_of_columns(None),
    )


def _forest(criteria: tuple[str, ...], columns: Hyperparameter, *, bootstrap: bool) -> tuple[Hyperparameter, ...]:
    return (
        integer("n_estimators", 100, "Trees.", (1, 10_000), search=(50, 1000), log=True),
        _criterion(criteria),
        *growth(),
        columns,
        boolean("bootstrap", bootstrap, "Whether each tree sees a sample drawn with replacement."),
        number(
            "max_samples",
            None,
            "Share of the rows drawn for each tree; with bootstrap only. Null: as many as there are.",
            above=0,
            most=1,
            nullable=True,
        ),
    )


ALGORITHMS = (
    Algorithm(
        name="decision_tree",
        task=Task.CLASSIFICATION,
        display_name="Decision tree",
        description="One tree of questions; can be read, and learns by heart when it is not limited.",
        implementation="sklearn.tree.DecisionTreeClassifier",
        hyperparameters=_tree(_GINI),
        predicts_probabilities=True,
    ),
    Algorithm(
        name="random_forest",
        task=Task.CLASSIFICATION,
        display_name="Random forest",
        description="The vote of many trees on random samples; strong without tuning.",
        implementation="sklearn.ensemble.RandomForestClassifier",
        hyperparameters=_forest(_GINI, words_of_columns("sqrt"), bootstrap=True),
        reports_iterations=True,
        predicts_probabilities=True,
    ),
    Algorithm(
        name="extra_trees",
        task=Task.CLASSIFICATION,
        display_name="Extremely randomized trees",
        description="A forest with random split points; faster than a random forest and often as good.",
        implementation="sklearn.ensemble.ExtraTreesClassifier",
        hyperparameters=_forest(_GINI, words_of_columns("sqrt"), bootstrap=False),
        reports_iterations=True,
        predicts_probabilities=True,
    ),
    Algorithm(
        name="decision_tree",
        task=Task.REGRESSION,
        display_name="Decision tree",
        description="One tree of questions; can be read, and learns by heart when it is not limited.",
        implementation="sklearn.tree.DecisionTreeRegressor",
        hyperparameters=_tree(_ERRORS),
    ),
    Algorithm(
        name="random_forest",
        task=Task.REGRESSION,
        display_name="Random forest",
        description="The mean of many trees on random samples; strong without tuning.",
        implementation="sklearn.ensemble.RandomForestRegressor",
        hyperparameters=_forest(_ERRORS, _SHARE_OF_COLUMNS, bootstrap=True),
        reports_iterations=True,
    ),
    Algorithm(
        name="extra_trees",
        task=Task.REGRESSION,
        display_name="Extremely randomized trees",
        description="A forest with random split points; faster than a random forest and often as good.",
        implementation="sklearn.ensemble.ExtraTreesRegressor",
        hyperparameters=_forest(_ERRORS, _SHARE_OF_COLUMNS, bootstrap=False),
        reports_iterations=True,
    ),
)
