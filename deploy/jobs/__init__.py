"""Training, tuning and batch jobs, their data, and the model registry."""
