"""Linear models: a weighted sum of the inputs. They want scaled inputs."""

from __future__ import annotations

from easyml_server.domain.algorithms import Algorithm, Hyperparameter, Task
from easyml_server.domain.catalogue.parameters import FIT_INTERCEPT, boolean, choice, integer, max_iter, number, tol


def _sgd(losses: tuple[str, ...], loss: str, schedule: str, power_t: float) -> tuple[Hyperparameter, ...]:
    return (
        choice("loss", loss, "What is minimized.", losses, search=losses[:2]),
        choice(
            "penalty",
            "l2",
            "Form of the regularization; null for none.",
            ("l2", "l1", "elasticnet"),
            nullable=True,
            search=("l2", "l1", "elasticnet"),
        ),
        number("alpha", 1e-4, "Strength of the regularization.", least=0, most=1e6, search=(1e-6, 1e-1), log=True),
        number("l1_ratio", 0.15, "Share of L1 in the penalty; elasticnet only.", least=0, most=1, search=(0, 1)),
        FIT_INTERCEPT,
        max_iter(1000, "Passes over the rows at most, unless it converges before."),
        number(
            "tol",
            1e-3,
            "Stops when a pass improves by less than this; null: never early.",
            least=0,
            most=1,
            nullable=True,
        ),
        boolean("shuffle", True, "Whether rows are shuffled before each pass."),
        number("epsilon", 0.1, "Width that counts as no error; Huber and epsilon-insensitive losses only.", least=0),
        choice(
            "learning_rate",
            schedule,
            "How the step size goes on.",
            ("constant", "optimal", "invscaling", "adaptive"),
        ),
        number("eta0", 0.01, "Step size at the start.", above=0, most=1e6, search=(1e-4, 1), log=True),
        number("power_t", power_t, "Exponent of the step size; invscaling only.", least=-10, most=10),
        boolean("early_stopping", False, "Whether to stop when held-out training rows no longer improve."),
        number("validation_fraction", 0.1, "Share held out for early_stopping.", above=0, below=1),
        integer("n_iter_no_change", 5, "Passes without improvement before it stops.", (1, 100_000)),
        boolean("average", False, "Whether to use the average of the weights over all steps."),
    )


_L1_RATIO = number(
    "l1_ratio", 0.5, "Share of L1 in the penalty: 0 is L2 only, 1 is L1 only.", least=0, most=1, search=(0, 1)
)
_SELECTION = choice("selection", "cyclic", "Order in which coefficients are updated.", ("cyclic", "random"))
_POSITIVE = boolean("positive", False, "Whether all coefficients must be positive.")
_PRECOMPUTE = boolean("precompute", False, "Whether to use a Gram matrix: faster for many more rows than columns.")


def _alpha(default: float, search: tuple[float, float] = (1e-4, 1e2)) -> Hyperparameter:
    return number("alpha", default, "Strength of the regularization.", least=0, most=1e12, search=search, log=True)


def _gamma_prior(name: str, of: str) -> Hyperparameter:
    return number(name, 1e-6, f"Parameter of the Gamma prior over the {of}.", least=0, most=1e6)


