"""The commands, a file for each family of them. They hold words and exit codes, and no rule of anything."""
