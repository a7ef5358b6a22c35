"""Configuration, hosts, switches, and what every service thread shares."""
