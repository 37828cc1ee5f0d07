"""Boosting: trees that correct each other, one after the other. Scaling changes nothing for them."""

from __future__ import annotations

from easyml_server.domain.algorithms import Algorithm, Hyperparameter, Task
from easyml_server.domain.catalogue.parameters import boolean, choice, integer, number
from easyml_server.domain.catalogue.trees import growth, words_of_columns


def _learning_rate(default: float, most: float = 1e3) -> Hyperparameter:
    return number(
        "learning_rate", default, "How much each tree counts.", above=0, most=most, search=(0.01, 0.5), log=True
    )


def _n_estimators(default: int) -> Hyperparameter:
    return integer(
        "n_estimators", default, "Trees (per class for more than two).", (1, 10_000), search=(50, 1000), log=True
    )


def _share(name: str, default: float, description: str) -> Hyperparameter:
    return number(name, default, description, above=0, most=1, search=(0.5, 1))


def _strength(name: str, default: float, description: str) -> Hyperparameter:
    return number(name, default, description, least=0, most=1e12, search=(1e-8, 10), log=True)


def _gradient_boosting(losses: tuple[str, ...], *extra: Hyperparameter) -> tuple[Hyperparameter, ...]:
    return (
        choice("loss", losses[0], "What is minimized.", losses),
        _learning_rate(0.1),
        _n_estimators(100),
        _share("subsample", 1.0, "Share of the rows that each tree sees."),
        *growth(max_depth=3),
        words_of_columns(None),
        integer(
            "n_iter_no_change",
            None,
            "Stops after so many trees without improvement on held-out training rows; null: never early.",
            (1, 10_000),
            nullable=True,
        ),
        number("validation_fraction", 0.1, "Share held out for n_iter_no_change.", above=0, below=1),
        number("tol", 1e-4, "What counts as improvement for n_iter_no_change.", least=0, most=1),
        *extra,
    )


_HIST: tuple[Hyperparameter, ...] = (
    _learning_rate(0.1),
    integer("max_iter", 100, "Trees at most (per class for more than two).", (1, 10_000), search=(50, 1000), log=True),
    integer(
        "max_leaf_nodes", 31, "Leaves of a tree at most; null: no limit.", (2, 100_000), nullable=True, search=(7, 127)
    ),
    integer("max_depth", None, "Levels of a tree at most; null: no limit.", (1, 1000), nullable=True),
    integer("min_samples_leaf", 20, "Rows a leaf keeps at least.", (1, 1_000_000), search=(1, 100)),
    number("l2_regularization", 0.0, "Strength of the L2 regularization.", least=0, most=1e12, search=(0, 10)),
    _share("max_features", 1.0, "Share of the columns looked at for each split."),
    integer("max_bins", 255, "Bins a column is divided into.", (2, 255)),
    boolean(
        "early_stopping",
        None,
        "Whether to stop when held-out training rows no longer improve; null: with more than 10,000 rows.",
    ),
    number("validation_fraction", 0.1, "Share held out for early_stopping.", above=0, below=1),
    integer("n_iter_no_change", 10, "Trees without improvement before it stops; early_stopping only.", (1, 10_000)),
    number("tol", 1e-7, "What counts as improvement for early_stopping.", least=0, most=1),
)

_ADA: tuple[Hyperparameter, ...] = (
    integer("n_estimators", 50, "Models at most.", (1, 10_000), search=(20, 500), log=True),
    number("learning_rate", 1.0, "How much each model counts.", above=0, most=1e3, search=(0.01, 2), log=True),
)

# The class leaves all of these to the library underneath; the defaults here are that library's, as it documents them.
_XGBOOST: tuple[Hyperparameter, ...] = (
    _n_estimators(100),
    number("learning_rate", 0.3, "How much each tree counts.", least=0, most=1, search=(0.01, 0.5), log=True),
    integer("max_depth", 6, "Levels of a tree at most; 0: no limit, with lossguide only.", (0, 64), search=(2, 12)),
    integer("max_leaves", 0, "Leaves of a tree at most; 0: no limit.", (0, 100_000)),
    choice("grow_policy", "depthwise", "Where a tree grows next.", ("depthwise", "lossguide")),
    integer("max_bin", 256, "Bins a column is divided into.", (2, 65_536)),
    number("min_child_weight", 1.0, "Weight a leaf keeps at least.", least=0, most=1e12, search=(1, 20), log=True),
    number("gamma", 0.0, "A split must lower the loss by this.", least=0, most=1e12, search=(0, 5)),
    number("max_delta_step", 0.0, "Largest step of a leaf's value; 0: no limit.", least=0, most=1e6),
    _share("subsample", 1.0, "Share of the rows that each tree sees."),
    _share("colsample_bytree", 1.0, "Share of the columns that each tree sees."),
    _share("colsample_bylevel", 1.0, "Share of those columns that each level sees."),
    _share("colsample_bynode", 1.0, "Share of those columns that each split sees."),
    _strength("reg_alpha", 0.0, "Strength of the L1 regularization."),
    _strength("reg_lambda", 1.0, "Strength of the L2 regularization."),
)

