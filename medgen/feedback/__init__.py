"""What is learned from feedback: the log, and what is trained on it."""
