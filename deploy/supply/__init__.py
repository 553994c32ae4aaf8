"""What is in the image, what is known against it, and how it stays fresh."""
