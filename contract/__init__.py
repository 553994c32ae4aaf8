"""What a platform promises a container, and what our parts promise each other. Imports the standard library only."""
