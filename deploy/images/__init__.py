"""From an image on this machine to a digest in a registry, past the gates."""
