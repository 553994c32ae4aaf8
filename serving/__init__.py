"""HTTP bytes to prediction bytes. Knows a model by its manifest alone; imports nothing that trains."""
