"""The long measurements, and the file that keeps their figures."""
