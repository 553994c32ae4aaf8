"""From one trained model directory to verified files for devices."""
