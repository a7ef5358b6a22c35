"""How much the web page takes at most. Numbers only."""

PAGE_THREADS = 8
MAX_STREAMS = 64  # browsers that watch at once; the next is told to come back later
STREAM_BUFFER = 1 << 20  # bytes that may wait for a browser that does not read
MAX_BODY = 4_000_000  # bytes of a request; config.yaml and hosts.csv of thousands of Pis are far below
MAX_CONNECTIONS = 512
HANDSHAKE_SECONDS = 10.0
