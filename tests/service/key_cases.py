"""Ways to ask without a key that would do: fields of a head, and spellings of a path."""

from __future__ import annotations

import base64
import hashlib

from service.access.keys import make_key

__all__ = ["ALICE", "BOB", "EYE", "KEY", "OPS", "PATHS", "WRONG", "bearer"]

ALICE, BOB = make_key("alice", ["infer"]), make_key("bob", ["infer"])
OPS, EYE = make_key("ops", ["admin"]), make_key("eye", ["metrics"])
KEY = ALICE.key


def bearer(key: bytes | str) -> bytes:
    """The field that brings a key."""
    return b"Authorization: Bearer " + (key if isinstance(key, bytes) else key.encode()) + b"\r\n"


raw = KEY.encode()
digest = hashlib.sha256(raw)
WRONG = {
    "none": b"",
    "empty": b"Authorization:\r\n",
    "no key": b"Authorization: Bearer\r\n",
    "blank key": b"Authorization: Bearer  \r\n",
    "no scheme": b"Authorization: " + raw + b"\r\n",
    "no space": b"Authorization: Bearer" + raw + b"\r\n",
    "a tab": b"Authorization: Bearer\t" + raw + b"\r\n",
    "basic": b"Authorization: Basic " + base64.b64encode(b"alice:" + raw) + b"\r\n",
    "token": b"Authorization: Token " + raw + b"\r\n",
    "digest scheme": b"Authorization: Digest " + raw + b"\r\n",
    "quoted": bearer(b'"' + raw + b'"'),
    "in brackets": bearer(b"<" + raw + b">"),
    "one too few": bearer(raw[:-1]),
    "half": bearer(raw[: len(raw) // 2]),
    "the beginning": bearer(raw[:3]),
    "one letter": bearer(raw[:1]),
    "without its beginning": bearer(raw[3:]),
    "one too many": bearer(raw + b"A"),
    "padded": bearer(raw + b"="),
    "twice in one": bearer(raw + raw),
    "two keys": bearer(raw + b" " + BOB.key.encode()),
    "a list": bearer(raw + b", Bearer " + raw),
    "commas": bearer(raw + b"," + BOB.key.encode()),
    "two fields": bearer(KEY) + bearer(KEY),
    "wrong, then right": bearer("pf_wrong") + bearer(KEY),
    "right, then wrong": bearer(KEY) + bearer("pf_wrong"),
    "basic, then right": b"Authorization: Basic YTpi\r\n" + bearer(KEY),
    "upper": bearer(raw.upper()),
    "lower": bearer(raw.lower()),
    "other case": bearer(raw.swapcase()),
    "last letter": bearer(raw[:-1] + (b"A" if raw[-1:] != b"A" else b"B")),
    "first letter": bearer(b"P" + raw[1:]),
    "reversed": bearer(raw[::-1]),
    "a dot behind": bearer(raw + b"."),
    "nbsp behind": bearer(raw + b"\xa0"),
    "nbsp before": bearer(b"\xa0" + raw),
    "accent": bearer(raw + "\u00e9".encode()),
    "fullwidth": bearer("".join(chr(ord(c) + 0xFEE0) for c in KEY).encode()),
    "zero width": bearer(raw[:5] + "\u200b".encode() + raw[5:]),
    "bom": bearer("\ufeff".encode() + raw),
    "percent": bearer(b"".join(b"%%%02X" % c for c in raw)),
    "one percent": bearer(b"%70" + raw[1:]),
    "base64": bearer(base64.b64encode(raw)),
    "hex": bearer(raw.hex()),
    "its hash": bearer(digest.hexdigest()),
    "its hash as stored": bearer("sha256:" + digest.hexdigest()),
    "its hash in base64": bearer(base64.b64encode(digest.digest())),
    "its name": bearer("alice"),
    "its line": bearer(ALICE.stored.line()),
    "none in words": bearer("null"),
    "a star": bearer("*"),
    "a pattern": bearer("pf_.*"),
    "long": bearer(b"x" * 9000),
    "long with the key": bearer(raw + b"x" * 9000),
    "jwt": bearer("eyJhbGciOiJub25lIn0.e30."),
    "of administration": bearer(OPS.key),
    "of metrics": bearer(EYE.key),
    "cookie": b"Cookie: Authorization=Bearer " + raw + b"; key=" + raw + b"\r\n",
    "proxy": b"Proxy-Authorization: Bearer " + raw + b"\r\n",
    "api key": b"X-Api-Key: " + raw + b"\r\n",
    "other name": b"X-Authorization: Bearer " + raw + b"\r\n",
    "underscore": b"Authorization_: Bearer " + raw + b"\r\n",
    "forwarded": b"X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
    "forwarded key": b"X-Forwarded-Authorization: Bearer " + raw + b"\r\n",
    "original url": b"X-Original-URL: /health/live\r\nX-Rewrite-URL: /health/live\r\n",
    "other method": b"X-HTTP-Method-Override: GET\r\n",
    "forwarded prefix": b"X-Forwarded-Prefix: /health/live\r\n",
    "preflight fields": b"Access-Control-Request-Method: POST\r\n",
}
"""Fields that bring no key for the flows. Those whose name begins with `of` bring one for something else."""

PATHS = {
    "as it is": b"/logprob",
    "by name": b"/models/two-moons/logprob",
    "by version": b"/models/two-moons/versions/1/logprob",
    "two slashes": b"//logprob",
    "three slashes": b"///logprob",
    "slash behind": b"/logprob/",
    "dot": b"/./logprob",
    "dots": b"/models/../logprob",
    "dots from the open": b"/health/live/../../logprob",
    "dots from the pages": b"/docs/../logprob",
    "percent": b"/%6cogprob",
    "percent dots": b"/health/live/%2e%2e/%2e%2e/logprob",
    "percent slashes": b"/health/live%2f..%2f..%2flogprob",
    "percent twice": b"/%256cogprob",
    "percent wrong": b"/%zzlogprob",
    "null": b"/logprob%00",
    "null before": b"/health/live%00/logprob",
    "upper": b"/LOGPROB",
    "semicolon": b"/logprob;/health/live",
    "parameter": b"/health/live;/../logprob",
    "backslash": b"/health/live\\..\\..\\logprob",
    "query": b"/logprob?/health/live",
    "key in query": b"/logprob?key=" + raw + b"&access_token=" + raw + b"&authorization=Bearer%20" + raw,
    "fragment": b"/logprob#/health/live",
    "absolute": b"http://localhost/logprob",
    "absolute elsewhere": b"http://localhost/health/live/../../logprob",
    "v2": b"/v2/models/two-moons/infer",
    "v2 dots": b"/v2/health/live/../../../logprob",
    "repository": b"/repository",
    "repository version": b"/repository/two-moons/versions/1",
    "repository percent": b"/%72epository",
    "repository slashes": b"//repository",
    "v2 repository": b"/v2/repository/index",
    "metrics": b"/metrics",
    "metrics percent": b"/%6detrics",
    "metrics slashes": b"//metrics",
    "metrics slash behind": b"/metrics/",
    "a line end": b"/metrics%0A",
    "line ends": b"/%0Ametrics%0A",
    "models": b"/models",
    "sample": b"/sample?n=1&seed=1",
    "nowhere": b"/nowhere",
    "empty": b"/?",
}
"""Targets that are `/logprob` and others in many spellings; `empty` is the page that anyone may see."""
