"""The suite for the first hour on a GPU; `first_day` runs it."""
