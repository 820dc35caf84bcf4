"""What strategies cost on the embedded model: tokens and seconds until an answer is valid."""
