"""What an image shows, on an Edge TPU or the CPU."""
