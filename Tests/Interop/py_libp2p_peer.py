#!/usr/bin/env python3
"""Independent libp2p peer for interop tests (py-libp2p 0.8.1, TCP + Noise + Yamux).

Every line on stdout is one JSON object with an "event" field; logs go to stderr.

  py_libp2p_peer.py [options] serve                 run a DHT server until stopped
  py_libp2p_peer.py [options] provide KEY [KEY...]  announce keys, then stay up (--hold)
  py_libp2p_peer.py [options] find KEY              look up providers, print, exit
  py_libp2p_peer.py [options] ping ADDR             connect, identify, /ipfs/ping, exit
  py_libp2p_peer.py [options] closest KEY           FIND_NODE lookup, print, exit
  py_libp2p_peer.py vectors                         print library-made test vectors, exit

KEY is by default the plain string a registry looks up (a digest or a tag
reference): it is hashed to a CIDv1/raw/sha2-256 and the DHT key is its
multihash.  With --key-format hex or cid it is given ready made.

A long-running command also reads commands, one a line, from stdin:
  provide KEY | find KEY | closest KEY | connect ADDR | peers | store | quit
and ends when it reads quit; the end of stdin does not end it.

Exit status: 0 on success, 1 when a lookup found nothing or a step failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import signal
import sys
import time

DEFAULT_PROTOCOL = "/spegel/kad/1.0.0"


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--listen", default="/ip4/127.0.0.1/tcp/0", help="multiaddr to listen on")
    p.add_argument("--bootstrap", action="append", default=[], help="multiaddr ending in /p2p/ID; repeatable")
    p.add_argument("--kad-protocol", default=DEFAULT_PROTOCOL, help="protocol id of the DHT")
    p.add_argument("--seed", help="64 hex digits: Ed25519 seed; random without")
    p.add_argument("--announce", action="append", default=None, help="advertise these addresses only; repeatable")
    p.add_argument("--key-format", choices=["string", "hex", "cid"], default="string")
    p.add_argument("--timeout", type=float, default=120.0, help="seconds for one operation")
    p.add_argument("--hold", type=float, default=0.0, help="provide: seconds to stay up, 0 = until stopped")
    p.add_argument("--count", type=int, default=20, help="find: most providers wanted")
    p.add_argument("--pings", type=int, default=1, help="ping: how many")
    p.add_argument("--go-like", action="store_true",
                   help="as a DHT server do not answer ADD_PROVIDER, do not limit its rate, and end streams "
                        "rather than reset them, as Go does")
    p.add_argument("--early-muxer", action="store_true",
                   help="list the muxer in the Noise handshake and negotiate none when both sides did, as Go does")
    p.add_argument("--client", action="store_true", help="DHT client mode (does not offer the DHT protocol)")
    p.add_argument("--security", choices=["noise", "default"], default="noise",
                   help="noise: offer /noise only; default: whatever py-libp2p offers (tls, noise)")
    p.add_argument("--log", default="ERROR", help="stderr log level")
    sub = p.add_subparsers(dest="command", required=True)
    sub.add_parser("serve")
    s = sub.add_parser("provide")
    s.add_argument("keys", nargs="+")
    s = sub.add_parser("find")
    s.add_argument("keys", nargs="+")
    s = sub.add_parser("closest")
    s.add_argument("keys", nargs=1)
    s = sub.add_parser("ping")
    s.add_argument("addr")
    sub.add_parser("vectors")
    return p.parse_args()


ARGS = parse_args()
import trio  # noqa: E402  (imported late: --help and argument errors stay fast)
from multiaddr import Multiaddr  # noqa: E402

from libp2p import new_host  # noqa: E402
from libp2p.crypto.ed25519 import create_new_key_pair  # noqa: E402
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair  # noqa: E402
from libp2p.custom_types import TProtocol  # noqa: E402
from libp2p.peer.id import ID  # noqa: E402
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr  # noqa: E402
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID, Yamux  # noqa: E402
from libp2p.security.noise.transport import (  # noqa: E402
    PROTOCOL_ID as NOISE_ID,
    Transport as NoiseTransport,
)
from libp2p.network.stream.exceptions import StreamEOF  # noqa: E402
import libp2p.kad_dht.common as kad_common  # noqa: E402
import libp2p.kad_dht.kad_dht as kad_module  # noqa: E402
import libp2p.kad_dht.peer_routing as kad_peer_routing  # noqa: E402
import libp2p.kad_dht.provider_store as kad_provider_store  # noqa: E402
import libp2p.kad_dht.value_store as kad_value_store  # noqa: E402
from libp2p.protocol_muxer.generic_selector import GenericMultistreamSelector  # noqa: E402
import libp2p.security.noise.patterns as noise_patterns  # noqa: E402
from libp2p.tools.anyio_service import background_trio_service  # noqa: E402

logging.basicConfig(stream=sys.stderr, level=getattr(logging, ARGS.log.upper(), logging.ERROR))
for name in ("libp2p", "multiaddr"):
    logging.getLogger(name).setLevel(getattr(logging, ARGS.log.upper(), logging.ERROR))


def patch_kad_protocol(protocol: str) -> None:
    """0.8.1 takes protocol_prefix but never uses it to build the protocol id, so
    the constant is replaced in each module that imported it by value."""
    for module in (kad_common, kad_module, kad_peer_routing, kad_provider_store, kad_value_store):
        module.PROTOCOL_ID = TProtocol(protocol)


def be_patient() -> None:
    """A query that a stalling machine held up is given up without a word, as if nothing had been found."""
    for module in (kad_common, kad_module, kad_peer_routing, kad_provider_store):
        module.QUERY_TIMEOUT = 30


def offer_early_muxer() -> None:
    """0.8.1 can encode the handshake's list of muxers but neither sends nor heeds it.

    What the other side listed is remembered under its static key of that handshake."""
    listed: dict[bytes, list[str]] = {}
    make_payload = noise_patterns.BasePattern.make_handshake_payload
    verify = noise_patterns.verify_handshake_payload_sig
    select = GenericMultistreamSelector.select

    def make_payload_with_muxers(self, extensions=None):
        return make_payload(self, extensions or noise_patterns.NoiseExtensions(stream_muxers=[str(YAMUX_ID)]))

    def verify_and_remember(payload, static_key):
        listed[static_key.to_bytes()] = payload.extensions.stream_muxers if payload.extensions else []
        return verify(payload, static_key)

    async def select_unless_known(self, conn, *args, **kwargs):
        static_key = getattr(conn, "remote_permanent_pubkey", None)
        if static_key is not None and str(YAMUX_ID) in listed.pop(static_key.to_bytes(), []):
            return TProtocol(YAMUX_ID), self.handlers[TProtocol(YAMUX_ID)]
        return await select(self, conn, *args, **kwargs)

    noise_patterns.BasePattern.make_handshake_payload = make_payload_with_muxers
    noise_patterns.verify_handshake_payload_sig = verify_and_remember
    GenericMultistreamSelector.select = select_unless_known


def emit(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, "t": round(time.time(), 3), **fields}, sort_keys=True), flush=True)


def string_key_to_multihash(key: str) -> bytes:
    return b"\x12\x20" + hashlib.sha256(key.encode("utf-8")).digest()


def to_dht_key(key: str) -> bytes:
    if ARGS.key_format == "hex":
        return bytes.fromhex(key)
    if ARGS.key_format == "cid":
        from libp2p.bitswap.cid import parse_cid

        return parse_cid(key).multihash
    return string_key_to_multihash(key)


def peer_json(info: PeerInfo) -> dict[str, object]:
    return {"id": info.peer_id.to_base58(), "addrs": [str(a) for a in info.addrs]}


class GoLikeStream:
    """Stream proxy that drops the answer py-libp2p gives to ADD_PROVIDER, and ends
    the stream at the asker's end where py-libp2p resets it, as if on an error.

    The server writes an answer as two writes, the length and the message, so the
    length is held back until the message is seen."""

    def __init__(self, stream):
        self._stream = stream
        self._length = None

    def __getattr__(self, name):
        return getattr(self._stream, name)

    async def read(self, n: int | None = None) -> bytes:
        try:
            return await self._stream.read(n)
        except StreamEOF:
            return b""

    async def write(self, data: bytes) -> None:
        if self._length is None:
            self._length = data
            return
        length, self._length = self._length, None
        if data[:2] != b"\x08\x02":
            await self._stream.write(length + data)


class Node:
    def __init__(self) -> None:
        seed = bytes.fromhex(ARGS.seed) if ARGS.seed else None
        self.key_pair = create_new_key_pair(seed)
        sec_opt = None
        if ARGS.security == "noise":
            sec_opt = {
                TProtocol(NOISE_ID): NoiseTransport(
                    libp2p_keypair=self.key_pair,
                    noise_privkey=create_new_x25519_key_pair().private_key,
                )
            }
        self.host = new_host(
            key_pair=self.key_pair,
            listen_addrs=[Multiaddr(ARGS.listen)],
            muxer_opt={TProtocol(YAMUX_ID): Yamux},
            sec_opt=sec_opt,
            announce_addrs=[Multiaddr(a) for a in ARGS.announce] if ARGS.announce else None,
        )
        config = self.host.get_network().connection_config
        for name in ("dial", "inbound_upgrade", "outbound_upgrade", "inbound_stream_protocol_negotiation",
                     "outbound_stream_protocol_negotiation"):
            setattr(config, name + "_timeout", 60.0)
        self.dht: kad_module.KadDHT | None = None

    def go_like(self) -> None:
        dht = self.dht
        dht._provider_rate_max = 1 << 30

        async def handler(stream) -> None:
            await dht.handle_stream(GoLikeStream(stream))

        self.host.set_stream_handler(TProtocol(ARGS.kad_protocol), handler)

    def protocols_of(self, peer_id: ID) -> list[str]:
        try:
            return sorted(str(p) for p in self.host.get_peerstore().get_protocols(peer_id))
        except Exception:
            return []

    async def connect(self, addr: str) -> PeerInfo:
        info = info_from_p2p_addr(Multiaddr(addr))
        with trio.fail_after(ARGS.timeout):
            await self.host.connect(info)
        # identify runs in the background after connect: wait for its outcome
        with trio.move_on_after(30):
            while not self.protocols_of(info.peer_id):
                await trio.sleep(0.02)
        return info

    async def bootstrap(self) -> bool:
        ok = not ARGS.bootstrap
        for addr in ARGS.bootstrap:
            try:
                info = await self.connect(addr)
                added = await self.dht.add_peer(info.peer_id) if self.dht else False
                emit("connected", peer=info.peer_id.to_base58(), added=bool(added),
                     protocols=self.protocols_of(info.peer_id))
                ok = True
            except Exception as e:
                emit("error", step="connect", addr=addr, error=f"{type(e).__name__}: {e}")
        return ok

    async def provide(self, key: str) -> bool:
        mh = to_dht_key(key)
        start = time.monotonic()
        ok = False
        with trio.move_on_after(ARGS.timeout):
            ok = await self.dht.provider_store.provide(mh)
        emit("provided", key=key, multihash=mh.hex(), ok=bool(ok), seconds=round(time.monotonic() - start, 3))
        return bool(ok)

    async def find(self, key: str) -> bool:
        mh = to_dht_key(key)
        start = time.monotonic()
        found: list[PeerInfo] = []
        with trio.move_on_after(ARGS.timeout):
            found = await self.dht.provider_store.find_providers(mh, ARGS.count)
        unique = {i.peer_id: i for i in found}
        emit("found", key=key, multihash=mh.hex(), providers=[peer_json(i) for i in unique.values()],
             seconds=round(time.monotonic() - start, 3))
        return bool(unique)

    async def closest(self, key: str) -> bool:
        target = to_dht_key(key)
        peers: list[ID] = []
        with trio.move_on_after(ARGS.timeout):
            peers = await self.dht.peer_routing.find_closest_peers_network(target)
        emit("closest", key=key, target=target.hex(), peers=[p.to_base58() for p in peers])
        return bool(peers)

    def store(self) -> dict[str, list[str]]:
        return {k.hex(): sorted(v) for k, v in self.dht.provider_store.providers.items()}

    async def stdin_commands(self, cancel: trio.CancelScope) -> None:
        try:
            stream = trio.lowlevel.FdStream(os.dup(0))
        except OSError:
            return
        buf = b""
        while True:
            try:
                chunk = await stream.receive_some(4096)
            except Exception:
                return
            if not chunk:
                return
            buf += chunk
            while b"\n" in buf:
                line, buf = buf.split(b"\n", 1)
                parts = line.decode("utf-8", "replace").strip().split(None, 1)
                if not parts:
                    continue
                op, arg = parts[0], (parts[1] if len(parts) > 1 else "")
                try:
                    if op == "quit":
                        cancel.cancel()
                        return
                    elif op == "provide":
                        await self.provide(arg)
                    elif op == "find":
                        await self.find(arg)
                    elif op == "closest":
                        await self.closest(arg)
                    elif op == "connect":
                        info = await self.connect(arg)
                        added = await self.dht.add_peer(info.peer_id)
                        emit("connected", peer=info.peer_id.to_base58(), added=bool(added),
                             protocols=self.protocols_of(info.peer_id))
                    elif op == "peers":
                        emit("peers", routing_table=[p.to_base58() for p in self.dht.routing_table.get_peer_ids()],
                             connected=[p.to_base58() for p in self.host.get_connected_peers()])
                    elif op == "store":
                        emit("store", records=self.store())
                    else:
                        emit("error", step="command", error=f"unknown command {op}")
                except Exception as e:
                    emit("error", step=op, error=f"{type(e).__name__}: {e}")


async def run_ping(node: Node, addr: str) -> bool:
    from libp2p.host.ping import PingService

    start = time.monotonic()
    info = await node.connect(addr)
    connect_s = time.monotonic() - start
    service = PingService(node.host)
    with trio.fail_after(ARGS.timeout):
        rtts = await service.ping(info.peer_id, ping_amt=max(1, ARGS.pings))
    emit("pong", peer=info.peer_id.to_base58(), rtt_ms=list(rtts), connect_seconds=round(connect_s, 3),
         protocols=node.protocols_of(info.peer_id))
    return True


async def wait_until_stopped(cancel: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            cancel.cancel()
            return


async def amain() -> int:
    patch_kad_protocol(ARGS.kad_protocol)
    be_patient()
    if ARGS.early_muxer:
        offer_early_muxer()
    node = Node()
    status = 0
    async with node.host.run(listen_addrs=[Multiaddr(ARGS.listen)]), trio.open_nursery() as nursery:
        nursery.start_soon(wait_until_stopped, nursery.cancel_scope)
        # background cleanup of expired peerstore entries, as py-libp2p's own demos do
        nursery.start_soon(node.host.get_peerstore().start_cleanup_task, 60)
        try:
            if ARGS.command == "ping":
                await run_ping(node, ARGS.addr)
            else:
                mode = kad_module.DHTMode.CLIENT if ARGS.client else kad_module.DHTMode.SERVER
                node.dht = kad_module.KadDHT(node.host, mode)
                if ARGS.go_like and not ARGS.client:
                    node.go_like()
                async with background_trio_service(node.dht):
                    emit("listening", id=node.host.get_id().to_base58(),
                         addrs=[str(a) for a in node.host.get_addrs()],
                         kad_protocol=ARGS.kad_protocol, pid=os.getpid())
                    ok = await node.bootstrap()
                    if ARGS.command == "serve":
                        nursery.start_soon(node.stdin_commands, nursery.cancel_scope)
                        await trio.sleep_forever()
                    elif ARGS.command == "provide":
                        for key in ARGS.keys:
                            ok = await node.provide(key) and ok
                        if not ok:
                            status = 1
                        nursery.start_soon(node.stdin_commands, nursery.cancel_scope)
                        if ARGS.hold > 0:
                            await trio.sleep(ARGS.hold)
                        else:
                            await trio.sleep_forever()
                    elif ARGS.command == "find":
                        results = [await node.find(key) for key in ARGS.keys]
                        status = 0 if all(results) else 1
                    elif ARGS.command == "closest":
                        status = 0 if await node.closest(ARGS.keys[0]) else 1
        except Exception as e:
            emit("error", step=ARGS.command, error=f"{type(e).__name__}: {e}")
            status = 1
        finally:
            nursery.cancel_scope.cancel()
    return status


def vectors() -> int:
    """Values this independent library computes, for comparison with our own."""
    from libp2p.kad_dht.utils import create_key_from_binary

    seed = bytes(range(32))
    kp = create_new_key_pair(seed)
    pid = ID.from_pubkey(kp.public_key)
    emit("vector", name="seed 000102..1f", seed=seed.hex(), public_key=kp.public_key.to_bytes().hex(),
         public_key_protobuf=kp.public_key.serialize().hex(), peer_id_hex=pid.to_bytes().hex(),
         peer_id=pid.to_base58(), kad_id=create_key_from_binary(pid.to_bytes()).hex())
    for text in ("/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/4001", "/ip4/10.0.0.7/udp/5001/quic-v1",
                 "/dns4/example.com/tcp/443", "/dnsaddr/example.com",
                 f"/ip4/192.168.1.24/tcp/5001/p2p/{pid.to_base58()}"):
        emit("vector", name="multiaddr", text=text, binary=Multiaddr(text).to_bytes().hex())
    mh = string_key_to_multihash("foobar")
    emit("vector", name="key foobar", multihash=mh.hex(), kad_key=create_key_from_binary(mh).hex())
    return 0


def main() -> None:
    if ARGS.command == "vectors":
        sys.exit(vectors())
    try:
        sys.exit(trio.run(amain))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
