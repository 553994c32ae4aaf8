"""From a laptop or CodeBuild to a registry, an endpoint, batch jobs and back; never in the image."""
