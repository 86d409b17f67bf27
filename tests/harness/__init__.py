# SPDX-License-Identifier: Apache-2.0
"""What end-to-end scenarios are built from: namespaces, links, processes, frames, and judges.

A scenario takes the fixture `lab` (see ../conftest.py) and gets everything from it; what it makes is gone when
the test ends, however it ends. Nothing in here knows how Greyhound is built inside: the ESP and GRE judges are
written from the RFCs, so that they can disagree with it.

    lab.py        one test's namespaces, links, processes, captures, headends
    netns.py      network namespaces and veth pairs
    process.py    a program inside a namespace, its log, its end
    frames.py     raw frames in and out of an interface (AF_PACKET)
    pcap.py       capture files, and a running capture
    esp.py        RFC 4303 + RFC 4106 sealer and opener
    gre.py        RFC 2784 + RFC 2890 build (Scapy) and parse (by hand)
    tshark.py     decryption of a capture by tshark, keys in a private file
    responder.py  a host made of Scapy: answers ARP, neighbour solicitations and ping
    headend.py    one greyhound-dataplane and one greyhound-control with their files, and the CLI
    wait.py       waiting for a condition with a deadline
    cleanup.py    undo actions that run on exit and on signals too
    skips.py      what a machine lacks: a printed, counted skip, never a pass
"""
