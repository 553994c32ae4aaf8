"""The data: which columns a row has, what is predicted, and what each means. Edit this file for another data set."""

from contract.declaration import Feature, Target

NAME = "boston-housing"
TITLE = "Boston housing prices"
ABOUT = (
    "Median value of owner-occupied homes in 506 census tracts around Boston, 1970. A teaching model: column B encodes "
    "the share of Black residents under the assumption that segregation raises prices, so no decision may rest on it."
)
INTENDED_USE = "To learn and test the road from data to a served model, as the book Practical MLOps does."
LIMITS = (
    "Decide nothing about people or homes with it. Column B rests on the assumption that racial self-segregation raises house "
    "prices, and can't be turned back into the share of residents it came from; scikit-learn removed the data set for this. "
    "Prices are of 1970, one city, and capped at 50 thousand dollars: above that the model knows nothing."
)

FEATURES = (
    Feature("CHAS", "Charles River dummy: 1 where the tract bounds the river", range=(0, 1)),
    Feature("RM", "Average number of rooms in a dwelling", unit="rooms", range=(3, 9)),
    Feature("TAX", "Full-value property-tax rate", unit="dollars per 10,000", range=(187, 711)),
    Feature("PTRATIO", "Pupils for each teacher in the town", unit="pupils", range=(12.6, 22)),
    Feature("B", "1000(Bk - 0.63)^2, Bk the share of Black residents in the town", range=(0, 396.9)),
    Feature("LSTAT", "Residents of lower status", unit="percent", range=(1, 40)),
)

TARGET = Target("MEDV", "Median value of owner-occupied homes", unit="thousand dollars")
