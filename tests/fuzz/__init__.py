"""Fuzzing: any bytes at every parser of what comes from outside."""