_LIGHTGBM: tuple[Hyperparameter, ...] = (
    choice("boosting_type", "gbdt", "Plain boosting, or with trees dropped at random.", ("gbdt", "dart")),
    _n_estimators(100),
    _learning_rate(0.1),
    integer("num_leaves", 31, "Leaves of a tree at most.", (2, 131_072), search=(7, 255), log=True),
    integer("max_depth", -1, "Levels of a tree at most; -1: no limit.", (-1, 1000)),
    integer("subsample_for_bin", 200_000, "Rows that bins are made from.", (1, 100_000_000)),
    number("min_split_gain", 0.0, "A split must lower the loss by this.", least=0, most=1e12, search=(0, 1)),
    number("min_child_weight", 1e-3, "Weight a leaf keeps at least.", least=0, most=1e12),
    integer("min_child_samples", 20, "Rows a leaf keeps at least.", (0, 1_000_000), search=(5, 100)),
    _share("subsample", 1.0, "Share of the rows that each tree sees; with subsample_freq only."),
    integer("subsample_freq", 0, "Draws rows anew after so many trees; 0: all rows, always.", (0, 10_000)),
    _share("colsample_bytree", 1.0, "Share of the columns that each tree sees."),
    _strength("reg_alpha", 0.0, "Strength of the L1 regularization."),
    _strength("reg_lambda", 0.0, "Strength of the L2 regularization."),
)

ALGORITHMS = (
    Algorithm(
        name="gradient_boosting",
        task=Task.CLASSIFICATION,
        display_name="Gradient boosting",
        description="Small trees that correct each other; accurate, for up to some ten thousand rows.",
        implementation="sklearn.ensemble.GradientBoostingClassifier",
        hyperparameters=_gradient_boosting(("log_loss", "exponential")),
        reports_iterations=True,
        predicts_probabilities=True,
    ),
    Algorithm(
        name="hist_gradient_boosting",
        task=Task.CLASSIFICATION,
        display_name="Gradient boosting on histograms",
        description="Fast boosting for many rows; uses missing values as they are.",
        implementation="sklearn.ensemble.HistGradientBoostingClassifier",
        hyperparameters=_HIST,
        predicts_probabilities=True,
    ),
    Algorithm(
        name="ada_boost",
        task=Task.CLASSIFICATION,
        display_name="AdaBoost",
        description="Stumps that look harder at the rows still wrong; sensitive to noise.",
        implementation="sklearn.ensemble.AdaBoostClassifier",
        hyperparameters=_ADA,
        predicts_probabilities=True,
    ),
    Algorithm(
        name="xgboost",
        task=Task.CLASSIFICATION,
        display_name="XGBoost",
        description="Regularized boosting, fast and accurate; uses missing values as they are.",
        implementation="xgboost.XGBClassifier",
        hyperparameters=_XGBOOST,
        reports_iterations=True,
        predicts_probabilities=True,
    ),
    Algorithm(
        name="lightgbm",
        task=Task.CLASSIFICATION,
        display_name="LightGBM",
        description="Boosting that grows trees leaf by leaf; very fast for many rows; uses missing values as they are.",
        implementation="lightgbm.LGBMClassifier",
        hyperparameters=_LIGHTGBM,
        reports_iterations=True,
        predicts_probabilities=True,
    ),
    Algorithm(
        name="gradient_boosting",
        task=Task.REGRESSION,
        display_name="Gradient boosting",
        description="Small trees that correct each other; accurate, for up to some ten thousand rows.",
        implementation="sklearn.ensemble.GradientBoostingRegressor",
        hyperparameters=_gradient_boosting(
            ("squared_error", "absolute_error", "huber", "quantile"),
            number("alpha", 0.9, "The quantile of the losses huber and quantile.", above=0, below=1),
        ),
        reports_iterations=True,
    ),
    Algorithm(
        name="hist_gradient_boosting",
        task=Task.REGRESSION,
        display_name="Gradient boosting on histograms",
        description="Fast boosting for many rows; uses missing values as they are.",
        implementation="sklearn.ensemble.HistGradientBoostingRegressor",
        hyperparameters=(
            choice(
                "loss",
                "squared_error",
                "What is minimized; gamma and poisson need positive targets, quantile needs `quantile`.",
                ("squared_error", "absolute_error", "gamma", "poisson", "quantile"),
            ),
            number("quantile", None, "The quantile to predict; loss quantile only.", least=0, most=1, nullable=True),
            *_HIST,
        ),
    ),
    Algorithm(
        name="ada_boost",
        task=Task.REGRESSION,
        display_name="AdaBoost",
        description="Small trees that look harder at the rows still wrong; sensitive to noise.",
        implementation="sklearn.ensemble.AdaBoostRegressor",
        hyperparameters=(
            *_ADA,
            choice("loss", "linear", "How errors become weights.", ("linear", "square", "exponential")),
        ),
    ),
    Algorithm(
        name="xgboost",
        task=Task.REGRESSION,
        display_name="XGBoost",
        description="Regularized boosting, fast and accurate; uses missing values as they are.",
        implementation="xgboost.XGBRegressor",
        hyperparameters=(
            choice(
                "objective",
                "reg:squarederror",
                "What is minimized.",
                ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "count:poisson", "reg:gamma"),
            ),
            *_XGBOOST,
        ),
        reports_iterations=True,
    ),
    Algorithm(
        name="lightgbm",
        task=Task.REGRESSION,
        display_name="LightGBM",
        description="Boosting that grows trees leaf by leaf; very fast for many rows; uses missing values as they are.",
        implementation="lightgbm.LGBMRegressor",
        hyperparameters=(
            choice(
                "objective",
                None,
                "What is minimized; null: squared error.",
                ("regression", "regression_l1", "huber", "poisson", "gamma"),
                nullable=True,
            ),
            *_LIGHTGBM,
        ),
        reports_iterations=True,
    ),
)
