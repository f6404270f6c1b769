"""Prints what is announced behind a network device, one line each: "rarp MAC", or "arp MAC ADDRESS" for an ARP packet in
which the sender speaks of itself. `announcements.py DEVICE`, until it is killed."""

import socket
import sys

ARP, RARP = 0x0806, 0x8035
listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
listener.bind((sys.argv[1], 0))
print("listening", flush=True)
while True:
    frame = listener.recv(2048)
    kind = int.from_bytes(frame[12:14], "big")
    mac = frame[6:12].hex(":")
    # RFC 826: sender's address at 14, target's at 24 of the packet, which follows 14 bytes of Ethernet.
    sender, target = frame[28:32], frame[38:42]
    if kind == RARP:
        print("rarp", mac, flush=True)
    elif kind == ARP and sender == target:
        print("arp", mac, socket.inet_ntoa(sender), flush=True)
