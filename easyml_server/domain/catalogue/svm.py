"""Support vector machines. They want scaled inputs."""

from __future__ import annotations

from easyml_server.domain.algorithms import Algorithm, Hyperparameter, Task
from easyml_server.domain.catalogue.parameters import FIT_INTERCEPT, boolean, choice, integer, max_iter, number, tol

_C = number("C", 1.0, "Inverse strength of the regularization.", above=0, most=1e12, search=(1e-3, 1e3), log=True)

_KERNEL: tuple[Hyperparameter, ...] = (
    choice(
        "kernel",
        "rbf",
        "Form of the similarity of two rows.",
        ("rbf", "linear", "poly", "sigmoid"),
        search=("rbf", "linear"),
    ),
    integer("degree", 3, "Degree of the polynomial; kernel poly only.", (0, 20)),
    # The library takes a word or a number here; a schema with one type keeps the number, and null for its default word.
    number(
        "gamma",
        None,
        "Width of the kernel, larger is narrower; null is the library's 'scale', 1 / (columns x variance).",
        least=0,
        most=1e12,
        nullable=True,
        search=(1e-5, 1e1),
        log=True,
    ),
    number("coef0", 0.0, "Constant of the kernels poly and sigmoid.", least=-1e6, most=1e6),
    boolean("shrinking", True, "Whether to use the shrinking heuristic, which usually is faster."),
    tol(1e-3),
    number("cache_size", 200.0, "Memory for kernel values, in MB.", above=0, most=4096),
    integer("max_iter", -1, "Iterations at most; -1: no limit.", (-1, 1_000_000_000)),
)

ALGORITHMS = (
    Algorithm(
        name="linear_svc",
        task=Task.CLASSIFICATION,
        display_name="Linear support vector machine",
        description="A linear classifier with the widest margin; good with many columns. No probabilities.",
        implementation="sklearn.svm.LinearSVC",
        hyperparameters=(
            _C,
            choice("penalty", "l2", "Form of the regularization.", ("l2", "l1")),
            choice("loss", "squared_hinge", "What is minimized.", ("squared_hinge", "hinge")),
            FIT_INTERCEPT,
            number("intercept_scaling", 1.0, "Scale of the constant term.", above=0, most=1e6),
            choice("multi_class", "ovr", "How more than two classes are told apart.", ("ovr", "crammer_singer")),
            tol(1e-4),
            max_iter(10_000),
        ),
        scales_inputs=True,
    ),
    Algorithm(
        name="svc",
        task=Task.CLASSIFICATION,
        display_name="Support vector machine",
        description="Curved class borders by a kernel; for up to some ten thousand rows. No probabilities.",
        implementation="sklearn.svm.SVC",
        hyperparameters=(
            _C,
            *_KERNEL,
            boolean("break_ties", False, "Whether ties between classes are broken by the decision values."),
        ),
        scales_inputs=True,
    ),
    Algorithm(
        name="svr",
        task=Task.REGRESSION,
        display_name="Support vector regression",
        description="Curved regression by a kernel; for up to some ten thousand rows.",
        implementation="sklearn.svm.SVR",
        hyperparameters=(
            _C,
            *_KERNEL,
            number(
                "epsilon",
                0.1,
                "Errors up to this count as none, in units of the target.",
                least=0,
                most=1e12,
                search=(1e-3, 1),
                log=True,
            ),
        ),
        scales_inputs=True,
    ),
)
