"""What is recorded while a run trains."""
