"""NTP: the time for boards that have no clock."""
