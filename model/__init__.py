"""The part you replace: what the columns are, which knobs training has, which pipeline learns, what is measured."""

from contract.declaration import Declaration, check
from model import features
from model.features import ABOUT, FEATURES, NAME, TARGET, TITLE
from model.hyperparameters import HYPERPARAMETERS

# Two texts for the report that a data set may do without.
INTENDED_USE, LIMITS = (str(getattr(features, name, "")) for name in ("INTENDED_USE", "LIMITS"))

DECLARATION = check(Declaration(NAME, TITLE, ABOUT, FEATURES, TARGET, HYPERPARAMETERS, INTENDED_USE, LIMITS))
