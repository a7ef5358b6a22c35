"""TFTP: the boot files."""
