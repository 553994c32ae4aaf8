"""The Edge TPU's compiler, in a container of its own, and what it says."""