ALGORITHMS = (
    Algorithm(
        name="logistic_regression",
        task=Task.CLASSIFICATION,
        display_name="Logistic regression",
        description="A linear model with calibrated probabilities; a fast, readable baseline.",
        implementation="sklearn.linear_model.LogisticRegression",
        hyperparameters=(
            number(
                "C", 1.0, "Inverse strength of the regularization.", above=0, most=1e12, search=(1e-4, 1e4), log=True
            ),
            number(
                "l1_ratio",
                0.0,
                "Share of L1 in the penalty: 0 is L2, 1 is L1; values between need the solver saga.",
                least=0,
                most=1,
            ),
            choice(
                "solver",
                "lbfgs",
                "Method of optimization; L1 needs liblinear or saga.",
                ("lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga"),
                search=("lbfgs", "newton-cholesky"),
            ),
            FIT_INTERCEPT,
            tol(1e-4),
            max_iter(1000),
        ),
        reports_iterations=True,
        predicts_probabilities=True,
        scales_inputs=True,
    ),
    Algorithm(
        name="sgd",
        task=Task.CLASSIFICATION,
        display_name="Linear classifier (stochastic gradient descent)",
        description="Linear models for very many rows; probabilities with the losses log_loss and modified_huber only.",
        implementation="sklearn.linear_model.SGDClassifier",
        hyperparameters=_sgd(
            ("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron", "huber"), "hinge", "optimal", 0.5
        ),
        scales_inputs=True,
    ),
    Algorithm(
        name="linear_regression",
        task=Task.REGRESSION,
        display_name="Linear regression",
        description="Ordinary least squares; the baseline to beat.",
        implementation="sklearn.linear_model.LinearRegression",
        hyperparameters=(FIT_INTERCEPT, tol(1e-6), _POSITIVE),
        scales_inputs=True,
    ),
    Algorithm(
        name="ridge",
        task=Task.REGRESSION,
        display_name="Ridge regression",
        description="Least squares with L2 regularization; steady with many or correlated columns.",
        implementation="sklearn.linear_model.Ridge",
        hyperparameters=(
            _alpha(1.0, (1e-3, 1e4)),
            FIT_INTERCEPT,
            integer("max_iter", None, "Iterations at most; null: the solver decides.", (1, 1_000_000), nullable=True),
            tol(1e-4),
            choice(
                "solver",
                "auto",
                "Method of optimization.",
                ("auto", "svd", "cholesky", "lsqr", "sparse_cg", "sag", "saga", "lbfgs"),
            ),
            _POSITIVE,
        ),
        scales_inputs=True,
    ),
    Algorithm(
        name="lasso",
        task=Task.REGRESSION,
        display_name="Lasso",
        description="Least squares with L1 regularization; sets the weight of useless columns to zero.",
        implementation="sklearn.linear_model.Lasso",
        hyperparameters=(_alpha(1.0), FIT_INTERCEPT, _PRECOMPUTE, max_iter(1000), tol(1e-4), _POSITIVE, _SELECTION),
        scales_inputs=True,
    ),
    Algorithm(
        name="elastic_net",
        task=Task.REGRESSION,
        display_name="Elastic net",
        description="Least squares with a mix of L1 and L2 regularization.",
        implementation="sklearn.linear_model.ElasticNet",
        hyperparameters=(
            _alpha(1.0),
            _L1_RATIO,
            FIT_INTERCEPT,
            _PRECOMPUTE,
            max_iter(1000),
            tol(1e-4),
            _POSITIVE,
            _SELECTION,
        ),
        scales_inputs=True,
    ),
    Algorithm(
        name="bayesian_ridge",
        task=Task.REGRESSION,
        display_name="Bayesian ridge regression",
        description="Ridge regression that finds the strength of its regularization in the data.",
        implementation="sklearn.linear_model.BayesianRidge",
        hyperparameters=(
            max_iter(300),
            tol(1e-3),
            _gamma_prior("alpha_1", "noise (shape)"),
            _gamma_prior("alpha_2", "noise (rate)"),
            _gamma_prior("lambda_1", "weights (shape)"),
            _gamma_prior("lambda_2", "weights (rate)"),
            FIT_INTERCEPT,
        ),
        scales_inputs=True,
    ),
    Algorithm(
        name="huber",
        task=Task.REGRESSION,
        display_name="Huber regression",
        description="Linear regression that outliers in the target hardly move.",
        implementation="sklearn.linear_model.HuberRegressor",
        hyperparameters=(
            number(
                "epsilon",
                1.35,
                "Errors beyond this many scales count as outliers.",
                least=1,
                most=1e6,
                search=(1, 3),
            ),
            max_iter(1000),
            _alpha(1e-4, (1e-6, 1e1)),
            FIT_INTERCEPT,
            tol(1e-5),
        ),
        scales_inputs=True,
    ),
    Algorithm(
        name="sgd",
        task=Task.REGRESSION,
        display_name="Linear regression (stochastic gradient descent)",
        description="Linear regression for very many rows.",
        implementation="sklearn.linear_model.SGDRegressor",
        hyperparameters=_sgd(
            ("squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive"),
            "squared_error",
            "invscaling",
            0.25,
        ),
        scales_inputs=True,
    ),
)
