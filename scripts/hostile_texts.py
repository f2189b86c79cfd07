"""Makes texts that someone might send to do harm, or by accident, for `load_test.py`.

They are written as in the JSON of a request.

for name, literal in draw_texts(500, seed=0): ...   # literal: bytes, including the quotes
"""

import json
import random
from collections.abc import Iterator

NAMED = {
    "nothing": "",
    "spaces": " \t\r\n\u00a0\u2003\u3000" * 50,
    "NUL": "itchy\0red\0" * 20,
    "controls": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "right to left": "\u202eyhcti si niks ym\u202c \u2067\u2066 حكة في الجلد",
    "no width": "i\u200bt\u200cc\u200dh\ufeffy" * 100,
    "combining": "i" + "\u0301" * 5000,
    "non-characters": "\ufffe\uffff\U0001fffe\U0010ffff\ufffd",
    "emoji": "\U0001f469\U0001f3fd\u200d\u2695\ufe0f\U0001f1e9\U0001f1ea" * 900,
    "expanding": "\ufdfa\u3300\u1e9b\u0323" * 3000,  # one character becomes eighteen in NFKC
    "20 kB": "itchy " * 3400,
    "1 MB": "red patches " * 90_000,
    "one word": "x" * 20_000,
    "no spaces": "皮膚がかゆい" * 3000,
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)><!--" * 40,
    "open tags": "<" * 20_000,
    "almost tags": "<a " * 6000,
    "entities": "&lt;" + "&amp;" * 4000 + "&#x0;&#xD800;",
    "SQL": "'; DROP TABLE patients; -- \" OR 1=1 /*",
    "shell": "$(rm -rf /) `id` | cat /etc/passwd; \n",
    "formula": "=cmd|' /C calc'!A0",
    "format": "%s%n%x{0.__class__}{{7*7}}${jndi:ldap://x/y}",
    "path": "../../../../etc/passwd\0.txt",
    "special tokens": "[CLS][SEP][MASK][PAD][UNK]" * 200,
    "JSON": '{"b64": "AAAA"}, {"instances": [' + "[" * 9000,
    "numbers": "NaN Infinity -0 1e999 0x7fffffff " * 100,
    "accents": "é" * 9999 + "e\u0301" * 9999,
}
LITERALS = {  # not strings at all, for a strict reader
    "lone high surrogate": rb'"itchy \ud800"',
    "lone low surrogate": rb'"\udfff itchy"',
    "surrogates in the wrong order": rb'"\udc00\ud800"',
    "invalid UTF-8": b'"itchy \xff\xfe\xc0\x80"',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "cut UTF-8": b'"\xf0\x9f\x98"',
    "raw newline": b'"itchy\nred"',
    "bad escape": rb'"\x41"',
    "no end": b'"itchy',
    "null": b"null",
    "a number": b"1e400",
    "a list": b'["itchy"]',
    "nested": b"[" * 50_000 + b"]" * 50_000,
    "nested objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "base64 of anything": b'{"b64": "/+AA/9j/"}',
    "not base64": b'{"b64": "???"}',
    "two keys": b'{"b64": "", "b64x": ""}',
}


def draw_texts(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yields the named texts first, then random ones.

    Args:
        count: How many texts.
        seed: Seed of the random ones.
    """
    rng = random.Random(seed)
    named = [
        (name, json.dumps(text, ensure_ascii=len(name) % 2 == 0).encode())
        for name, text in NAMED.items()
    ]
    named += LITERALS.items()
    yield from named[:count]
    for number in range(count - len(named)):
        yield f"random {number}", json.dumps(_draw_random(rng)).encode()


def _draw_random(rng: random.Random) -> str:
    """Draws characters from all of Unicode except surrogates, or pieces of the named texts."""
    if rng.random() < 0.5:
        codes = (
            rng.choice(
                (rng.randrange(0x80), rng.randrange(0xD800), rng.randrange(0xE000, 0x110000))
            )
            for _ in range(rng.randrange(2000))
        )
        return "".join(map(chr, codes))
    texts = list(NAMED.values())
    return "".join(rng.choice(texts)[: rng.randrange(400)] for _ in range(rng.randrange(1, 12)))
