"""What would stop the other verbs, found before they begin."""
