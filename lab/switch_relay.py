"""What snmpd starts for `pass_persist`: passes its questions to the lab's socket and the answers back, and no more.

Runs alone, as `python3 -I -S switch_relay.py SOCKET`: it must import nothing of Piman, and start fast.
"""

from __future__ import annotations

import os
import select
import socket
import sys


def relay(path: str) -> None:
    """Pump bytes between standard input/output and the socket until either side ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.connect(path)
        while True:
            ready, _, _ = select.select([0, agent.fileno()], [], [])
            if 0 in ready:
                question = os.read(0, 65536)
                if not question:
                    return
                agent.sendall(question)
            if agent.fileno() in ready:
                answer = agent.recv(65536)
                if not answer:
                    return
                os.write(1, answer)


if __name__ == "__main__":
    relay(sys.argv[1])
