"""Whether compilers for accelerators take a model, and what to do where they don't."""
