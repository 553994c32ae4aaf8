"""The part you replace: what the columns are, which knobs training has, which pipeline learns, what is measured."""

from contract.declaration import Declaration, check
from model.features import ABOUT, FEATURES, NAME, TARGET, TITLE
from model.hyperparameters import HYPERPARAMETERS

DECLARATION = check(Declaration(NAME, TITLE, ABOUT, FEATURES, TARGET, HYPERPARAMETERS))
