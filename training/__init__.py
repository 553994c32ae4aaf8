"""From /opt/ml/input to a verified model directory in /opt/ml/model."""
