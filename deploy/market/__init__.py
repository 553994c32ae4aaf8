"""AWS Marketplace: the algorithm and the model package that are sold, from the declarations that `train` and `serve` obey."""
