"""What both programs use: errors, files and disk, locks, JSON, progress, command line, plotting."""
