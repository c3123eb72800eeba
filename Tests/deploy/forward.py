"""Forwards a TCP port of this network namespace to another of its ports: forward.py PORT TARGET"""

import asyncio
import sys

port, target = int(sys.argv[1]), int(sys.argv[2])


async def copy(reader, writer):
    try:
        while data := await reader.read(1 << 20):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve(reader, writer):
    try:
        others = await asyncio.open_connection("127.0.0.1", target)
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, others[1]), copy(others[0], writer))


async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", port)
    await server.serve_forever()


asyncio.run(main())
