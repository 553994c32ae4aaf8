"""A rehearsal of the whole way, from a build to an endpoint and back, on this machine alone: no AWS account, no cost."""
