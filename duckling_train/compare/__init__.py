"""Runs side by side: the table and the plots."""
