"""WebSocket servers that speak as KIS's and Yahoo's do, and fall silent or break off when told to."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Sequence
from datetime import datetime

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from sise.calendars import ZONES


class StreamServer:
    """``send`` goes to every client; ``mute``: new clients are accepted and told nothing; ``drop``: closes them all."""

    def __init__(self) -> None:
        self.clients: list[ServerConnection] = []
        self.received: list[dict] = []
        self.connects = 0
        self.mute = False
        self._over = threading.Event()
        self.limit = 41
        self._server = serve(self._talk, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.drop()
        self._server.shutdown()

    def _talk(self, client: ServerConnection) -> None:
        self.connects += 1
        if self.mute:
            self._over.wait(60)
            return
        count = 0
        with contextlib.suppress(ConnectionClosed):
            for text in client:
                told = json.loads(text)
                self.received.append(told)
                if "subscribe" in told:
                    self.clients.append(client)
                elif told.get("header", {}).get("tr_type") == "1":
                    count += 1
                    given = told["body"]["input"]
                    body = {"rt_cd": "0", "msg_cd": "OPSP0000", "msg1": "SUBSCRIBE SUCCESS"}
                    if count > self.limit:
                        body = {"rt_cd": "1", "msg_cd": "OPSP0008", "msg1": "MAX SUBSCRIBE OVER"}
                    client.send(json.dumps({"header": {**given}, "body": body}))
                    if client not in self.clients:
                        self.clients.append(client)

    def send(self, text: str) -> None:
        for client in list(self.clients):
            with contextlib.suppress(ConnectionClosed):
                client.send(text)

    def drop(self) -> None:
        for client in self.clients:
            with contextlib.suppress(Exception):
                client.socket.close()
        self.clients.clear()

    def await_clients(self, registered: int, seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.clients and sum("body" in r or "subscribe" in r for r in self.received) >= registered:
                return
            time.sleep(0.02)
        raise AssertionError(f"no client registered {registered} shares: {self.received[-3:]}")


def kis_trade(
    code: str, at: datetime, price: float, volume: int, total: int, extra: Sequence[str] = (), **other: str
) -> str:
    """The fields of one H0STCNT0 trade; ``extra``: fields that KIS has added at the end."""
    moment = at.astimezone(ZONES["KR"])
    fields = ["0"] * 46
    fields[0], fields[1], fields[2] = code, f"{moment:%H%M%S}", f"{price:.0f}"
    fields[12], fields[13], fields[33] = str(volume), str(total), f"{moment:%Y%m%d}"
    fields[3], fields[4] = other.get("change", "0 0").split()
    fields[34], fields[35], fields[43] = "20", other.get("halted", "N"), other.get("hour_class", "0")
    return "^".join([*fields, *extra])


def kis_frame(*trades: str, kind: str = "H0STCNT0") -> str:
    return f"0|{kind}|{len(trades):03}|{'^'.join(trades)}"


def us_trade(symbol: str, at: datetime, price: float, volume: int, total: int, change: str = "0 0") -> str:
    moment = at.astimezone(ZONES["US"])
    fields = ["0"] * 26
    fields[0], fields[1] = f"DNAS{symbol}", symbol
    fields[12], fields[13] = change.split()
    fields[4], fields[5], fields[11] = f"{moment:%Y%m%d}", f"{moment:%H%M%S}", f"{price:.4f}"
    fields[19], fields[20], fields[25] = str(volume), str(total), "1"
    return "^".join(fields)
