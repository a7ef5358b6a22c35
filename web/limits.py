"""How much the web page takes at most. Numbers only."""

MAX_STREAMS = 64  # browsers that watch at once; the next is told to come back later
MAX_BODY = 1_000_000  # bytes of a request; config.yaml and hosts.csv of thousands of Pis are far below
