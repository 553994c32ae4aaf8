"""The knobs of training: one declaration, from which parsing, help and listings come."""

from contract.declaration import Hyperparameter

BOOSTING, FOREST, RIDGE, MLP = ("hist_gradient_boosting",), ("random_forest",), ("ridge",), ("mlp",)

HYPERPARAMETERS = (
    Hyperparameter(
        "estimator", "Which algorithm learns", "categorical", BOOSTING[0], choices=(*BOOSTING, *FOREST, *RIDGE, *MLP)
    ),
    Hyperparameter("seed", "Seed of the split and of every random choice", "integer", 0, (0, 2**31 - 1)),
    Hyperparameter(
        "validation_fraction", "Share of the rows held out where there is no validation channel", "continuous", 0.2, (0.05, 0.5)
    ),
    Hyperparameter("cv_folds", "Folds of a cross-validation before the fit; 0 and 1 do none", "integer", 0, (0, 20)),
    Hyperparameter(
        "allow_sklearn", "Keep a model that ONNX can't express; serving it then takes PREDICTOR=sklearn", "boolean", False
    ),
    Hyperparameter(
        "bad_rows",
        "What to do about rows with a value that can't be used: fail, or drop them and say how many",
        "categorical",
        "fail",
        choices=("fail", "drop"),
    ),
    Hyperparameter("learning_rate", "How much each tree corrects", "continuous", 0.05, (0.001, 1.0), estimators=BOOSTING),
    Hyperparameter(
        "max_iter", "Number of trees (of each class, with more than two)", "integer", 200, (1, 10_000), estimators=BOOSTING
    ),
    Hyperparameter("max_leaf_nodes", "Leaves of a tree, at most", "integer", 15, (2, 1_000), estimators=BOOSTING),
    Hyperparameter("min_samples_leaf", "Rows in a leaf, at least", "integer", 5, (1, 100_000), estimators=BOOSTING),
    Hyperparameter("l2_regularization", "Shrinks what a leaf says", "continuous", 0.0, (0.0, 1_000.0), estimators=BOOSTING),
    Hyperparameter("n_estimators", "Number of trees", "integer", 200, (1, 5_000), estimators=FOREST),
    Hyperparameter("max_depth", "Depth of a tree, at most; 0 sets no bound", "integer", 0, (0, 100), estimators=FOREST),
    Hyperparameter("max_features", "Share of the features tried at a split", "continuous", 0.5, (0.01, 1.0), estimators=FOREST),
    Hyperparameter("alpha", "Strength of the L2 penalty", "continuous", 1.0, (1e-6, 1e6), estimators=RIDGE),
    Hyperparameter("hidden_units", "Units of each of the two hidden layers", "integer", 32, (1, 1_024), estimators=MLP),
    Hyperparameter("learning_rate_init", "First step size of Adam", "continuous", 0.01, (1e-5, 1.0), estimators=MLP),
    Hyperparameter("weight_decay", "Strength of the L2 penalty", "continuous", 1e-3, (0.0, 100.0), estimators=MLP),
    Hyperparameter("epochs", "Passes over the data, at most", "integer", 400, (1, 10_000), estimators=MLP),
)
