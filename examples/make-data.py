#!/usr/bin/env python3
"""Writes the sample data of the examples that read files: `python3 examples/make-data.py` makes all of them again.

The same bytes on every machine: everything is drawn from random.Random(seed).random(), which Python keeps stable.
"""
import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Dice:
    """What the examples draw; only `random()` of the generator, whose sequence never changes."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def below(self, n):
        return int(self.random() * n)

    def between(self, low, high):
        return low + (high - low) * self.random()

    def one_of(self, items):
        return items[self.below(len(items))]

    def often_the_first(self, items):
        return items[int(len(items) * self.random() ** 2)]

    def chance(self, p):
        return self.random() < p

    def around(self, mean, spread):
        """Bell-shaped, within three times `spread`."""
        return mean + spread * (self.random() + self.random() + self.random() - 1.5) * 2


def at(start, seconds):
    time = datetime.fromisoformat(start).replace(tzinfo=timezone.utc) + timedelta(seconds=round(seconds, 3))
    text = time.isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def write(path, lines):
    (HERE / path).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    print(f"{path}: {len(lines)} lines")


def as_json(records):
    return [json.dumps(record, ensure_ascii=False) for record in records]


def arrival(dice, timed, late):
    """Records in the order in which they come: each up to `late` seconds after its time."""
    return [record for _, record in sorted(((t + dice.between(0, late), r) for t, r in timed), key=lambda x: x[0])]


def sales():
    dice = Dice(11)
    categories = {"books": (8, 40), "garden": (15, 120), "kitchen": (10, 90), "electronics": (60, 700)}
    products = []
    for category, (low, high) in categories.items():
        for _ in range(6):
            products.append((f"p{len(products) + 1:02}", category, round(dice.between(low, high), 2)))
    write("sales/products.csv", ["product_id,category,price"] + [f"{p},{c},{price:.2f}" for p, c, price in products])
    timed = []
    for i in range(600):
        second = dice.between(0, 3 * 3600)
        order = {
            "order_id": f"o{i:04}",
            "customer": f"c{dice.below(120):03}",
            "region": dice.often_the_first(["north", "south", "east", "west"]),
            "product_id": dice.often_the_first(products)[0],
            "quantity": 1 + int(4 * dice.random() ** 3),
            "ordered_at": at("2026-03-02T08:00:00", second),
        }
        # What real orders have: mistakes. The last two are no records at all and become dead letters.
        if i % 60 == 7:
            order["quantity"] = dice.one_of([0, -1, 5000])
        if i % 75 == 11:
            order["region"] = dice.one_of([None, "moon"])
        if i % 90 == 13:
            order["product_id"] = "p99"
        if i % 200 == 17:
            order["quantity"] = "two"
        if i % 200 == 19:
            del order["ordered_at"]
        timed.append((second, order))
    write("sales/orders.jsonl", as_json(arrival(dice, timed, 180)))


PLACES = [
    ("Berlin", 52.52, 13.405), ("Hamburg", 53.551, 9.994), ("Munich", 48.137, 11.575), ("Paris", 48.857, 2.352),
    ("Vienna", 48.208, 16.373), ("Madrid", 40.417, -3.703),
]
FAR = [("Sydney", -33.869, 151.209), ("Lima", -12.046, -77.043), ("Tokyo", 35.676, 139.65)]


def fraud():
    dice = Dice(12)
    timed = []

    def pay(card, second, place, amount):
        _, latitude, longitude = place
        record = {
            "transaction_id": "",
            "card_id": f"card-{card:02}",
            "amount": round(amount, 2),
            # Somewhere in the city.
            "latitude": round(latitude + dice.between(-0.05, 0.05), 4),
            "longitude": round(longitude + dice.between(-0.05, 0.05), 4),
            "timestamp": at("2026-03-02T00:00:00", second),
        }
        timed.append((second, record))

    for card in range(30):
        home, usual = dice.one_of(PLACES), dice.between(20, 120)
        second = dice.between(0, 3600)
        while second < 86_400:
            pay(card, second, home, dice.around(usual, usual / 6))
            second += dice.between(1200, 5400)
    # One card is tried out in small amounts, one after the other; two more a little slower.
    for card, start, count, apart in [(4, 30_000, 9, 20), (17, 51_000, 7, 60), (22, 70_200, 6, 80)]:
        for i in range(count):
            pay(card, start + i * apart, PLACES[0], dice.between(1, 3))
    for card, second in [(2, 61_000), (9, 80_000), (25, 45_500)]:
        pay(card, second, PLACES[card % 3], dice.between(900, 2500))
    for card, second in [(6, 40_000), (13, 66_000), (28, 20_000)]:
        pay(card, second, dice.one_of(FAR), dice.between(20, 60))
    timed.sort(key=lambda x: x[0])
    for i, (_, record) in enumerate(timed):
        record["transaction_id"] = f"t{i:04}"
    # A terminal that lost its position.
    timed[200][1]["latitude"] = 520.0
    write("fraud/transactions.jsonl", as_json(arrival(dice, timed, 240)))


def iot():
    dice = Dice(13)
    rooms = ["office", "lab", "store", "roof"]
    sensors = [(f"s{i:02}", rooms[i % 4]) for i in range(12)]
    write("iot/sensors.csv", ["sensor_id,room"] + [f"{s},{room}" for s, room in sensors])
    # Hours that a sensor's readings are held back from and until: they come when the line is back.
    outages = {"s05": (10, 14.4), "s08": (3, 30)}
    rows, quarter = [], 900
    for i in range(36 * 4):
        for number, (sensor, _) in enumerate(sensors):
            second = i * quarter + number * 7 + dice.below(5)
            base = 21 + 4 * ((i % 96) / 96 - 0.5) + number % 4
            value = dice.around(base, 1.0)
            if dice.chance(0.01):
                value = dice.one_of([-127.0, 85.0, 999.9])
            begin, back = outages.get(sensor, (1e9, 1e9))
            # The sensor that is away for long sends only its first hours later, and then goes on.
            held = begin * 3600 <= second < (back if sensor == "s05" else begin + 3) * 3600
            comes = back * 3600 + second / 1e6 if held else second
            rows.append((comes, f"{sensor},{value:.1f},{at('2026-03-02T00:00:00', second)}"))
    rows.sort(key=lambda x: x[0])
    write("iot/readings.csv", ["sensor_id,temperature,measured_at"] + [row for _, row in rows])


def logs():
    dice = Dice(14)
    services = ["web", "search", "cart", "payments", "mail"]
    good = {"web": "GET /", "search": "query done", "cart": "item added", "payments": "card charged", "mail": "sent"}
    bad = {"web": "upstream reset", "search": "index not ready", "cart": "lock timeout", "payments": "bank refused the connection", "mail": "mailbox full"}
    timed = []
    for _ in range(1500):
        second, service = dice.between(0, 1800), dice.one_of(services)
        minute = int(second // 60)
        share = 0.03
        if service == "payments" and 12 <= minute < 15:
            share = 0.9
        if service == "search" and minute == 23:
            share = 0.9
        # Rises slowly: no alarm.
        if service == "web":
            share = minute / 150
        error = dice.chance(share)
        record = {
            "time": at("2026-03-02T12:00:00", second),
            "service": service,
            "level": "ERROR" if error else dice.often_the_first(["INFO", "DEBUG", "WARN"]),
            "ms": int(dice.between(2, 80) * (20 if error else 1)),
            "message": bad[service] if error else good[service],
        }
        timed.append((second, record))
    lines = as_json(arrival(dice, timed, 20))
    # A process that died in the middle of a line.
    lines[700] = lines[700][:41]
    write("logs/app.jsonl", lines)


for make in (sales, fraud, iot, logs):
    make()
