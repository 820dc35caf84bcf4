"""What looks inside the event loops and the process."""
