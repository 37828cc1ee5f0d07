"""Neural networks of dense layers. They want scaled inputs."""

from __future__ import annotations

from easyml_server.domain.algorithms import Algorithm, Hyperparameter, Task
from easyml_server.domain.catalogue.parameters import boolean, choice, integer, integers, max_iter, number, tol

_NETWORK: tuple[Hyperparameter, ...] = (
    integers("hidden_layer_sizes", (100,), "Neurons of each hidden layer, from the input on.", (1, 10_000)),
    choice(
        "activation",
        "relu",
        "Function of the neurons.",
        ("relu", "tanh", "logistic", "identity"),
        search=("relu", "tanh"),
    ),
    choice("solver", "adam", "Method of optimization; lbfgs suits small tables.", ("adam", "sgd", "lbfgs")),
    number("alpha", 1e-4, "Strength of the L2 regularization.", least=0, most=1e6, search=(1e-6, 1e-1), log=True),
    # As with gamma: null is the library's own word, here 'auto'.
    integer("batch_size", None, "Rows per step; null: 200, or all if fewer.", (1, 1_000_000), nullable=True),
    choice(
        "learning_rate",
        "constant",
        "How the step size goes on; solver sgd only.",
        ("constant", "invscaling", "adaptive"),
    ),
    number(
        "learning_rate_init",
        1e-3,
        "Step size at the start; not for lbfgs.",
        above=0,
        most=1e3,
        search=(1e-4, 1e-1),
        log=True,
    ),
    number("power_t", 0.5, "Exponent of the step size; invscaling only.", least=0, most=10),
    max_iter(500, "Passes over the rows at most, unless it converges before."),
    boolean("shuffle", True, "Whether rows are shuffled in each pass."),
    tol(1e-4),
    number("momentum", 0.9, "Momentum of the solver sgd.", least=0, most=1),
    boolean("nesterovs_momentum", True, "Whether that is Nesterov's momentum."),
    boolean("early_stopping", False, "Whether to stop when held-out training rows no longer improve."),
    number("validation_fraction", 0.1, "Share held out for early_stopping.", above=0, below=1),
    number("beta_1", 0.9, "Decay of the first moment; adam only.", least=0, below=1),
    number("beta_2", 0.999, "Decay of the second moment; adam only.", least=0, below=1),
    number("epsilon", 1e-8, "Small number against division by zero; adam only.", above=0, most=1),
    integer("n_iter_no_change", 10, "Passes without improvement before it stops.", (1, 100_000)),
    integer("max_fun", 15_000, "Evaluations of the loss at most; lbfgs only.", (1, 100_000_000)),
)

ALGORITHMS = (
    Algorithm(
        name="mlp",
        task=Task.CLASSIFICATION,
        display_name="Neural network",
        description="A network of dense layers; for smooth relations and enough rows.",
        implementation="sklearn.neural_network.MLPClassifier",
        hyperparameters=_NETWORK,
        predicts_probabilities=True,
        scales_inputs=True,
    ),
    Algorithm(
        name="mlp",
        task=Task.REGRESSION,
        display_name="Neural network",
        description="A network of dense layers; for smooth relations and enough rows.",
        implementation="sklearn.neural_network.MLPRegressor",
        hyperparameters=(
            choice("loss", "squared_error", "What is minimized.", ("squared_error", "poisson")),
            *_NETWORK,
        ),
        scales_inputs=True,
    ),
)
