"""What a project has in its account: shown, read and ended."""
