"""What the backends over HTTP share, in the order in which a request and its answer pass it.

backend.py        a backend over HTTP; a protocol is a subclass
address.py        where a server is, and what must never be shown of it
environment.py    what lies between: proxies and certificates
client.py         what a transport is and raises, and which one requests go out on
connection.py     one of our own: HTTP/1.1, connections kept, used again, renewed
fast.py           the same by aiohttp, under asyncio where it is installed
httpx_client.py   a client of the caller's, or one behind a proxy
answer.py         one request, and its answer: from the bytes of the response to deltas
codings.py        bodies that are compressed all the same
splitting.py      from bytes to lines, or to the data of server-sent events
json_values.py    what the fields of an answer's JSON mean
failures.py       what can go wrong, as the library's errors
refusals.py       what a server says of an error, what that is about, and when the request may be made again
"""
