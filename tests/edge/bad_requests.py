"""Requests from which wrong ones are made, as bytes."""

from wrong_input import request

JSON = b"Content-Type: application/json"
NDJSON = b"Content-Type: application/x-ndjson"
STREAM = b"GET /v1/room/a/events"
HISTORY = b"GET /v1/room/a/history"
PUBLISH = b"POST /v1/room/a/publish"
KIB = 1024


def get(*fields, path=b"/healthz"):
    return request(b"GET " + path, *fields)


def publish(body, *fields, kind=b"room", media=JSON):
    return request(b"POST /v1/%s/a/publish" % kind, media, *fields, body=body)


def call(body, method=b"double", media=JSON):
    return request(b"POST /v1/room/a/call/" + method, media, body=body)


def history(path):
    return request(b"GET /v1/" + path + b"/history")


def data(text):
    return publish(b'{"data":%b}' % text)


def chunked(*chunks, path=b"/v1/room/a/publish"):
    return request(b"POST " + path, JSON, b"Transfer-Encoding: chunked") + b"".join(chunks)
