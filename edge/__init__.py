"""The trained model near its user: made for small devices, judged for them, and run on them."""
