"""What a micro-batch of detection found, straight to Redis: no relay is needed."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from sise.console import tell
from sise.serving.prices import LatestPrices
from sise.serving.relay import publish
from sise.serving.sender import Sender
from sise.serving.signals import SignalStore, patiently
from sise.settings import Settings
from sise.signals.judge import PRICE
from sise.signals.rules import LiveRules
from sise.topics import DEAD, SIGNALS, topic_of

__all__ = ["MicroBatches"]


class MicroBatches:
    """Writes each batch of rules_and_prices' rows: dead letters, what fires, then the latest prices."""

    def __init__(
        self,
        store: SignalStore,
        sender: Sender,
        prices: LatestPrices,
        rules: LiveRules,
        settings: Settings,
        stop: Callable[[], bool],
    ):
        self.store, self.sender, self.prices, self.rules, self.stop = store, sender, prices, rules, stop
        self.dead, self.signals = (topic_of(topic, settings.topic_prefix) for topic in (DEAD, SIGNALS))
        self.begun = False

    def __call__(self, rows: pa.Table) -> None:
        if not self.begun:  # the batch before may have given up between the two
            publish(self.store, self.sender, self.signals, patiently(self.store.unpublished, tell, self.stop))
            self.begun = True
        dead = rows.filter(pc.equal(rows["kind"], "dead")).select(["key", "value"]).to_pylist()
        self.sender.send(self.dead, [(row["key"], row["value"].encode()) for row in dead])
        records = rows.filter(pc.equal(rows["kind"], "rules"))["value"].to_pylist()
        publish(self.store, self.sender, self.signals, self.store.fire_patiently(records, self.rules, tell, self.stop))
        self.prices.write(rows.filter(pc.fill_null(pc.not_equal(rows["kind"], "dead"), True)).select(list(PRICE)))
